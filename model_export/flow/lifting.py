"""Even and odd samples <-> low and high band along one axis: four lifting steps.

Each step adds to one half a dyadic multiple of the other half's two neighbours, rounded to the lattice; the same
step subtracted undoes it, whatever the tap. In exact mode a lossy tap is an integer part, a coarse fraction k / 2**e
and a fine one, each product rounded by itself: neighbours * k stays below 2**24 for every state within its limit, and
the tap still has 15 bits. Each lattice has taps of its own.

A lossless tap is one fraction, of eleven significant bits in float mode as well. Half of its sums of two neighbours are
odd, and a tap that is a little off a half decides which way all of these are rounded: taps that only exact mode rounds
would do so another way than the prior was trained for.

Sources: I. Daubechies and W. Sweldens, "Factoring wavelet transforms into lifting steps", 1998 (CDF 9/7); A.
Calderbank et al., "Wavelet transforms that map integers to integers", 1998 (CDF 5/3).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model_export.flow.colour import Rounding

FRACTION_BITS = (8, 9, 9, 8)
"""Exponent e of each step's fraction k / 2**e."""
FINE_BITS = 7
"""The fine fraction is k / 2**(e + FINE_BITS), |k| <= 64."""
SIGNIFICANT_BITS = 11
"""Of a lossless tap: as many as TF32 keeps."""


@dataclass(frozen=True)
class Lattice:
    """Where the taps of one lattice start, and how far they may go.

    Attributes:
        taps: The four taps training starts from.
        whole: Integer part of each tap, which training leaves alone.
        limits: Largest |k| of each step's coarse fraction; lossless taps have none.
        fine: Whether taps have a coarse and a fine fraction, each product rounded by itself.
        low_gain: Gain of the low-pass per level, in two dimensions.
        state_limit: Up to this |value| of the state, in lattice units, every product is an integer below 2**24.
    """

    taps: tuple[float, float, float, float]
    whole: tuple[float, float, float, float]
    limits: tuple[int, int, int, int]
    fine: bool
    low_gain: float
    state_limit: int


LOSSY = Lattice(
    taps=(-1.586134342059924, -0.052980118572961, 0.882911075530934, 0.443506852043971),
    whole=(-2.0, 0.0, 1.0, 0.0),
    limits=(128, 128, 128, 255),
    fine=True,
    low_gain=1.5133,
    state_limit=65535,
)
"""CDF 9/7. Its last step multiplies the high band, which stays below half of the limit of the state.

Saturated colours can take the deepest levels beyond the limit. There a product is one IEEE 754 multiplication,
rounded once, the same on every device: there is no sum whose order could matter.
"""
LOSSLESS = Lattice(
    taps=(-0.5, 0.25, 0.0, 0.0),
    whole=(0.0, 0.0, 0.0, 0.0),
    limits=(0, 0, 0, 0),
    fine=False,
    low_gain=1.0,
    state_limit=4095,
)
"""CDF 5/3. On whole grey levels every rounding is noise that has to be coded: two steps with one each instead of
four with two each. Beyond its limit, too, a product is one multiplication, rounded once."""
LATTICES = (LOSSY, LOSSLESS)

Tap = tuple[Tensor, Tensor | None, Tensor | None]
"""Coarse and fine part of a tap's fraction and its whole part; in float mode the first is all of the fraction."""


def following(x: Tensor, axis: int) -> Tensor:
    """The next sample along an axis, the last one repeated."""
    size = x.shape[axis]
    return torch.cat([x.narrow(axis, 1, size - 1), x.narrow(axis, size - 1, 1)], axis)


def preceding(x: Tensor, axis: int) -> Tensor:
    """The previous sample along an axis, the first one repeated."""
    size = x.shape[axis]
    return torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, size - 1)], axis)


def addition(neighbours: Tensor, tap: Tap, rounding: Rounding) -> Tensor:
    """What one lifting step adds: tap * neighbours, rounded to the lattice."""
    coarse, fine, whole = tap
    result = rounding(neighbours * coarse)
    if fine is not None:
        result = result + rounding(neighbours * fine)
    return result if whole is None else result + whole * neighbours


def forward(x: Tensor, axis: int, taps: list[Tap], rounding: Rounding) -> tuple[Tensor, Tensor]:
    """x, even-sized along `axis` (2 or 3) -> low, high of half the size; taps: four, their parts [N, C, 1, 1]."""
    low, high = (x[:, :, 0::2], x[:, :, 1::2]) if axis == 2 else (x[..., 0::2], x[..., 1::2])
    high = high + addition(low + following(low, axis), taps[0], rounding)
    low = low + addition(high + preceding(high, axis), taps[1], rounding)
    high = high + addition(low + following(low, axis), taps[2], rounding)
    low = low + addition(high + preceding(high, axis), taps[3], rounding)
    return low, high


def inverse(low: Tensor, high: Tensor, axis: int, taps: list[Tap], rounding: Rounding) -> Tensor:
    """Undo `forward`."""
    low = low - addition(high + preceding(high, axis), taps[3], rounding)
    high = high - addition(low + following(low, axis), taps[2], rounding)
    low = low - addition(high + preceding(high, axis), taps[1], rounding)
    high = high - addition(low + following(low, axis), taps[0], rounding)
    shape = list(low.shape)
    shape[axis] *= 2
    return torch.stack([low, high], axis + 1).reshape(shape)
