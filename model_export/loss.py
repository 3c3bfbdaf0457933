"""What training makes small: R + (6 / ln 2) / step^2 * D, so weighted that every quality counts by its relative rate.

Each batch draws a quality for each sample, from the whole range, or is lossless as a whole.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from model_export.data import any_conversion, converted
from model_export.model import CodecModel
from model_export.quantiser import LOSSLESS_POSITION, RATE_DISTORTION, log2_delta, spread

LOSSLESS_WEIGHT = 0.2
CONVERTED_SHARE = 0.5
"""Share of lossless batches of luma and chroma (`service.codec.forms`)."""
FORETELLING_WEIGHT = 0.5
"""Of the dequantiser's own loss. In rate and distortion alone, the noise of high qualities, where there is little to
foretell, drowns what it could learn at low ones."""


def loss_of(
    model: CodecModel, pictures: Tensor, lossless: bool, finest: int = 0, foretelling: float = FORETELLING_WEIGHT
) -> Tensor:
    """Loss of a batch, per pixel; foretelling: weight of the dequantisers' own."""
    n, pixels = len(pictures), pictures[0, 0].numel()
    if lossless:
        code = torch.full((n,), float(LOSSLESS_POSITION), device=pictures.device)
        return LOSSLESS_WEIGHT * model(pictures, code, True, finest).bits.mean() / pixels
    code = spread(n, pictures.device)
    outcome, log2_step = model(pictures, code, finest=finest), log2_delta(code)
    distortion = RATE_DISTORTION * torch.exp2(-2 * log2_step) * outcome.squared_error
    cost = quality_weight(log2_step) * (outcome.bits + distortion) / pixels
    return (cost + foretelling * outcome.unforetold).mean()


def lossless_batch(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """A batch as lossless streams see it: as it is, or luma and chroma."""
    return converted(pictures, any_conversion(rng)) if rng.random() < CONVERTED_SHARE else pictures


def quality_weight(log2_step: Tensor) -> Tensor:
    """Weight of a sample by its step: one over the rate photographs need there, and a fifth of a bit."""
    x = log2_step - 2.0
    return 1.0 / (0.2 + torch.exp2(1.61 - 0.685 * x - 0.067 * x * x))
