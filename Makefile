# Everything lives in .venv; a stamp per set of requirements makes the second run quick.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# The CUDA build of ONNX Runtime where a GPU answers or is asked for; an explicit BIJOU_DEVICE=cpu wins.
DEVICE := $(or $(BIJOU_DEVICE),auto)
ifeq ($(DEVICE),auto)
HAS_GPU := $(shell nvidia-smi >/dev/null 2>&1 && echo yes)
else ifeq ($(DEVICE),cuda)
HAS_GPU := yes
endif
SERVE_LOCK := requirements/$(if $(HAS_GPU),serve-gpu,serve).txt
SERVE_STAMP := $(VENV)/.$(notdir $(SERVE_LOCK)).stamp
TEST_STAMP := $(VENV)/.test.stamp

# The serving set is a subset of the test set, but for ONNX Runtime's build, which follows the machine.
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet

.PHONY: help
help:  ## Show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 16

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Bijou needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(SERVE_STAMP): $(SERVE_LOCK) | $(BIN)/python
	$(PIP) --require-hashes --only-binary :all: -r $(SERVE_LOCK)
	@touch $@

$(TEST_STAMP): requirements/test.txt requirements/torch.txt $(SERVE_STAMP) | $(BIN)/python
	$(PIP) --require-hashes --only-binary :all: -r requirements/test.txt
	$(PIP) -r requirements/torch.txt
	@touch $@

.PHONY: install install-test
install: $(SERVE_STAMP)  ## Install what the service runs on
install-test: $(TEST_STAMP)  ## Install what tests and model export need as well

.PHONY: serve
serve: install  ## Serve on BIJOU_HOST:BIJOU_PORT (127.0.0.1:8000)
	exec $(BIN)/python -m service serve

.PHONY: check
check: install-test  ## Lint, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

.PHONY: test test-all
test: PYTEST_ARGS += -m "not slow"
test test-all: check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST_ARGS)
test:  ## Check, then run the tests (under ten minutes on two cores)
test-all:  ## The same with the slow ones: tutorial, figures, bulk jobs

.PHONY: bench
bench: install-test  ## Measure speed and memory beside other codecs
	$(BIN)/python -m tests.bench.bench $(ARGS)

.PHONY: evaluate
evaluate: install-test  ## Measure rates and distortions: make evaluate ARGS="photographs/ --out evaluation/"
	$(BIN)/python -m model_export evaluate $(ARGS)

.PHONY: train
train: install-test  ## Train a model
	$(BIN)/python -m model_export train $(ARGS)

.PHONY: export
export: install-test  ## Turn a checkpoint into a model the service can serve
	$(BIN)/python -m model_export export $(ARGS)

.PHONY: golden
golden: install-test  ## Write the golden files again; review the difference before committing it
	$(BIN)/python -m model_export golden $(ARGS)

# The lock names versions and hashes and no index, so that it works with any mirror.
.PHONY: lock
lock:  ## Resolve requirements/*.in again (needs uv)
	cd requirements && for set in serve serve-gpu test; do uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --custom-compile-command "make lock" --output-file $$set.txt $$set.in; done
