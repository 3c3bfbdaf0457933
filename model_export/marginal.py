"""What a bin costs elsewhere: the derivative of rate and distortion by each bin, through the whole codec.

An encoder that weighs a bin's own bits and distortion leaves out what follows from it: heads read it when they say what
later bins cost, dequantisers when they place points, and finer levels a low-pass that it is part of. Here the float
codec runs once with bins as the encoder chooses them, and once backwards. That tells of every bin what the next one
towards 0 would change elsewhere, to first order; then bins are chosen anew, and so on.

    pixels, quality code -> bins -> derivative -> costs elsewhere -> bins -> ... -> costs for service.codec.encode

It takes torch and a checkpoint, and time: two and a half encodes a round. Floats choose nothing that a decoder
has to repeat, so what comes out is a stream like any other; but another machine may choose other bins here and there.

Sources: J. Campos et al., "Content Adaptive Optimization for Neural Image Compression", CVPR workshops 2019; Y. Yang et
al., "Improving Inference for Neural Image Compression", NeurIPS 2020: what is searched for each picture there by
hundreds of gradient steps on its latents.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model_export.checkpoint import load_average
from model_export.config import ROUNDS
from model_export.data import to_tensor
from model_export.denormals import denormals_off
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
from model_export.tables import positions_of_codes
from service.codec.arrays import Bytes8, Shorts
from service.codec.artifact import Model
from service.codec.coder_tables import COST_UNIT
from service.codec.lattice import Area, sizes_of
from service.codec.prior import codes_chroma

FIRST_SHARE = 0.4
"""What is believed of the first derivative: bins are moved all at once, and each move changes what others cost."""
KEPT_SHARE, NEW_SHARE = 0.6, 0.3
"""What is kept of the costs so far, and believed of the next derivative."""
COST_LIMIT = 100.0
"""Most bits that are believed."""
PATCH = 768
"""Side of the patches, in pixels, that a picture is cut into: they bound memory; a bin's cost ends at their sides."""


class SearchError(ValueError):
    """A search cannot be made as asked."""


def costs_of(checkpoint: Path, artifact: Model, rounds: int = ROUNDS, threads: int = 1) -> MarginalCosts:
    """Costs by the weights of a checkpoint, for an artifact exported from it.

    Args:
        checkpoint: Full or compact.
        artifact: What encodes.
        rounds: As in MarginalCosts.
        threads: CPU threads of torch.

    Raises:
        SearchError: The two are of different sizes or names, or there are no rounds.
    """
    model, _ = load_average(checkpoint)
    if model.config.as_dict() != artifact.manifest["config"]:
        raise SearchError(f"{checkpoint} is not what {artifact.name} was exported from; take its own checkpoint")
    torch.set_num_threads(threads)
    return MarginalCosts(model, rounds)


class MarginalCosts:
    """What bins of a picture cost elsewhere; called as `service.codec.encode` asks.

    Args:
        model: The float model of the artifact that encodes.
        rounds: How often the codec runs forwards and backwards, at least once.

    Raises:
        SearchError: There are no rounds.
    """

    def __init__(self, model: CodecModel, rounds: int = ROUNDS) -> None:
        if rounds < 1:
            raise SearchError("a search has at least one round; give 1 or more")
        self.model, self.rounds = model.eval(), rounds
        for parameter in model.parameters():
            parameter.requires_grad_(False)

    def __call__(self, pixels: Bytes8, code: int) -> tuple[Shorts, ...]:
        """Pixels [H, W, 3] and a quality code -> costs in 1/256 bit of each level, finest first, [9, h, w]."""
        size = (pixels.shape[0], pixels.shape[1])
        result = [np.zeros((9, *own), np.int16) for own in sizes_of(*size)[1:]]
        position = torch.tensor([positions_of_codes()[code]], dtype=torch.float32)
        for patch in patches_of(size):
            with denormals_off():
                found = self._of_patch(patch.of(pixels.transpose(2, 0, 1)), position)
            for level, costs in enumerate(found[: len(result)]):
                own = Area(*(-(-side >> level + 1) for side in (patch.top, patch.left, patch.bottom, patch.right)))
                target = own.of(result[level])
                target[:] = costs[:, : target.shape[1], : target.shape[2]]
        return tuple(result)

    def _of_patch(self, planes: Bytes8, position: Tensor) -> list[Shorts]:
        """Costs of a patch, [3, h, w], repeated beyond its sides until all levels are even."""
        unit = 2 << self.model.config.levels
        rows, columns = (-side % unit for side in planes.shape[1:])
        padded = np.pad(planes, ((0, 0), (0, rows), (0, columns)), "edge")
        picture = to_tensor(padded.transpose(1, 2, 0)[None])
        costs = [FIRST_SHARE * own for own in derivatives(self.model, picture, position)]
        for _ in range(self.rounds - 1):
            new = derivatives(self.model, picture, position, costs)
            costs = [KEPT_SHARE * own + NEW_SHARE * more for own, more in zip(costs, new, strict=True)]
        limited = (own[0].clamp(-COST_LIMIT, COST_LIMIT) * COST_UNIT for own in costs)
        return [own.round().numpy().astype(np.int16) for own in limited]


def patches_of(size: tuple[int, int]) -> Iterator[Area]:
    """Cut a picture of a height and width into patches of PATCH x PATCH, row by row."""
    for top in range(0, size[0], PATCH):
        for left in range(0, size[1], PATCH):
            yield Area(top, left, min(top + PATCH, size[0]), min(left + PATCH, size[1]))


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
