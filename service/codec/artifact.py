"""A model folder on disk -> sessions and tables, with every digest checked.

    <id>/  manifest.json  tables.npz  forward.onnx  inverse.onnx
           feedback.onnx  synthesis_back.onnx
           fine_, middle_, coarse_, coarsest_: trunk.onnx  luma0-3.onnx  chroma0-3.onnx  dequantiser.onnx  adjoint.onnx
           of these, but for adjoint, also with 8-bit kernels: trunk.byte.onnx and so on
           trial.byte.onnx
           golden/picture.png  golden/q*.bij

The id is the first 16 hex digits of the manifest's SHA-256; the manifest holds the digests of everything else, so
the id names every bit that can influence a decoder.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnxruntime as ort

from service.codec.errors import DeviceError, ModelError, UnknownModelError
from service.codec.kernels import adds_up
from service.codec.lattice import LOSSLESS_UNIT
from service.codec.model_tables import ModelTables, read_tables

PRIOR_GRAPHS = ("trunk", *(f"{c}{i}" for c in ("luma", "chroma") for i in range(4)), "dequantiser", "adjoint")
PRIORS = ("fine", "middle", "coarse", "coarsest")
"""Sets of prior graphs: those of the three finest levels, and that of all coarser ones."""
BYTE_SUFFIX = ".byte"
BYTE_TRIAL = "trial" + BYTE_SUFFIX
MANIFEST_FORMAT = 12
SHIPPED = Path(__file__).resolve().parent.parent / "models"
Optimisation = Literal["all", "extended", "basic", "disabled"]
_LEVELS = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


@dataclass(frozen=True)
class RuntimeOptions:
    """How graphs are run; nothing here can change a result.

    Attributes:
        device: `auto` takes CUDA where it works, else the CPU.
        threads: CPU threads of a graph; 0: one per core this process may use.
        optimisation: ONNX Runtime's graph optimisation.
        kernels: `auto` takes 8-bit kernels on a CPU whose own add up without overflow, else float ones.
        gpu_memory_bytes: Most GPU memory the runtime's arena may take; 0: no limit.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = 0
    optimisation: Optimisation = "all"
    kernels: Literal["auto", "float"] = "auto"
    gpu_memory_bytes: int = 0


class Model:
    """An opened model.

    Attributes:
        id: 16 hex digits.
        name: Name for `model=`.
        device: `cpu` or `cuda`.
        kernels: `byte` or `float`: what most of the prior is computed with.
        folder: Where it was opened.
        manifest: The manifest as read.
        tables: Its integer tables.
        sessions: Its graphs.
    """

    def __init__(
        self,
        model_id: str,
        folder: Path,
        manifest: dict[str, Any],
        tables: ModelTables,
        sessions: dict[str, ort.InferenceSession],
        device: str,
        kernels: str,
    ) -> None:
        self.id, self.folder, self.manifest, self.tables = model_id, folder, manifest, tables
        self.sessions, self.device, self.name = sessions, device, str(manifest["name"])
        self.kernels = kernels
        self.levels = int(manifest["config"]["levels"])

    @property
    def rungs(self) -> int:
        """Levels of both lattices."""
        return 2 * self.levels

    def rung(self, level: int, unit: int) -> int:
        """Row of a level in tables that tell the lattices apart: all lossy levels, then all lossless ones."""
        return level + (self.levels if unit == LOSSLESS_UNIT else 0)

    def parent(self, level: int) -> int:
        """Channels that the prior of the next coarser level hands on to that of a level."""
        inputs = {own.name: own.shape for own in self.prior_session("trunk", level).get_inputs()}
        return int(inputs["parent"][1])

    def prior_session(self, name: str, level: int) -> ort.InferenceSession:
        """The prior graph that serves a level."""
        return self.sessions[graph_of_level(name, level)]


def prior_of_level(level: int) -> str:
    """Name of the set of prior graphs that serves a level."""
    return PRIORS[min(level, len(PRIORS) - 1)]


def levels_served(level: int, levels: int) -> range:
    """All levels, of so many, that are served by the set of prior graphs that serves a level."""
    last = len(PRIORS) - 1
    return range(level, level + 1) if level < last else range(last, max(levels, last + 1))


def graph_of_level(name: str, level: int) -> str:
    """Full name of the prior graph that serves a level."""
    return f"{prior_of_level(level)}_{name}"


GRAPHS = (
    "forward",
    "inverse",
    "feedback",
    "synthesis_back",
    *(graph_of_level(name, level) for level in range(len(PRIORS)) for name in PRIOR_GRAPHS),
)

TWINS = frozenset(
    graph_of_level(name, level) for name in PRIOR_GRAPHS if name != "adjoint" for level in range(len(PRIORS))
)
"""Graphs of which there is another with 8-bit kernels: the same integers, faster where a processor has them."""


def model_id_of(manifest: bytes) -> str:
    """First 16 hex digits of the manifest's SHA-256."""
    return hashlib.sha256(manifest).hexdigest()[:16]


def open_model(folder: Path, options: RuntimeOptions = RuntimeOptions()) -> Model:
    """Open a model folder.

    Raises:
        ModelError: Files are missing, damaged or of an unknown format.
        DeviceError: The asked-for device is not available.
    """
    try:
        raw = (folder / "manifest.json").read_bytes()
        manifest = json.loads(raw)
        files = {name: (folder / name).read_bytes() for name in manifest["digests"]}
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"the model in {folder.name} is incomplete: {error}; export it again") from error
    if manifest.get("format") != MANIFEST_FORMAT:
        raise ModelError(
            f"the model in {folder.name} has format {manifest.get('format')}; this code reads {MANIFEST_FORMAT}"
        )
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != manifest["digests"][name]:
            raise ModelError(f"{name} of the model in {folder.name} is damaged; export or install it again")
    providers, device = _providers(options)

    def session(graph: str, kernels: str) -> ort.InferenceSession:
        twin = graph + BYTE_SUFFIX if kernels == "byte" and graph in TWINS else graph
        return _session(files[f"{twin}.onnx"], options, providers, kernels == "byte")

    trial = device == "cpu" and options.kernels == "auto" and adds_up(session(BYTE_TRIAL, "float"))
    kernels = "byte" if trial else "float"
    sessions = {name: session(name, kernels) for name in GRAPHS}
    if device == "cuda" and any("CUDAExecutionProvider" not in s.get_providers() for s in sessions.values()):
        if options.device == "cuda":
            raise DeviceError("CUDA was asked for but a graph fell back to the CPU; check the CUDA and cuDNN libraries")
        device = "cpu"
    return Model(model_id_of(raw), folder, manifest, read_tables(files["tables.npz"]), sessions, device, kernels)


def _providers(options: RuntimeOptions) -> tuple[list[Any], str]:
    has_cuda = "CUDAExecutionProvider" in ort.get_available_providers()
    if options.device == "cuda" and not has_cuda:
        raise DeviceError(
            "CUDA was asked for but this ONNX Runtime has none; install onnxruntime-gpu or set device cpu"
        )
    if options.device == "cpu" or not has_cuda:
        return ["CPUExecutionProvider"], "cpu"
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    ort.set_default_logger_severity(3)  # DEFAULT warns at every plan, of being slow
    cuda: dict[str, Any] = {
        "use_tf32": 0,
        "cudnn_conv_algo_search": "DEFAULT",  # others may choose Winograd, whose sums are not exact
        "arena_extend_strategy": "kSameAsRequested",
    }
    if options.gpu_memory_bytes:
        cuda["gpu_mem_limit"] = options.gpu_memory_bytes
    return [("CUDAExecutionProvider", cuda), "CPUExecutionProvider"], "cuda"


@functools.cache
def _share_memory() -> None:
    """One arena for the CPU memory of all graphs: with one each, every graph would keep the peak of its own."""
    info = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
    arena = {
        "arena_extend_strategy": 0,
        "max_mem": 0,
        "initial_chunk_size_bytes": -1,
        "max_dead_bytes_per_chunk": -1,
    }
    ort.create_and_register_allocator(info, ort.OrtArenaCfg(arena))


def _session(graph: bytes, options: RuntimeOptions, providers: list[Any], byte_kernels: bool) -> ort.InferenceSession:
    _share_memory()
    settings = ort.SessionOptions()
    settings.add_session_config_entry("session.use_env_allocators", "1")
    settings.intra_op_num_threads = options.threads or len(os.sched_getaffinity(0))
    settings.inter_op_num_threads = 1
    # Each graph has a pool of its own; pools that spin while another graph works take its cores.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Convolutions between bytes that are written in floats become 8-bit kernels unless told otherwise.
    settings.add_session_config_entry("session.disable_quant_qdq", "0" if byte_kernels else "1")
    settings.graph_optimization_level = _LEVELS[options.optimisation]
    settings.log_severity_level = 3
    return ort.InferenceSession(graph, settings, providers=providers)


class ModelSet:
    """The models that are served; the first is the default.

    Args:
        models: At least one.
    """

    def __init__(self, models: Sequence[Model]) -> None:
        if not models:
            raise ModelError("no model to serve; export one or point to a folder that has some")
        self._models = tuple(models)
        self.default = self._models[0]

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models)

    def by_id(self, model_id: str) -> Model:
        """The model with this id; UnknownModelError if it is not served."""
        return self._find(model_id, lambda m: m.id == model_id)

    def by_name(self, name: str) -> Model:
        """The model with this name or id; UnknownModelError if it is not served."""
        return self._find(name, lambda m: name in (m.name, m.id))

    def _find(self, asked: str, matches: Any) -> Model:
        for model in self._models:
            if matches(model):
                return model
        raise UnknownModelError(asked, tuple(m.id for m in self._models))


def shipped_models(options: RuntimeOptions = RuntimeOptions(), folder: Path = SHIPPED) -> ModelSet:
    """Open every model below a folder; the one named in `default` there, if any, comes first."""
    folders = sorted(p.parent for p in folder.glob("*/manifest.json"))
    default = folder / "default"
    first = default.read_text().strip() if default.exists() else ""
    return ModelSet([open_model(f, options) for f in sorted(folders, key=lambda f: f.name != first)])
