"""Even and odd samples <-> low and high band along one axis: four lifting steps.

Each step adds to one half a dyadic multiple of the other half's two neighbours, rounded to the lattice; the same
step subtracted undoes it, whatever the tap. In exact mode a tap is an integer part, a coarse fraction k / 2**e and a
fine one, each product rounded by itself: neighbours * k stays below 2**24 for every state within STATE_LIMIT, and
the tap still has 15 bits.

Source: I. Daubechies and W. Sweldens, "Factoring wavelet transforms into lifting steps", 1998 (CDF 9/7).
"""

import torch
from torch import Tensor

from model_export.flow.colour import Rounding

STATE_LIMIT = 65535
"""Up to this |value| of the state, in lattice units, every product is an integer below 2**24: 2 * STATE_LIMIT * 128.

Saturated colours can take the deepest levels of a lossy stream beyond it. There a product is one IEEE 754
multiplication, rounded once, the same on every device: there is no sum whose order could matter.
"""
TAPS = (-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971)
WHOLE = (-2.0, 0.0, 1.0, 0.0)
FRACTION_BITS = (8, 9, 9, 8)
"""Exponent e of each step's fraction k / 2**e."""
FINE_BITS = 7
"""The fine fraction is k / 2**(e + FINE_BITS), |k| <= 64."""
FRACTION_LIMITS = (128, 128, 128, 255)
"""Largest |k| of each step. The last multiplies the high band, which stays below half of STATE_LIMIT."""

Fraction = tuple[Tensor, Tensor | None]
"""Coarse and fine part of a tap's fraction; in float mode the first is all of it."""


def following(x: Tensor, axis: int) -> Tensor:
    """The next sample along an axis, the last one repeated."""
    size = x.shape[axis]
    return torch.cat([x.narrow(axis, 1, size - 1), x.narrow(axis, size - 1, 1)], axis)


def preceding(x: Tensor, axis: int) -> Tensor:
    """The previous sample along an axis, the first one repeated."""
    size = x.shape[axis]
    return torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, size - 1)], axis)


def addition(step: int, neighbours: Tensor, fraction: Fraction, rounding: Rounding) -> Tensor:
    """What one lifting step adds: tap * neighbours, rounded to the lattice."""
    coarse, fine = fraction
    result = rounding(neighbours * coarse)
    if fine is not None:
        result = result + rounding(neighbours * fine)
    return result + WHOLE[step] * neighbours if WHOLE[step] else result


def forward(x: Tensor, axis: int, fractions: list[Fraction], rounding: Rounding) -> tuple[Tensor, Tensor]:
    """x, even-sized along `axis` (2 or 3) -> low, high of half the size; fractions: four pairs of [N, C, 1, 1]."""
    low, high = (x[:, :, 0::2], x[:, :, 1::2]) if axis == 2 else (x[..., 0::2], x[..., 1::2])
    high = high + addition(0, low + following(low, axis), fractions[0], rounding)
    low = low + addition(1, high + preceding(high, axis), fractions[1], rounding)
    high = high + addition(2, low + following(low, axis), fractions[2], rounding)
    low = low + addition(3, high + preceding(high, axis), fractions[3], rounding)
    return low, high


def inverse(low: Tensor, high: Tensor, axis: int, fractions: list[Fraction], rounding: Rounding) -> Tensor:
    """Undo `forward`."""
    low = low - addition(3, high + preceding(high, axis), fractions[3], rounding)
    high = high - addition(2, low + following(low, axis), fractions[2], rounding)
    low = low - addition(1, high + preceding(high, axis), fractions[1], rounding)
    high = high - addition(0, low + following(low, axis), fractions[0], rounding)
    shape = list(low.shape)
    shape[axis] *= 2
    return torch.stack([low, high], axis + 1).reshape(shape)
