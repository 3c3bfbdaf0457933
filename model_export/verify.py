"""Proofs and trials a model must pass before it is exported: bounds, torch = ONNX Runtime, bijection.

Everything here is about equality to the last bit; a difference of one unit anywhere is a failure.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from model_export.flow import lifting
from model_export.integers import (
    ACCUMULATOR_LIMIT,
    ACTIVATION_BITS,
    BYTE_BITS,
    BYTE_LIMIT,
    ByteLayer,
    ExactSum,
)
from model_export.model import CodecModel
from model_export.prior import LOG2_SCALE_FIRST, LOG2_SCALE_STEP, Known, Trunk, by_phase
from service.codec import flow as flow_room
from service.codec import lattice
from service.codec.arrays import Bytes8
from service.codec.artifact import Model
from service.codec.clock import Clock
from service.codec.prior import (
    LUMA_PLANES,
    PHASES,
    PLANE_ZERO,
    condition_channels,
    condition_rows,
    select,
    whole_fours,
)
from service.codec.quantise import STATE_LIMIT
from service.codec.tile import analyse

BYTE_UNITS = 2.0**BYTE_BITS


class VerifyError(RuntimeError):
    """A proof or trial failed; nothing is exported."""


def prove_bounds(model: CodecModel) -> dict[str, int]:
    """Largest |accumulator| of every layer, in units of its grid.

    Raises:
        VerifyError: One is not below 2**24.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, ExactSum | ByteLayer)}
    bounds = {name: layer.proven_bound() for name, layer in layers.items()}
    for name, module in model.named_modules():
        if isinstance(module, Trunk):
            bounds[f"{name}.first"] = _trunk_bound(module)
    for name, bound in bounds.items():
        if bound >= ACCUMULATOR_LIMIT:
            raise VerifyError(f"{name} can reach {bound}, not below 2**24")
    return bounds


def _trunk_bound(trunk: Trunk) -> int:
    """The first trunk layer, carried features included."""
    with torch.no_grad():
        first, carry = trunk.integer_weights()
        total = trunk.total_bound()
        values = trunk.first.terms[0].bound(first) + trunk.first.table.bound()
        values = values + trunk.carry.bound(carry).view(-1, 4).amax(1)
        bits = torch.maximum(
            trunk.first.terms[0].shifts(total) + ACTIVATION_BITS,
            trunk.carry.shifts(total.repeat_interleave(4)).view(-1, 4).amax(1) + BYTE_BITS,
        )
        return int(torch.ceil(values * torch.exp2(bits)).max())


def pictures(seed: int = 0) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Noise, gradients, extremes and odd sizes."""
    rng = np.random.default_rng(seed)
    for height, width in ((1, 1), (1, 2), (3, 1), (7, 5), (13, 97), (64, 64), (127, 131)):
        yield f"noise {height}x{width}", rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    ramp = np.add.outer(np.arange(96), np.arange(160))[..., None] * np.array([1, 2, 3]) % 256
    yield "gradient", ramp.astype(np.uint8)
    for colour in ((0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 255)):
        yield f"flat {colour}", np.full((192, 192, 3), colour, np.uint8)
    board = np.indices((128, 128)).sum(0) % 2 * 255
    yield "checkerboard", np.repeat(board[..., None], 3, 2).astype(np.uint8)
    blocks = (np.indices((256, 256)) // 32).sum(0) % 2
    yield (
        "blocks",
        (blocks[..., None] * np.array([255, 0, 255]) + (1 - blocks)[..., None] * [0, 255, 0]).astype(np.uint8),
    )


def verify_bijection(artifact: Model) -> None:
    """inverse(forward(x)) == x on both lattices, every level; VerifyError names the first failure."""
    for name, pixels in pictures():
        for unit in (lattice.LOSSY_UNIT, lattice.LOSSLESS_UNIT):
            planes = lattice.to_planes(pixels, unit)
            latent = analyse(planes, artifact, unit, Clock())
            sizes, low = lattice.sizes_of(*pixels.shape[:2]), latent.low
            for level in reversed(range(len(latent.details))):
                low = flow_room.inverse(low, latent.details[level], artifact, level, unit, sizes[level])
            if not np.array_equal(low, planes):
                raise VerifyError(f"the flow is not a bijection on {name} at unit {unit}")
            largest = max([np.abs(latent.low).max(), *(np.abs(d).max() for d in latent.details)])
            if largest >= (lifting.LOSSLESS.state_limit if unit == lattice.LOSSLESS_UNIT else STATE_LIMIT):
                raise VerifyError(f"the lattice state reaches {largest} on {name}")


@torch.no_grad()
def verify_graphs(model: CodecModel, artifact: Model, seed: int = 0) -> None:
    """Every graph in ONNX Runtime = its torch layer in exact mode, to the bit; VerifyError names the first failure."""
    rng = np.random.default_rng(seed)
    for level, code in ((0, 784), (0, 300), (0, None), (1, 37), (2, 150), (3, 500), (5, None)):
        unit = lattice.LOSSLESS_UNIT if code is None else lattice.LOSSY_UNIT
        _compare_flow(model, artifact, rng, level, unit)
        _compare_prior(model, artifact, rng, level, code, min(unit, lattice.READ_UNIT))


def _check(name: str, expected: torch.Tensor, got: NDArray[np.generic]) -> None:
    if not np.array_equal(expected.double().numpy(), got.astype(np.float64)):
        difference = np.abs(expected.double().numpy() - got).max()
        raise VerifyError(f"torch and ONNX Runtime differ in {name}, by up to {difference}")


def _compare_flow(model: CodecModel, artifact: Model, rng: np.random.Generator, level: int, unit: int) -> None:
    spread = int(128 * unit * 1.5**level)
    planes = rng.integers(-spread, spread, (2, 3, 30, 46)).astype(np.float32)
    rung = model.flow.rung(level, unit == lattice.LOSSLESS_UNIT, 2)
    units = torch.full((2,), float(unit))
    low, details = flow_room.forward(planes, artifact, level, unit)
    expected = model.flow(torch.from_numpy(planes), rung, units, True)
    _check("forward", expected[0], low)
    _check("forward", expected[1], details)
    back = flow_room.inverse(low, details, artifact, level, unit, (30, 46))
    _check("inverse", model.flow.inverse(expected[0], expected[1], rung, units, True), back)


def _compare_prior(
    model: CodecModel, artifact: Model, rng: np.random.Generator, level: int, code: int | None, unit: int
) -> None:
    tables, prior = artifact.tables, model.prior(level)
    spread = int(128 * unit * 1.5**level)
    low = (rng.integers(-spread, spread, (2, 3, 22, 34)) // 4).astype(np.float32)
    parent = rng.integers(0, BYTE_LIMIT + 1, (2, artifact.parent(level), 11, 17)).astype(np.uint8)
    condition = condition_rows(artifact, 2, level, None if code is None else [code] * 2)
    row = -1 if code is None else code
    scale = np.full((2, 1, 1, 1), tables.low_scales[artifact.rung(level, unit)] / np.float32(unit), np.float32)
    edges = np.tile(tables.edge_scales[row, level][None, :, None, None], (2, 1, 1, 1))
    feeds = {"low": low, "parent": parent, "low_scale": scale, "edge_scale": edges, "condition": condition}
    (features,) = artifact.prior_session("trunk", level).run(["features"], feeds)
    tensors = [torch.from_numpy(a) for a in (low, parent / np.float32(BYTE_UNITS), scale, edges, condition)]
    expected = prior.trunk(prior.trunk.read(tensors[0], *tensors[2:4]), tensors[1], tensors[4])
    _check("trunk", expected.permute(0, 2, 3, 1) * BYTE_UNITS, features)
    bins = torch.from_numpy(np.rint(rng.laplace(size=(2, 9, 22, 34)) * 3).astype(np.float32))
    known = Known((2, 22, 34), True, bins.device)
    told = condition_channels(condition, artifact, level)
    for number, head in enumerate(prior.heads):
        chroma, phase = divmod(number, 4)
        mean, log2_scale = head(by_phase(expected)[phase], known.seen_by(number), tensors[4])
        index = (log2_scale - LOG2_SCALE_FIRST) / LOG2_SCALE_STEP
        feeds = {"condition": condition}
        if chroma:
            feeds["joined"] = _joined(features, known, told)
        else:
            feeds["features"] = features
        if 0 < number < len(PHASES):
            cells = [_bytes_of(known)[:, row::2, column::2, :LUMA_PLANES] for row, column in PHASES[:number]]
            feeds["known"] = np.concatenate(cells, 3)
        graph = f"{'chroma' if chroma else 'luma'}{phase}"
        (said,) = artifact.prior_session(graph, level).run(["said"], feeds)
        _check(graph, torch.cat([mean * 8, torch.round(index)], 1), said)
        known.learn(number, torch.from_numpy(select(bins.numpy(), number)))
    offsets, handed_on = prior.dequantiser(expected, known.planes, tensors[4])
    feeds = {"joined": _joined(features, known, told), "condition": condition}
    outputs = ["offsets", "handed_on"] if level else ["offsets"]
    got = artifact.prior_session("dequantiser", level).run(outputs, feeds)
    for value, own in zip((offsets * 128, handed_on * BYTE_UNITS), got, strict=False):
        _check("dequantiser", value, own)


def _bytes_of(known: Known) -> Bytes8:
    """Planes of known bins as graphs read them, [N, H, W, 27]."""
    planes: Bytes8 = (known.planes.permute(0, 2, 3, 1) * BYTE_UNITS + PLANE_ZERO).numpy().astype(np.uint8)
    return planes


def _joined(features: Bytes8, known: Known, told: Bytes8) -> Bytes8:
    """Features, bins and condition as chroma's heads and dequantisers read them."""
    everywhere = np.broadcast_to(told[:, None, None], (*features.shape[:3], told.shape[1]))
    joined = np.concatenate([features, _bytes_of(known), everywhere], 3)
    return np.pad(joined, [(0, 0)] * 3 + [(0, whole_fours(joined.shape[3]) - joined.shape[3])])
