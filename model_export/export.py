"""A checkpoint -> an artifact folder: graphs, fitted tables, manifest, golden files. Verified before it is kept."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from model_export.counting import counted
from model_export.data import Picture, synthetic_pictures
from model_export.model import CodecModel
from model_export.onnx_graphs import graphs_of
from model_export.rounding import rounded
from model_export.silent import compacted, fired
from model_export.tables import (
    Fits,
    fitted,
    integer_tables,
    measured_noise,
    nominal_noise,
    table_layout,
    unfitted,
)
from model_export.verify import VerifyError, prove_bounds, verify_bijection, verify_graphs
from service.codec.artifact import MANIFEST_FORMAT, Model, RuntimeOptions, model_id_of, open_model
from service.codec.golden import golden_check, write_golden

log = logging.getLogger(__name__)

NOISE_PICTURES, ROUNDING_PICTURES = 12, 48


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from, for its manifest."""

    trained: str = ""
    data: list[str] = field(default_factory=list)
    steps: int = 0
    minutes: float = 0.0


def golden_picture() -> bytes:
    """A PNG made by the project: gradients, edges and grain, 96 x 72, with odd corners cut off."""
    picture = synthetic_pictures(1, 96, seed=7)[0][:71, :93]
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def write_artifact(
    model: CodecModel,
    folder: Path,
    fits: Fits,
    noise: NDArray[np.float64],
    provenance: Provenance,
    bounds: dict[str, int],
) -> None:
    """Write graphs, tables and manifest of a model in exact mode."""
    folder.mkdir(parents=True, exist_ok=True)
    layout = table_layout()
    with torch.no_grad():
        for name, graph in graphs_of(model).items():
            (folder / f"{name}.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    arrays: dict[str, Any] = integer_tables(model, layout, fits, noise)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    (folder / "tables.npz").write_bytes(buffer.getvalue())
    files = sorted(p for p in folder.iterdir() if p.name != "manifest.json" and p.is_file())
    manifest = {
        "format": MANIFEST_FORMAT,
        "name": model.config.name,
        "config": model.config.as_dict(),
        "digests": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files},
        "accumulator_bounds": bounds,
        "provenance": vars(provenance),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")


def export(
    model: CodecModel, models: Path, pictures: list[NDArray[np.uint8]], provenance: Provenance, threads: int = 1
) -> Model:
    """Export a trained model below a folder of models and make it the default.

    Args:
        model: With trained float weights.
        models: Folder of models; the artifact gets a folder named by its id.
        pictures: Training pictures the tables are fitted on and weights are rounded by; none: the logistic tables are
            kept, and weights are rounded to the nearest.
        provenance: For the manifest.
        threads: CPU threads; tables are counted by as many processes.

    Raises:
        VerifyError: A proof or trial failed; nothing is written.
    """
    model = model.eval()
    model.set_exact(True)
    torch.set_num_threads(threads)
    if pictures:
        channels = fired(model, pictures)
        model = compacted(model, channels)
        silent = sum(int((~own).sum()) for own in channels.values())
        log.info("%d of %d channels never fired", silent, sum(len(own) for own in channels.values()))
        model.set_exact(False)
        model = rounded(model, pictures[:ROUNDING_PICTURES])
        model.set_exact(True)
    options = RuntimeOptions(device="cpu", threads=threads)
    bounds = prove_bounds(model)
    log.info("bounds proven, the largest is %d of %d", max(bounds.values()), 2**24)
    with tempfile.TemporaryDirectory() as temporary:
        draft = Path(temporary) / "draft"
        write_artifact(model, draft, unfitted(), nominal_noise(model), provenance, bounds)
        artifact = open_model(draft, options)
        verify_bijection(artifact)
        verify_graphs(model, artifact)
        if artifact.kernels == "byte":
            verify_graphs(model, open_model(draft, replace(options, kernels="float")))
        else:
            log.warning("this processor has no exact 8-bit kernels: graphs that need them were not compared")
        log.info("torch = ONNX Runtime, the flow is a bijection")
        if pictures:
            noise = measured_noise(artifact, pictures[:NOISE_PICTURES])
            counts = counted(draft, pictures, threads)
            fits = Fits(fitted(table_layout(), counts.residuals), counts.centroids())
            write_artifact(model, draft, fits, noise, provenance, bounds)
            log.info("tables fitted on %d pictures", len(pictures))
        artifact = open_model(draft, options)
        write_golden(artifact, draft / "golden", golden_picture())
        golden_check(artifact)
        target = models / model_id_of((draft / "manifest.json").read_bytes())
        if target.exists():
            shutil.rmtree(target)
        shutil.copytree(draft, target)
    (models / "default").write_text(target.name + "\n")
    return open_model(target, options)


__all__ = ["Picture", "Provenance", "VerifyError", "export", "golden_picture", "write_artifact"]
