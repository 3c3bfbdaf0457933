"""Every layer of the flow undoes itself on the integer lattice: one assertion for all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model_export.config import TINY
from model_export.flow import colour, lifting
from model_export.flow.multilevel import MultilevelFlow, dyadic, floor_through
from model_export.flow.wavelet import TAP_SPEED
from model_export.integers import ExactConv, round_through
from service.codec.lattice import LOSSLESS_UNIT, LOSSY_UNIT

LEVELS = TINY.levels
Layer = tuple[Callable[[Tensor], tuple[Tensor, ...]], Callable[..., Tensor]]


def shaken_flow(seed: int = 0) -> MultilevelFlow:
    """A flow in exact mode whose every parameter has moved away from its start."""
    torch.manual_seed(seed)
    flow = MultilevelFlow(LEVELS, TINY.coupling_channels)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    flow.set_exact(True)
    return flow.eval()


FLOW = shaken_flow()


def colour_layer(gate: float, lean: float) -> Layer:
    g, k = (torch.full((1, 1, 1, 1), value) for value in (gate, lean))
    return lambda x: (colour.forward(x, g, k, floor_through),), lambda y: colour.inverse(y, g, k, floor_through)


def lifting_layer(axis: int) -> Layer:
    taps = FLOW.wavelet.taps(FLOW.rung(0, False, 1))[axis - 2]
    return (
        lambda x: lifting.forward(x, axis, taps, round_through),
        lambda low, high: lifting.inverse(low, high, axis, taps, round_through),
    )


def wavelet_layer(level: int) -> Layer:
    rung = FLOW.rung(level, False, 1)
    return (
        lambda x: FLOW.wavelet(x, rung, round_through),
        lambda low, details: FLOW.wavelet.inverse(low, details, rung, round_through),
    )


def coupling_layer(level: int) -> Layer:
    rung = FLOW.rung(level, False, 1)
    *_, scale, gain = FLOW.conditions(rung, torch.ones(1))

    def told(details: Tensor) -> Tensor:
        return FLOW.coupling.forward(details, rung, scale, gain, round_through)

    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        details = torch.cat([x.roll(k, -1) - x for k in (1, 2, 3)], 1)
        return x + told(details), details

    def inverse(low: Tensor, details: Tensor) -> Tensor:
        return low - told(details)

    return forward, inverse


def whole_level(level: int, unit: int) -> Layer:
    rung, units = FLOW.rung(level, unit == LOSSLESS_UNIT, 1), torch.full((1,), float(unit))
    return (
        lambda x: FLOW(x, rung, units, True),
        lambda low, details: FLOW.inverse(low, details, rung, units, True),
    )


LAYERS: dict[str, Layer] = {
    "colour": colour_layer(1.0, 0.0),
    "colour, leaning": colour_layer(1.0, colour.LEAN),
    "colour, closed": colour_layer(0.0, 0.0),
    "lifting, rows": lifting_layer(2),
    "lifting, columns": lifting_layer(3),
    "wavelet": wavelet_layer(0),
    "wavelet, coarsest": wavelet_layer(LEVELS - 1),
    "coupling": coupling_layer(0),
    "coupling, coarsest": coupling_layer(LEVELS - 1),
    "level, lossless": whole_level(0, 1),
    "level, lossy": whole_level(0, LOSSY_UNIT),
    "coarsest level": whole_level(LEVELS - 1, LOSSY_UNIT),
    "coarsest level, lossless": whole_level(LEVELS - 1, LOSSLESS_UNIT),
}

INPUTS: dict[str, Callable[[int, int], Tensor]] = {
    "noise": lambda h, w: torch.randint(-1024, 1017, (1, 3, h, w), generator=torch.Generator().manual_seed(1)).float(),
    "least": lambda h, w: torch.full((1, 3, h, w), -1024.0),
    "most": lambda h, w: torch.full((1, 3, h, w), 1016.0),
    "checkerboard": lambda h, w: ((torch.arange(h)[:, None] + torch.arange(w)) % 2 * 2040.0 - 1024).expand(1, 3, h, w),
    "one sample": lambda h, w: torch.nn.functional.pad(torch.full((1, 3, 1, 1), 1016.0), (0, w - 1, 0, h - 1)),
}


@torch.no_grad()
@pytest.mark.parametrize("content", INPUTS)
@pytest.mark.parametrize(("height", "width"), [(2, 2), (2, 14), (10, 6)])
@pytest.mark.parametrize("layer", LAYERS)
def test_inverse_undoes_forward_to_the_bit(layer, height, width, content):
    forward, inverse = LAYERS[layer]
    x = INPUTS[content](height, width)
    outputs = forward(x)
    for y in outputs:
        assert torch.equal(y, y.round()), "the latent stays on the lattice"
    assert torch.equal(inverse(*outputs), x)


@torch.no_grad()
def test_the_moved_parameters_do_something():
    untouched = MultilevelFlow(LEVELS, TINY.coupling_channels)
    untouched.set_exact(True)
    x, rung, unit = INPUTS["noise"](10, 6), FLOW.rung(0, True, 1), torch.ones(1)
    assert not torch.equal(FLOW(x, rung, unit, True)[1], untouched(x, rung, unit, True)[1])
    assert all(conv.weight.abs().sum() > 0 for conv in FLOW.modules() if isinstance(conv, ExactConv))


@torch.no_grad()
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("lossless", [False, True])
def test_each_lattice_starts_at_its_taps(axis, lossless):
    flow = MultilevelFlow(LEVELS, 4)
    for (coarse, _, whole), tap in zip(
        flow.wavelet.taps(flow.rung(LEVELS - 1, lossless, 1))[axis], lifting.LATTICES[lossless].taps, strict=True
    ):
        assert torch.allclose(coarse + (0 if whole is None else whole), torch.tensor(tap), atol=1e-6)


@torch.no_grad()
def test_lossless_taps_are_the_same_in_float_and_exact_mode_and_tf32_holds_them():
    flow = shaken_flow(3)
    exact, nothing = flow.wavelet.tables()
    flow.set_exact(False)
    trained, _ = flow.wavelet.tables()
    assert nothing is not None
    lossless = slice(LEVELS, None)
    assert torch.equal(exact[lossless], trained[lossless])
    assert not nothing[lossless].any()
    mantissa, _ = torch.frexp(exact[lossless])
    digits = mantissa * 2.0**lifting.SIGNIFICANT_BITS
    assert torch.equal(digits, digits.round())
    assert (trained - flow.wavelet.start - TAP_SPEED * flow.wavelet.offsets).abs().max() < 2**-12


@torch.no_grad()
def test_a_tap_a_little_off_a_half_decides_which_way_odd_sums_are_rounded():
    flow = MultilevelFlow(LEVELS, 4)
    flow.set_exact(True)
    neighbours = torch.tensor([1.0, 3.0, 101.0, -1.0])
    for off, expected in ((-0.0005, [-1, -2, -51, 1]), (0.0005, [0, -1, -50, 0])):
        flow.wavelet.offsets[LEVELS, 0, 0] = off / TAP_SPEED
        tap = flow.wavelet.taps(flow.rung(0, True, 1))[0][0]
        moved = lifting.addition(neighbours.view(1, 1, 1, -1), tap, round_through)
        assert moved[0, 0, 0].tolist() == expected


@torch.no_grad()
def test_a_whole_grey_level_keeps_its_size_through_the_lossless_low_pass():
    flow = MultilevelFlow(LEVELS, 4)
    flow.set_exact(True)
    low, details = flow(torch.full((1, 3, 8, 8), 77.0), flow.rung(1, True, 1), torch.ones(1), True)
    assert torch.equal(low, torch.full_like(low, 77.0))
    assert not details.any()


@pytest.mark.parametrize("value", [1.0, 1.5133, 0.0123, 511.0, 1e5])
def test_dyadic_numbers_have_few_digits_and_are_near(value):
    near = dyadic(value)
    assert near == pytest.approx(value, rel=2**-7)
    mantissa = int(near * 2**30)
    assert (mantissa // (mantissa & -mantissa)).bit_length() <= 7
