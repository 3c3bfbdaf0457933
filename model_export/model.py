"""A whole codec in torch: flow, quantiser and prior, and the loss they are trained on.

picture -> flow -> quantiser -> bins -> prior: bits
                                  |
                                  +-> dequantiser -> inverse flow -> picture: distortion
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model_export.config import ModelConfig
from model_export.flow.coupling import CHROMA, LUMA
from model_export.flow.multilevel import MultilevelFlow
from model_export.integers import Exactable
from model_export.prior import EDGE_SCALE, PHASES, Prior, logistic_bits, planes_of, squash
from model_export.quantiser import (
    Quantiser,
    bins_of,
    dead_zone,
    knot_weights,
    log2_delta,
    reconstruct,
    synthesis_norms,
)

RATE_DISTORTION = 8.656
"""6 / ln 2: bits per squared grey level and squared step at which a uniform quantiser is optimal at high rate."""


@dataclass(frozen=True)
class Outcome:
    """What one training pass measures, per sample.

    Attributes:
        bits: Estimated bits, [N].
        squared_error: Sum over pixels and channels in squared grey levels, [N].
        picture: Reconstruction, [N, 3, H, W], blue green red, 0 ... 255, not rounded.
    """

    bits: Tensor
    squared_error: Tensor
    picture: Tensor


class CodecModel(Exactable):
    """Everything that is trained.

    Args:
        config: Sizes.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.flow = MultilevelFlow(config.levels, config.coupling_channels)
        self.quantiser = Quantiser(synthesis_norms(self.flow))
        self.prior = Prior(config)

    def condition(self, code: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Level one-hot [N, levels] and (level, knot) weights [N, levels * knots]."""
        knots = knot_weights(code)
        one_hot = F.one_hot(torch.full_like(code, level, dtype=torch.long), self.config.levels).to(knots.dtype)
        return one_hot, (one_hot[:, :, None] * knots[:, None, :]).flatten(1)

    def forward(self, picture: Tensor, code: Tensor, lossless: bool = False) -> Outcome:
        """Estimate rate and distortion.

        Args:
            picture: [N, 3, H, W], blue green red, 0 ... 255, sides multiples of 2**(levels + 1).
            code: Position of each sample on the quality axis, [N]; LOSSLESS_POSITION throughout for lossless.
            lossless: Whether this is a lossless batch: every step rounded, all steps 1.
        """
        levels, n = self.config.levels, len(picture)
        unit = torch.ones(n, device=picture.device)
        low, latents = picture - 128.0, []
        for level in range(levels):
            low, details = self.flow(low, self.condition(code, level)[0], unit, lossless)
            latents.append(details)
        log2_step = log2_delta(code)
        outward = torch.zeros_like(code) if lossless else dead_zone(log2_step)
        outward = outward[:, None, None, None]
        noisy = (torch.rand(n, device=code.device) > (log2_step - 2.0) / 2.0)[:, None, None, None]
        steps = self.steps(code, levels - 1, lossless)[:, :3]
        low, bits = self.code_lowest(low / steps, steps)
        parent = None
        for level in reversed(range(levels)):
            steps = self.steps(code, level, lossless)
            value = latents[level] / steps[:, 3:]
            bins = bins_of(value, outward)
            one_hot, condition = self.condition(code, level)
            features = self.features(low, parent, steps[:, :3], level, condition)
            coded = value + (bins - value).detach()
            if not lossless:
                coded = torch.where(noisy, value + torch.rand_like(value) - 0.5, coded)
            bits = bits + self.rate(features, bins, coded, condition)
            if lossless:
                details = latents[level]
            else:
                offset = self.offsets(features, bins, condition)
                details = reconstruct(latents[level], steps[:, 3:], bins, offset, outward)
            low = self.flow.inverse(low, details, one_hot, unit, lossless)
            parent = features
        result = low + 128.0
        return Outcome(bits, (result - picture).pow(2).flatten(1).sum(1), result)

    def steps(self, code: Tensor, level: int, lossless: bool) -> Tensor:
        """Steps of a level's 12 bands, [N, 12, 1, 1]; all 1 if lossless."""
        steps = self.quantiser.steps(code, level)
        return (torch.ones_like(steps) if lossless else steps)[:, :, None, None]

    def code_lowest(self, value: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
        """The coarsest low-pass: rounded, charged a rough price for coding differences -> values, bits [N]."""
        bins = torch.round(value.detach())
        through = value + (bins - value).detach()
        difference = through - F.pad(through, (1, 0, 0, 0), mode="replicate")[..., :-1]
        return through * steps, (2.0 * torch.log2(1 + difference.abs()) + 1).flatten(1).sum(1)

    def features(self, low: Tensor, parent: Tensor | None, low_steps: Tensor, level: int, condition: Tensor) -> Tensor:
        """Trunk of one level; parent is None at the coarsest."""
        if parent is None:
            n, _, height, width = low.shape
            parent = low.new_zeros(n, self.prior.width, (height + 1) // 2, (width + 1) // 2)
        return self.prior.trunk(low, parent, self.prior.low_scales[level], EDGE_SCALE / low_steps, condition)

    def rate(self, features: Tensor, bins: Tensor, coded: Tensor, condition: Tensor) -> Tensor:
        """Bits of a level's bins, [N]; `coded` are the values that are charged."""
        bits = torch.zeros(len(bins), device=bins.device)
        for index, (mean, log2_scale) in enumerate(self.prior.passes(features, bins, condition)):
            row, column = PHASES[index % 4]
            own = coded[:, LUMA if index < 4 else CHROMA, row::2, column::2]
            bits = bits + logistic_bits(own, mean, log2_scale).flatten(1).sum(1)
        return bits

    def offsets(self, features: Tensor, bins: Tensor, condition: Tensor) -> Tensor:
        """Reconstruction offsets of a level's bins, in half bins."""
        return self.prior.dequantiser(features, planes_of(squash(bins, self.exact)), condition)
