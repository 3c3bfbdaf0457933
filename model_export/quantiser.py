"""Latent <-> bins, differentiable: step sizes, rate-aware choice of bins, and what training puts in place of rounding.

The exact integer quantiser is service.codec.quantise; this is its float twin.

Sources: L. Helminger et al., "Lossy Image Compression with Normalizing Flows", arXiv 2008.10486; K. Ramchandran and
M. Vetterli, "Rate-Distortion Optimal Fast Thresholding with Complete JPEG/MPEG Decoder Compatibility", 1994.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.flow import colour
from model_export.flow.coupling import by_colour, of_colours
from model_export.flow.multilevel import MultilevelFlow, identity
from model_export.integers import Exactable, bounded
from service.codec.adjoint import SYNTHESIS_SIDE
from service.codec.prior import codes_chroma, colours_of, phase_of
from service.codec.quantise import EXPECTED_ROUNDING

LAST_POSITION = 784
"""Positions on the axis networks are conditioned on; the base step falls geometrically along it."""
FIRST_POSITION = -48
"""Below 0 networks see position 0, only the step goes on growing."""
LOG2_AT_ZERO, LOG2_AT_LAST = math.log2(160.0), math.log2(0.75)
LOSSLESS_POSITION = -1000
"""Stands for lossless coding."""
POSITIONS_PER_KNOT = 128
QUALITY_KNOTS = 8
LOSSLESS_KNOT = QUALITY_KNOTS
KNOTS = QUALITY_KNOTS + 1
OUTWARD = 0.125
"""Most that reconstruction points are moved away from 0, in bins, and how far below the middle they may lie."""
RATE_DISTORTION = 8.656
"""6 / ln 2: bits per squared grey level and squared step at which a uniform quantiser is optimal at high rate."""
CHOICE_STRENGTHS = (0.35, 0.5)
"""Share of RATE_DISTORTION that weighs distortion when the encoder chooses between two bins, at STRENGTH_STEPS."""
STRENGTH_STEPS = (3.0, 72.0)
"""Base steps in grey levels: the share grows with the step's logarithm in between, and stays beyond."""
FEEDBACK_SIDE = 5
"""Side of the window in which errors of other details are taken into account."""


def log2_delta(code: Tensor) -> Tensor:
    """Log2 of the base step in grey levels at a position: falls linearly."""
    return LOG2_AT_ZERO + (LOG2_AT_LAST - LOG2_AT_ZERO) * code / LAST_POSITION


def spread(n: int, device: torch.device | None = None) -> Tensor:
    """Positions: one from each of n equal parts of the axis: batches then differ less from one another."""
    part = (torch.arange(n, device=device) + torch.rand(n, device=device)) / n
    return FIRST_POSITION + part * (LAST_POSITION - FIRST_POSITION)


def outward_shift(log2_step: Tensor) -> Tensor:
    """How far reconstruction points are moved outward, in bins: none below a step of 2, OUTWARD from 16 on."""
    return OUTWARD * ((log2_step - 1.0) / 3.0).clamp(0.0, 1.0)


def choice_strength(log2_step: Tensor) -> Tensor:
    """Share of RATE_DISTORTION that weighs distortion in the choice of bins."""
    (first, last), (low, high) = (math.log2(step) for step in STRENGTH_STEPS), CHOICE_STRENGTHS
    return low + (high - low) * ((log2_step - first) / (last - first)).clamp(0.0, 1.0)


def knot_weights(code: Tensor) -> Tensor:
    """Hat functions over the quality knots: [N] positions -> [N, KNOTS]."""
    position = code.clamp(min=0) / POSITIONS_PER_KNOT
    knots = torch.arange(QUALITY_KNOTS, device=code.device)
    hats = (1 - (position[:, None] - knots).abs()).clamp(min=0)
    lossless = (code == LOSSLESS_POSITION)[:, None]
    return torch.cat([hats * ~lossless, lossless.to(hats.dtype)], 1)


def synthesis(flow: MultilevelFlow, bands: Tensor, level: int) -> Tensor:
    """What a level's 12 bands (low 3, details 9) add to the picture, wavelet and colour alone: [N, 12, n, n] -> RGB."""
    low, details = bands[:, :3], bands[:, 3:]
    for finer in reversed(range(level + 1)):
        low = flow.wavelet.inverse(low, details, flow.rung(finer, False, len(low)), identity)
        details = low.new_zeros(len(low), 9, *low.shape[2:])
    one = torch.ones(len(low), 1, 1, 1, device=low.device)
    return colour.inverse(low, one, colour.LEAN * one, identity)


def impulse(channel: int, n: int, device: torch.device | None = None) -> Tensor:
    """A one in the middle of one of 12 bands, [1, 12, n, n]."""
    bands = torch.zeros(1, 12, n, n, device=device)
    bands[0, channel, n // 2, n // 2] = 1
    return bands


@torch.no_grad()
def synthesis_norms(flow: MultilevelFlow, side: int = 512) -> Tensor:
    """L2 norm in RGB of each band's synthesis basis function, [levels, 12] (low 3, details 9), wavelet alone."""
    rows = []
    for level in range(flow.levels):
        impulses = [impulse(channel, side >> (level + 1)) for channel in range(12)]
        rows.append(torch.stack([synthesis(flow, bands, level).norm() for bands in impulses]))
    return torch.stack(rows)


def feedback_kernels(flow: MultilevelFlow) -> Tensor:
    """How far an error in one detail band moves the best value of another near by, [levels, 2, 3, 3, SIDE, SIDE].

    Basis functions of one colour are not orthogonal: an error e in one is made smaller by an error
    of -e <S, T> / <T, T> in another, S and T being their basis functions. Those of two colours are orthogonal, but for
    the little that LEAN is off a sixth. Kernels, of luma and of chroma, are for a correlation: the output band's value
    (LH, HL, HH) is to move by the sum over input bands and places around. What a band does to itself in the same place
    is left out.
    """
    reach, kernels = FEEDBACK_SIDE // 2, []
    n = 4 * reach + 4
    middle = slice(n // 2 - reach, n // 2 + reach + 1)
    for level, first in itertools.product(range(flow.levels), (0, 1)):
        kernel = torch.zeros(3, 3, FEEDBACK_SIDE, FEEDBACK_SIDE, device=flow.scales.device)
        for band in range(3):
            bands = impulse(3 + first + 3 * band, n, flow.scales.device).requires_grad_()
            with torch.enable_grad():
                energy = synthesis(flow, bands, level).square().sum() / 2
            (response,) = torch.autograd.grad(energy, bands)
            kernel[:, band] = response[0, 3 + first :: 3, middle, middle].flip(1, 2)
        own = kernel[range(3), range(3), reach, reach].clone()
        kernel[range(3), range(3), reach, reach] = 0
        kernels.append(kernel / own[:, None, None, None])
    return torch.stack(kernels).unflatten(0, (flow.levels, 2))


@torch.no_grad()
def synthesis_kernels(flow: MultilevelFlow) -> Tensor:
    """What a one in a band of a level adds to the state above, without coupling: [levels, 2, 4, 1, SIDE, SIDE].

    Of luma and of chroma (which have the same taps), bands low, LH, HL, HH; the middle is twice the band's own place.
    """
    reach, n, kernels = SYNTHESIS_SIDE // 2, 16, []
    for level, colour_of_band in itertools.product(range(flow.levels), (0, 1)):
        own = torch.cat([impulse(colour_of_band + 3 * band, n, flow.scales.device) for band in range(4)])
        rung = flow.rung(level, False, len(own))
        state = flow.wavelet.inverse(own[:, :3], own[:, 3:], rung, identity)[:, colour_of_band]
        window = slice(n - reach, n + reach + 1)
        kernels.append(state[:, None, window, window])
        if not torch.allclose(state.abs().sum(), kernels[-1].abs().sum()):
            raise ValueError(f"basis functions are wider than {SYNTHESIS_SIDE} samples")
    return torch.stack(kernels).unflatten(0, (flow.levels, 2))


def selected(details: Tensor, number: int) -> Tensor:
    """The values a pass codes, out of all of a level: the codec's `select`, without indices to copy to a GPU."""
    row, column = phase_of(number)
    return of_colours(details, codes_chroma(number))[..., row::2, column::2]


def put(details: Tensor, number: int, values: Tensor) -> None:
    """Put the values of a pass into their places among all of a level: the codec's `place`."""
    row, column = phase_of(number)
    by_colour(details, codes_chroma(number))[..., row::2, column::2] = values.unflatten(1, (3, -1))


class Feedback:
    """Errors of a level's details, known or expected, and where they move the best values of others.

    Before anything is coded, every value is expected to be quantised with a dead zone; what passes choose replaces
    that. A twin of the codec's own.

    Args:
        value: Details in units of their steps, [N, 9, H, W].
        steps: [N, 9, 1, 1].
        outward: Outward shift of reconstruction points in bins, [N, 1, 1, 1].
        kernels: Of the level, [2, 3, 3, SIDE, SIDE].
    """

    def __init__(self, value: Tensor, steps: Tensor, outward: Tensor, kernels: Tensor) -> None:
        self.value, self.steps, self.outward, self.kernels = value.detach(), steps.detach(), outward, kernels
        expected = torch.sign(self.value) * torch.floor(self.value.abs() + EXPECTED_ROUNDING / 64)
        self.errors = self._error(self.value, expected) * self.steps

    def _error(self, value: Tensor, bins: Tensor) -> Tensor:
        return value - bins - torch.sign(bins) * self.outward

    def shift(self, number: int) -> Tensor:
        """How far the values of a pass had better move, in units of their steps."""
        (row, column), colours = phase_of(number), colours_of(number)
        padded = F.pad(self.errors, (FEEDBACK_SIDE // 2,) * 4)[:, :, row:, column:]
        kernel = self.kernels[int(colours[0] > 0)]
        moved = [F.conv2d(padded[:, colour::3], kernel, stride=2) for colour in colours]
        return torch.stack(moved, 2).flatten(1, 2) / of_colours(self.steps, codes_chroma(number))

    def learn(self, number: int, bins: Tensor) -> None:
        """Take in what a pass chose."""
        error = self._error(selected(self.value, number), bins)
        put(self.errors, number, error * of_colours(self.steps, codes_chroma(number)))


class Quantiser(Exactable):
    """Step sizes of every band: the base step over the band's norm, times a learned gain.

    Args:
        norms: [levels, 12] synthesis norms.
    """

    norms: Tensor

    def __init__(self, norms: Tensor) -> None:
        super().__init__()
        self.register_buffer("norms", norms)
        self.gains = nn.Parameter(torch.zeros(norms.shape[0], QUALITY_KNOTS, 12))
        self.common = nn.Parameter(torch.zeros(norms.shape[0], 12))

    def steps(self, code: Tensor, level: int) -> Tensor:
        """Steps in grey levels of one level's 12 bands for lossy positions [N] -> [N, 12]."""
        return torch.exp2(log2_delta(code)[:, None] + self._log2_gain(code, level)) / self.norms[level]

    def weights(self, code: Tensor, level: int) -> Tensor:
        """What a squared bin costs in each of a level's 12 bands, in bits: [N] -> [N, 12]."""
        strength = choice_strength(log2_delta(code))[:, None]
        return strength * RATE_DISTORTION * torch.exp2(2 * self._log2_gain(code, level).detach())

    def _log2_gain(self, code: Tensor, level: int) -> Tensor:
        return knot_weights(code)[:, :QUALITY_KNOTS] @ self.gains[level] + self.common[level]


@torch.no_grad()
def choose_bins(
    value: Tensor,
    shift: Tensor,
    weight: Tensor,
    outward: Tensor,
    bits: Callable[[Tensor], Tensor],
    elsewhere: Tensor | None = None,
) -> Tensor:
    """The nearest bin, or the next one towards 0 where the bits it saves are worth the distortion.

    As the encoder chooses for pictures that no decoder made: values below the middle of their bin may be moved, all
    where it is known what that costs elsewhere (service.codec.choice).

    Args:
        value: In units of the step.
        shift: How far off the best value lies, for errors around: it counts in distortion, not in which bins there are.
        weight: Bits a squared bin of distortion is worth, broadcast over value.
        outward: Outward shift of the points, in bins, broadcast over value.
        bits: Bits of each bin.
        elsewhere: Bits that the next bin towards 0 costs elsewhere; None: not known.
    """
    magnitude, sign = value.abs(), torch.sign(value)
    nearest = torch.floor(magnitude + 0.5)
    lower = (nearest - 1).clamp_min(0)
    near, far = nearest + outward, lower + outward * (lower > 0)
    best = magnitude + sign * shift
    worth = weight * ((best - far).square() - (best - near).square())
    now, then = bits(sign * torch.stack([nearest, lower]))
    saved, free = now - then, magnitude < nearest
    if elsewhere is not None:
        saved, free = saved - elsewhere, nearest > 0
    return sign * torch.where(free & (saved > worth), lower, nearest)


def reconstruct(latent: Tensor, step: Tensor, bins: Tensor, offset: Tensor, outward: Tensor) -> Tensor:
    """Point of each bin the decoder takes, in grey levels.

    The gradient reaches the latent straight through. It reaches the step only where the bin is not 0: a step that
    changes a little leaves a zero where it is.

    Args:
        latent: Before quantisation, in grey levels.
        step: Of each channel, in grey levels.
        bins: Of the latent.
        offset: Within (-1, 1): half bins.
        outward: Shift of the points away from 0, in bins.
    """
    through = latent + (bins * step.detach() - latent).detach() + bins * (step - step.detach())
    return through + within_bin(bins, offset, outward) * torch.where(bins == 0, step.detach(), step)


def within_bin(bins: Tensor, offset: Tensor, outward: Tensor) -> Tensor:
    """Where the decoder's point of each bin lies, from the bin's middle, in bins; arguments as above, signs will do."""
    sign = torch.sign(bins)
    within = bounded(outward + sign * offset / 2, -OUTWARD, 0.5)
    return torch.where(bins == 0, offset / 2, sign * within)
