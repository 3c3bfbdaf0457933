#!/usr/bin/env bash
# From nothing to a served model, in minutes: train a tiny one on synthetic pictures, export it, serve it, measure it.
#
#   examples/tutorial.sh [folder]        results go to the folder, ./tutorial by default
#
# A real model is trained the same way, with --size bijou-1, --data and hours instead of --max-steps; see docs/model-card.md.
# Run it in the root of the repository after `make install-test`. STEPS is how long to train.
set -euo pipefail
folder=${1:-tutorial}
steps=${STEPS:-60}
python=${PYTHON:-.venv/bin/python}
port=${PORT:-8123}
url=http://127.0.0.1:$port
mkdir -p "$folder"

# 1. Train, first in floating point, then with the integers the service will compute in. The pictures are the project's own
#    synthetic samples, to learn from and to watch progress on; a real model needs other pictures for the second. The
#    checkpoint holds what is needed to go on.
"$python" -m examples.make_samples "$folder/samples"
train=("$python" -m model_export train --size tiny --batch 2 --side 128 --data "$folder/samples" --valid "$folder/samples")
"${train[@]}" --max-steps "$steps" --out "$folder/tiny.pt"
"${train[@]}" --max-steps "$((steps / 3))" --exact --start "$folder/tiny.pt" --out "$folder/exact.pt"

# 2. Export: weights become integers that are proved exact, tables are fitted, golden files are written and checked.
"$python" -m model_export export --checkpoint "$folder/exact.pt" --data "$folder/samples" --models "$folder/models" --trained "in the tutorial"
"$python" -m model_export verify --models "$folder/models"

# 3. Serve it. The models folder is a setting; everything else has a default.
BIJOU_LOG_LEVEL=warning BIJOU_MODELS_FOLDER=$folder/models "$python" -m service serve --port "$port" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true' EXIT
until "$python" -m service health --url "$url/healthz/ready" 2>/dev/null; do
  kill -0 "$server"
  sleep 0.2
done

# 4. Measure: the samples at several qualities, there and back. `--force` makes a second run of this script start anew.
for quality in 20 60 100; do
  "$python" -m service remote encode "$folder/samples" --url "$url" --output "$folder/q$quality/" --quality "$quality" --force
  "$python" -m service remote decode "$folder/q$quality" --url "$url" --output "$folder/q$quality-decoded/" --force
done
"$python" -m examples.compare "$folder/samples" "$folder"/q20 "$folder"/q60 "$folder"/q100
