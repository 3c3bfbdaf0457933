"""A whole codec in torch: flow, quantiser and prior, and the loss they are trained on.

picture -> flow -> quantiser -> bins -> prior: bits
                                  |
                                  +-> dequantiser -> inverse flow -> picture: distortion
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.config import ModelConfig
from model_export.flow.coupling import of_colours
from model_export.flow.multilevel import MultilevelFlow
from model_export.integers import Exactable
from model_export.prior import EDGE_SCALE, Known, Prior, by_phase, logistic_bits
from model_export.quantiser import (
    Feedback,
    Quantiser,
    choose_bins,
    feedback_kernels,
    knot_weights,
    log2_delta,
    outward_shift,
    reconstruct,
    selected,
    synthesis_norms,
)
from service.codec.artifact import PRIORS, levels_served, prior_of_level
from service.codec.prior import codes_chroma

TAPS_KEPT = 0.01
"""Stored offsets of the wavelet's taps may move this far, taps by 0.0003, before feedback kernels follow."""


@dataclass(frozen=True)
class Outcome:
    """What one training pass measures, per sample.

    Attributes:
        bits: Estimated bits, [N].
        squared_error: Sum over pixels and channels in squared grey levels, [N].
        picture: Reconstruction, [N, 3, H, W], blue green red, 0 ... 255, not rounded.
        unforetold: What is left of the energy in zero bins once the dequantiser has moved them, as a share of it;
            level k counts 2**-k, [N].
    """

    bits: Tensor
    squared_error: Tensor
    picture: Tensor
    unforetold: Tensor


@dataclass(frozen=True)
class Seen:
    """What a level's dequantiser met.

    Attributes:
        level: Which level.
        parent: What it handed on, its features included, [N, channels, H, W].
        planes: Bins as it read them, [N, 27, H, W].
        condition: Of level and quality, [N, levels * knots].
        value: Details in units of their steps, [N, 9, H, W].
        bins: Of the value.
        outward: Outward shift of reconstruction points in bins, [N, 1, 1, 1].
        weight: What a squared bin adds to a picture in squared grey levels, [N, 9, 1, 1].
    """

    level: int
    parent: Tensor
    planes: Tensor
    condition: Tensor
    value: Tensor
    bins: Tensor
    outward: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Choice:
    """How the bins of a level are chosen.

    Attributes:
        weight: Bits a squared bin of distortion is worth in each band, [N, 9, 1, 1].
        outward: Outward shift of reconstruction points in bins, [N, 1, 1, 1].
        noisy: Samples charged for noise instead of rounding, [N, 1, 1, 1].
        feedback: Errors around; None: lossless, always the nearest bin.
    """

    weight: Tensor
    outward: Tensor
    noisy: Tensor
    feedback: Feedback | None


class CodecModel(Exactable):
    """Everything that is trained.

    Args:
        config: Sizes.

    Attributes:
        mixed: Whether the prior's convolutions run in bfloat16: faster training, never for anything exact.
        observer: Told what each level's dequantiser met.
        kept: Of hidden layers that were made smaller, which of the channels that `config` says are left (`silent`).
    """

    mixed: bool = False
    observer: Callable[[Seen], None] | None = None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.kept: dict[str, Tensor] = {}
        self.flow = MultilevelFlow(config.levels, config.coupling_channels)
        self.quantiser = Quantiser(synthesis_norms(self.flow))
        self._kernels: tuple[Tensor, Tensor] | None = None
        self._stamp: tuple[torch.device, int] | None = None
        self.priors = nn.ModuleList(
            Prior(size, config.levels, config.parent(level), levels_served(level, config.levels))
            for level, size in enumerate(config.priors)
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs miss this form

    def prior(self, level: int) -> Prior:
        """The prior of a level; the coarser levels share one."""
        return self.sets[PRIORS.index(prior_of_level(level))]

    @property
    def sets(self) -> list[Prior]:
        """All priors, the finest level's first."""
        return cast("list[Prior]", list(self.priors))

    @property
    def feedback_kernels(self) -> Tensor:
        """Those of the flow, computed anew when its taps have moved far enough to matter."""
        taps = self.flow.wavelet.offsets.detach()
        stamp = (taps.device, taps._version)  # untouched ones need no comparison, which would wait for a GPU
        if self._kernels is None or self._stamp != stamp:
            self._stamp = stamp
            if self._kernels is None or not _as_before(self._kernels[0], taps):
                self._kernels = taps.clone(), feedback_kernels(self.flow)
        return self._kernels[1]

    def condition(self, code: Tensor, level: int) -> Tensor:
        """Weights over (level, knot) pairs, [N, levels * knots]."""
        knots = knot_weights(code)
        rows = knots.new_zeros(len(knots), self.config.levels, knots.shape[1])
        rows[:, level] = knots
        return rows.flatten(1)

    def narrow(self, x: Tensor) -> torch.autocast:
        """Number format of the prior's convolutions: bfloat16 in mixed precision."""
        return torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed and not self.exact)

    def forward(self, picture: Tensor, code: Tensor, lossless: bool = False, finest: int = 0) -> Outcome:
        """Estimate rate and distortion.

        Args:
            picture: [N, 3, H, W], blue green red, 0 ... 255, sides multiples of 2**(levels + 1).
            code: Position of each sample on the quality axis, [N]; LOSSLESS_POSITION throughout for lossless.
            lossless: Whether this is a lossless batch: every step rounded, all steps 1.
            finest: Finest level that is coded; details of finer ones cost nothing and stay exact.
        """
        levels, n = self.config.levels, len(picture)
        unit = torch.ones(n, device=picture.device)
        low, latents, lows = picture - 128.0, [], [picture - 128.0]
        for level in range(levels):
            low, details = self.flow(low, self.flow.rung(level, lossless, n), unit, lossless)
            latents.append(details)
            lows.append(low)
        log2_step = log2_delta(code)
        outward = outward_shift(log2_step)[:, None, None, None]
        noisy = self.noisy(log2_step, lossless)[:, None, None, None]
        steps = self.steps(code, levels - 1, lossless)[:, :3]
        low, bits = self.code_lowest(low / steps, steps)
        parent, unforetold = None, torch.zeros(n, device=picture.device)
        for level in reversed(range(finest, levels)):
            steps = self.steps(code, level, lossless)
            prior, condition = self.prior(level), self.condition(code, level)
            features = self.features(low, parent, EDGE_SCALE / steps[:, :3], level, lossless, condition)
            weight = self.quantiser.weights(code, level)[:, 3:, None, None]
            value, feedback = latents[level] / steps[:, 3:], None
            if not lossless:
                feedback = Feedback(value, steps[:, 3:], outward, self.feedback_kernels[level])
            choice = Choice(weight, outward, noisy, feedback)
            level_bits, known = self.walk(prior, features, value, choice, condition)
            bits = bits + level_bits
            if level > finest or not lossless:
                with self.narrow(features):
                    offset, parent = prior.dequantiser(features, known.planes, condition)
                if self.observer is not None:
                    norms = self.quantiser.norms[level, 3:, None, None]
                    weight = (norms * steps[:, 3:]).square()
                    self.observer(Seen(level, parent, known.planes, condition, value, known.bins, outward, weight))
            if lossless:
                low = lows[level]
            else:
                unforetold = unforetold + 2.0**-level * self.unforetold(
                    latents[level], steps, known.bins, offset, level
                )
                details = reconstruct(latents[level], steps[:, 3:], known.bins, offset, outward)
                low = self.flow.inverse(low, details, self.flow.rung(level, False, n), unit, False)
        for level in reversed(range(finest)):
            rung = self.flow.rung(level, False, n)
            low = lows[level] if lossless else self.flow.inverse(low, latents[level], rung, unit, False)
        result = low + 128.0
        return Outcome(bits, (result - picture).pow(2).flatten(1).sum(1), result, unforetold)

    def unforetold(self, latent: Tensor, steps: Tensor, bins: Tensor, offset: Tensor, level: int) -> Tensor:
        """Share of the energy of a level's zero bins that is left by the dequantiser's offsets, [N].

        Args:
            latent: Details, [N, 9, H, W]; what made them is not trained by this.
            steps: Of the level's 12 bands, [N, 12, 1, 1].
            bins: Of the latent.
            offset: In half bins.
            level: Which level.
        """
        step, value = steps[:, 3:].detach(), latent.detach()
        weight = (bins == 0) * self.quantiser.norms[level, 3:, None, None].square()
        left = (weight * (value - offset * step / 2).square()).flatten(1).sum(1)
        energy = (weight * value.square()).flatten(1).sum(1)
        return left / energy.clamp_min(1.0)

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

    def features(
        self, low: Tensor, parent: Tensor | None, edge_scale: Tensor, level: int, lossless: bool, condition: Tensor
    ) -> Tensor:
        """Trunk of one level; parent is None at the coarsest."""
        prior, (n, _, height, width) = self.prior(level), low.shape
        if parent is None:
            parent = low.new_zeros(n, prior.parent, (height + 1) // 2, (width + 1) // 2)
        low_scale = (self.flow.rung(level, lossless, n) @ self.flow.scales)[:, :1, None, None]
        read = prior.trunk.read(low, low_scale, edge_scale)
        with self.narrow(low):
            return prior.trunk(read, parent, condition)

    def noisy(self, log2_step: Tensor, lossless: bool) -> Tensor:
        """Which samples are charged for noise instead of rounding: all below a step of 4, none above 16, [N]."""
        if lossless or not self.training:
            return torch.zeros_like(log2_step, dtype=torch.bool)
        return torch.rand_like(log2_step) > (log2_step - 2.0) / 2.0

    def walk(
        self, prior: Prior, features: Tensor, value: Tensor, choice: Choice, condition: Tensor
    ) -> tuple[Tensor, Known]:
        """Choose and charge a level's bins pass by pass, each seeing what the earlier ones chose.

        Args:
            prior: The level's.
            features: Of the trunk, [N, width, H, W].
            value: The level's details in units of their steps, [N, 9, H, W].
            choice: How bins are chosen.
            condition: Of level and quality.

        Returns:
            Bits, [N], and the bins.
        """
        n, _, height, width = value.shape
        known = Known((n, height, width), self.exact, value.device)
        bits, phases = torch.zeros(n, device=value.device), by_phase(features)
        for number, head in enumerate(prior.heads):
            with self.narrow(value):
                mean, log2_scale = head(phases[number % 4], known.seen_by(number), condition)
            own = selected(value, number)
            price = functools.partial(logistic_bits, mean=mean, log2_scale=log2_scale)
            if choice.feedback is None:
                bins = torch.round(own.detach())
            else:
                shift = choice.feedback.shift(number)
                weight = of_colours(choice.weight, codes_chroma(number))
                bins = choose_bins(own, shift, weight, choice.outward, price)
                choice.feedback.learn(number, bins)
            coded = torch.where(choice.noisy, own + torch.rand_like(own) - 0.5, own + (bins - own).detach())
            bits = bits + price(coded).flatten(1).sum(1)
            known.learn(number, bins)
        return bits, known


def _as_before(kept: Tensor, taps: Tensor) -> bool:
    """Whether taps are on the same device and nearly what they were."""
    return kept.device == taps.device and torch.allclose(kept, taps, rtol=0, atol=TAPS_KEPT)
