"""export: what is written opens, keeps its golden files, and is refused once a byte is wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from model_export.config import TINY
from model_export.data import synthetic_pictures
from model_export.export import Provenance, export
from model_export.model import CodecModel
from model_export.verify import VerifyError, verify_bijection, verify_graphs
from service import codec
from service.codec.artifact import BYTE_SUFFIX, BYTE_TRIAL, GRAPHS, TWINS, model_id_of

OPTIONS = codec.RuntimeOptions(device="cpu", threads=1)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    tiny = CodecModel(TINY)
    with torch.no_grad():
        for parameter in tiny.priors.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
        for parameter in tiny.flow.coupling.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.005)
    return tiny


@pytest.fixture(scope="module")
def models_folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    export(model, folder, synthetic_pictures(2, 64), Provenance(trained="in a test", steps=6))
    return folder


def verify(model: CodecModel, artifact: codec.Model) -> None:
    """Both trials an export makes."""
    verify_bijection(artifact)
    verify_graphs(model, artifact)


@pytest.fixture
def copy(models_folder, tmp_path):
    """A copy of the artifact that may be damaged."""
    name = (models_folder / "default").read_text().strip()
    return shutil.copytree(models_folder / name, tmp_path / name)


def test_it_opens_under_its_id_and_the_golden_check_holds(models_folder):
    models = codec.shipped_models(OPTIONS, models_folder)
    artifact = models.default
    manifest = (artifact.folder / "manifest.json").read_bytes()
    assert artifact.id == artifact.folder.name == model_id_of(manifest)
    graphs = {*GRAPHS, *(name + BYTE_SUFFIX for name in TWINS), BYTE_TRIAL}
    assert set(json.loads(manifest)["digests"]) == {"tables.npz", *(f"{name}.onnx" for name in graphs)}
    assert artifact.manifest["provenance"]["steps"] == 6
    assert max(artifact.manifest["accumulator_bounds"].values()) < 2**24
    codec.golden_check(artifact)


def test_graphs_hold_only_nodes_the_design_allows(models_folder):
    allowed = {"Abs", "Add", "Cast", "Clip", "Concat", "Conv", "DepthToSpace", "Expand", "Floor", "Gather", "Identity"}
    allowed |= {"MatMul", "Mul", "Neg", "Pad", "Relu", "Reshape", "Round", "Shape", "Slice", "Split", "Squeeze", "Sub"}
    allowed |= {"MatMulInteger", "QLinearConv", "QuantizeLinear", "Transpose", "Unsqueeze"}
    for path in models_folder.glob("*/*.onnx"):
        kinds = {node.op_type for node in onnx.load(path).graph.node}
        assert kinds <= allowed | ({"DequantizeLinear"} if path.stem.endswith("adjoint") else set())
        assert ("QLinearConv" in kinds) == path.stem.endswith(BYTE_SUFFIX)


def test_numbers_become_bytes_and_back_by_powers_of_two(models_folder):
    """So that floats hold what comes out exactly."""
    for path in models_folder.glob("*/*_adjoint.onnx"):
        graph = onnx.load(path).graph
        constants = {own.name: numpy_helper.to_array(own) for own in graph.initializer}
        scales = [constants[node.input[1]] for node in graph.node if node.op_type.endswith("tizeLinear")]
        assert len(scales) > 20
        assert all((np.frexp(own)[0] == 0.5).all() for own in scales)


def test_both_kinds_of_kernels_give_the_same_bytes(models_folder):
    models = [codec.shipped_models(replace(OPTIONS, kernels=kernels), models_folder) for kernels in ("auto", "float")]
    assert models[1].default.kernels == "float"
    picture = codec.read_image((models[0].default.folder / "golden" / "picture.png").read_bytes(), codec.Limits())
    for quality, effort in ((20, 0), (20, 2), (80, 1), (100, 0)):
        target = codec.Target(quality=quality)
        one, other = (codec.encode(picture, own.default, target, effort=effort).stream for own in models)
        assert one == other
        first, second = (codec.decode(one, own).picture.pixels for own in models)
        assert np.array_equal(first, second)


@pytest.mark.parametrize("name", ["forward.onnx", "tables.npz", "fine_dequantiser.onnx"])
def test_a_damaged_file_is_refused(name, copy):
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(codec.ModelError, match=name):
        codec.open_model(copy, OPTIONS)


@pytest.mark.parametrize("name", ["manifest.json", "coarse_trunk.onnx"])
def test_a_missing_file_is_refused(name, copy):
    (copy / name).unlink()
    with pytest.raises(codec.ModelError, match="incomplete"):
        codec.open_model(copy, OPTIONS)


def test_another_manifest_format_is_refused(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(codec.ModelError, match="99"):
        codec.open_model(copy, OPTIONS)


@pytest.mark.parametrize("name", ["q50.bij", "q100.bij", "picture.png"])
def test_golden_files_that_differ_or_miss_are_noticed(name, copy):
    artifact = codec.open_model(copy, OPTIONS)
    (copy / "golden" / name).unlink()
    with pytest.raises(codec.GoldenCheckError):
        codec.golden_check(artifact)
    other = next(p for p in sorted((copy / "golden").glob("*.bij")))
    (copy / "golden" / name).write_bytes(other.read_bytes())
    with pytest.raises(codec.GoldenCheckError):
        codec.golden_check(artifact)


@pytest.mark.parametrize(
    ("graph", "kernels"),
    [
        ("inverse", "auto"),
        ("coarse_luma2", "float"),
        ("coarse_luma2.byte", "auto"),
        ("coarsest_chroma1.byte", "auto"),
        ("fine_dequantiser", "float"),
        ("fine_dequantiser.byte", "auto"),
        ("coarse_trunk.byte", "auto"),
    ],
)
def test_a_broken_graph_fails_verification(graph, kernels, model, copy):
    """Its weights move; digests are made right again, so that only the trial can tell."""
    import hashlib

    path = copy / f"{graph}.onnx"
    proto = onnx.load(path)
    convs = {node.input[0] for node in proto.graph.node if node.op_type == "Cast"}  # kernels
    convs |= {node.input[8] for node in proto.graph.node if node.op_type == "QLinearConv"}  # biases
    for initializer in proto.graph.initializer:
        if initializer.name in convs:
            weight = numpy_helper.to_array(initializer).copy()
            weight += weight.dtype.type(1 << 12 if weight.dtype == np.int32 else 1)
            initializer.CopyFrom(numpy_helper.from_array(weight, initializer.name))
    path.write_bytes(proto.SerializeToString())
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["digests"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (copy / "manifest.json").write_text(json.dumps(manifest))
    broken = codec.open_model(copy, replace(OPTIONS, kernels=kernels))
    if graph.endswith(BYTE_SUFFIX) and broken.kernels != "byte":
        pytest.skip("this processor has no exact 8-bit kernels")
    with pytest.raises(VerifyError):
        verify(model, broken)
