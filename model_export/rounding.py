"""Weights of bytes -> rounded ones that change least what a layer gives for what it usually reads.

Rounded one by one, weights are off by half a unit whichever way, though what they read is not independent: what one
weight is off by can mostly be made good by those not yet rounded, and its mean by the bias. Layers are rounded each by
itself, by what it reads in the trained model.

Sources: E. Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2023;
M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_export.byte_sum import ByteSum
from model_export.data import Picture
from model_export.integers import BYTE_WEIGHT_LIMIT, ByteLayer, ExactConv
from model_export.model import CodecModel
from model_export.silent import code_all, convs_of

log = logging.getLogger(__name__)

ROWS = 1024
"""Most places of a picture's level that are looked at."""
SIDE = 256
"""Side of the crops that are looked at."""
DAMPING = 0.01
"""Added to the variance of everything that is read, as a share of their mean: few pictures do not tell all."""
Layer = ByteLayer | ByteSum


class Moments:
    """Means and products of what a layer reads at one place, all its inputs one after the other."""

    def __init__(self, length: int) -> None:
        self.count = 0
        self.total, self.products = torch.zeros(length), torch.zeros(length, length)

    def see(self, rows: Tensor) -> None:
        """Take in places, [places, length]."""
        self.count += len(rows)
        self.total += rows.sum(0)
        self.products.addmm_(rows.T, rows)

    def mean(self) -> Tensor:
        """Of each input, [length]."""
        return self.total / max(1, self.count)

    def covariance(self) -> Tensor:
        """Damped, float64, [length, length]."""
        mean = self.mean().double()
        own = self.products.double() / max(1, self.count) - torch.outer(mean, mean)
        damping = DAMPING * own.diagonal().mean().clamp_min(1e-12)
        return own + damping * torch.eye(len(own), dtype=own.dtype)


def read_at(conv: ExactConv, x: Tensor) -> Tensor:
    """What a convolution reads at each place, [N, inputs K K, places]."""
    return F.unfold(x, conv.kernel, padding=conv.kernel // 2 if conv.stride == 1 else 0, stride=conv.stride)


@torch.no_grad()
def watched(model: CodecModel, pictures: Sequence[Picture]) -> dict[str, Moments]:
    """What the layers of bytes of a model read, by their names, when it codes the middles of pictures."""
    layers = {name: own for name, own in model.named_modules() if isinstance(own, ByteLayer | ByteSum)}
    found = {name: Moments(sum(c.weight[0].numel() for c in convs_of(own))) for name, own in layers.items()}
    random = torch.Generator().manual_seed(0)

    def look(name: str) -> object:
        def hook(layer: nn.Module, given: tuple[Tensor | list[Tensor], ...]) -> None:
            assert isinstance(layer, ByteLayer | ByteSum)
            inputs = given[0] if isinstance(given[0], list) else [given[0]]
            parts = [read_at(conv, x) for conv, x in zip(convs_of(layer), inputs, strict=True)]
            rows = torch.cat(parts, 1).transpose(1, 2).flatten(0, 1)
            found[name].see(rows[torch.randperm(len(rows), generator=random)[:ROWS]])

        return hook

    hooks = [own.register_forward_pre_hook(look(name)) for name, own in layers.items()]  # type: ignore[arg-type]
    unit, pieces = 2 << model.config.levels, []
    for picture in pictures:
        top, left = (max(0, side - SIDE) // 2 for side in picture.shape[:2])
        height, width = (min(side, SIDE) // unit * unit for side in picture.shape[:2])
        pieces.append(picture[top : top + height, left : left + width])
    code_all(model, [piece for piece in pieces if piece.size], hooks)
    return found


def rounded_rows(weight: Tensor, covariance: Tensor) -> Tensor:
    """Weights in units, [outputs, inputs] -> whole numbers, nearly the best for inputs of that covariance; float64."""
    order = torch.argsort(covariance.diagonal(), descending=True)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(covariance[order][:, order]))
    passed_on = torch.linalg.cholesky(inverse, upper=True)
    left, result = weight.double()[:, order].clone(), torch.empty_like(weight, dtype=torch.float64)
    for place, column in enumerate(order):
        whole = left[:, place].round().clamp(-BYTE_WEIGHT_LIMIT, BYTE_WEIGHT_LIMIT)
        error = (left[:, place] - whole) / passed_on[place, place]
        left[:, place:] -= error[:, None] * passed_on[place, place:]
        result[:, column] = whole
    return result


@torch.no_grad()
def settle(layer: Layer, moments: Moments) -> None:
    """Round the weights of a layer, and put into its bias what they are off by on the mean."""
    unit = torch.exp2(-layer.shifts())[:, None]
    convs = convs_of(layer)
    weights = torch.cat([conv.weight.flatten(1) for conv in convs], 1).double()
    result = rounded_rows(weights / unit, moments.covariance()) * unit
    missing = ((weights - result) @ moments.mean().double()).float()
    for conv, own in zip(convs, result.split([conv.weight[0].numel() for conv in convs], 1), strict=True):
        conv.weight.copy_(own.view_as(conv.weight))
    bias = layer.table.common if isinstance(layer, ByteSum) else layer.bias
    bias.add_(missing)


def rounded(model: CodecModel, pictures: Sequence[Picture]) -> CodecModel:
    """A copy of a trained model, not in exact mode, whose weights of bytes are whole numbers in their units."""
    result = copy.deepcopy(model)
    found = watched(result, pictures)
    for name, layer in result.named_modules():
        if isinstance(layer, ByteLayer | ByteSum) and found[name].count:
            settle(layer, found[name])
    log.info("weights of %d layers rounded by what they read in %d pictures", len(found), len(pictures))
    return result
