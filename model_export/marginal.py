"""What a bin costs elsewhere, in floats: the derivative of rate and distortion by each bin, through the whole codec.

The service finds it in integers (service.codec.elsewhere), by graphs that `adjoint_graphs` makes; here torch finds it,
to see that they are right, and for experiments.

    pixels, quality code, costs so far -> bins -> derivative -> costs elsewhere
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from model_export.flow.coupling import of_colours
from model_export.model import CodecModel
from model_export.prior import EDGE_SCALE, Known, by_phase, logistic_bits, planes_of
from model_export.quantiser import (
    RATE_DISTORTION,
    Feedback,
    choice_strength,
    choose_bins,
    log2_delta,
    outward_shift,
    selected,
    within_bin,
)
from service.codec.prior import codes_chroma


def derivatives(
    model: CodecModel, picture: Tensor, position: Tensor, costs: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """How the loss changes elsewhere where a bin is taken one towards 0 from its nearest one, to first order.

    Args:
        model: In evaluation mode, its parameters frozen.
        picture: [N, 3, H, W], blue green red, 0 ... 255, sides multiples of 2**(levels + 1).
        position: On the quality axis, [N]; lossy.
        costs: Those that bins are chosen with, as returned; None: not known.

    Returns:
        Bits of each level, finest first, [N, 9, h, w]; 0 where the nearest bin is 0.
    """
    n, _, height, width = picture.shape
    sizes = [(height >> level + 1, width >> level + 1) for level in range(model.config.levels)]
    taken = [torch.zeros(n, 9, *size, dtype=picture.dtype, requires_grad=True) for size in sizes]
    loss_elsewhere(model, picture, position, taken, costs).backward()
    return [torch.zeros_like(own) if own.grad is None else own.grad for own in taken]


def loss_elsewhere(
    model: CodecModel,
    picture: Tensor,
    position: Tensor,
    taken: Sequence[Tensor],
    costs: Sequence[Tensor] | None = None,
) -> Tensor:
    """Rate and distortion, in bits, once parts of bins are taken away where others read them.

    Bits of bins coded later count, as do points that dequantisers move; not a bin's own bits and distortion, which an
    encoder knows when it chooses it.

    Args:
        model: As in `derivatives`, like `picture`, `position` and `costs`.
        picture: As there.
        position: As there.
        taken: What part of the way from its nearest bin to the next one towards 0 each is taken, [N, 9, h, w] of each
            level, finest first.
        costs: As there.
    """
    levels, n = model.config.levels, len(picture)
    unit, log2_step = picture.new_ones(n), log2_delta(position)
    outward = outward_shift(log2_step)[:, None, None, None]
    worth = choice_strength(log2_step) * RATE_DISTORTION * torch.exp2(-2 * log2_step)
    latents, low = [], picture - 128.0
    with torch.no_grad():
        for level in range(levels):
            low, details = model.flow(low, model.flow.rung(level, False, n), unit, False)
            latents.append(details)
        coarsest = model.steps(position, levels - 1, False)[:, :3]
        low, _ = model.code_lowest(low / coarsest, coarsest)
    # Finer levels read a low-pass that bins were taken from; what is shown is another one.
    shown, parent, bits = low, None, picture.new_zeros(n)
    for level in reversed(range(levels)):
        steps, condition = model.steps(position, level, False), model.condition(position, level)
        prior, value = model.prior(level), latents[level] / steps[:, 3:]
        features = model.features(low, parent, EDGE_SCALE / steps[:, :3], level, False, condition)
        weight = model.quantiser.weights(position, level)[:, 3:, None, None]
        feedback = Feedback(value, steps[:, 3:], outward, model.feedback_kernels[level])
        nearest = torch.sign(value) * torch.floor(value.abs() + 0.5)
        known, phases = Known((n, value.shape[2], value.shape[3]), False, value.device), by_phase(features)
        for number, head in enumerate(prior.heads):
            mean, log2_scale = head(phases[number % 4], known.seen_by(number), condition)
            price = functools.partial(logistic_bits, mean=mean, log2_scale=log2_scale)
            bins = choose_bins(
                selected(value, number),
                feedback.shift(number),
                of_colours(weight, codes_chroma(number)),
                outward,
                price,
                None if costs is None else selected(costs[level], number),
            )
            feedback.learn(number, bins)
            bits = bits + price(bins).flatten(1).sum(1)
            share = torch.cat([selected(taken[level], number)] * 3, 1)
            known.learn(number, bins, -share * planes_between(selected(nearest, number)))
        offset, parent = prior.dequantiser(features, known.planes, condition)
        points = (known.bins + within_bin(known.bins, offset, outward)) * steps[:, 3:]
        distance = torch.sign(nearest) * (1 + outward * (nearest.abs() == 1)) * steps[:, 3:]
        rung = model.flow.rung(level, False, n)
        low, shown = (
            model.flow.inverse(state, details, rung, unit, False)
            for state, details in ((low, points - taken[level] * distance), (shown, points))
        )
    squared_error = (shown + 128.0 - picture).square().flatten(1).sum(1)
    return (bits + worth * squared_error).sum()


def planes_between(nearest: Tensor) -> Tensor:
    """How the planes of nearest bins differ from those of the next ones towards 0, [N, C, H, W] -> [N, 3 C, H, W]."""
    return planes_of(nearest, False) - planes_of(nearest - torch.sign(nearest), False)
