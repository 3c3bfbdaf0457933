"""Channels that never fire -> left out: a smaller model that computes what the trained one does.

Training leaves channels of byte layers behind that are 0 whatever a picture holds; whole layers end that way. Here a
model codes pictures at all kinds of qualities, and what stayed 0 throughout is taken out before it is exported. The
checkpoint keeps it: what is trained is not made smaller.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from model_export.data import Picture, to_tensor
from model_export.integers import ByteLayer, ExactConv
from model_export.model import CodecModel
from model_export.prior import Prior
from model_export.quantiser import LAST_POSITION, LOSSLESS_POSITION

BLOCK = 16
"""Widths are multiples of it: kernels work on whole blocks, so that a channel less would be no faster."""
CODES = (0.0, 150.0, float(LOSSLESS_POSITION), 300.0, 450.0, 600.0, float(LAST_POSITION))
"""Positions that pictures are coded at in turn."""
Fired = dict[str, Tensor]
"""Of each byte layer, by its name, whether its channels were ever other than 0: [outputs]."""


@torch.no_grad()
def fired(model: CodecModel, pictures: Sequence[Picture]) -> Fired:
    """Code pictures of any size, one after the other, and see which channels fire."""
    seen: Fired = {}
    hooks = []
    for name, layer in model.named_modules():
        if isinstance(layer, ByteLayer):
            seen[name] = torch.zeros(len(layer.bias), dtype=torch.bool)

            def see(_: nn.Module, __: object, output: Tensor, own: Tensor = seen[name]) -> None:
                own |= output.amax((0, 2, 3)) > 0

            hooks.append(layer.register_forward_hook(see))
    unit = 2 << model.config.levels
    for number, picture in enumerate(pictures):
        code, (rows, columns) = CODES[number % len(CODES)], (-side % unit for side in picture.shape[:2])
        padded = np.pad(picture, ((0, rows), (0, columns), (0, 0)), "edge")
        model(to_tensor(padded[None]), torch.tensor([code]), code == LOSSLESS_POSITION)
    for hook in hooks:
        hook.remove()
    return seen


@torch.no_grad()
def compacted(model: CodecModel, channels: Fired) -> CodecModel:
    """A copy without the channels that never fired, widths rounded up to whole blocks."""
    result = copy.deepcopy(model)
    names = {layer: name for name, layer in result.named_modules()}
    handed_on = [_narrow(prior, {layer: channels[names[layer]] for layer in _layers(prior)}) for prior in result.sets]
    for prior, parent in zip(result.sets, [*handed_on[1:], handed_on[-1]], strict=True):
        _reads(prior.trunk.carry, parent)
        prior.parent = len(parent)
    return result


def _layers(prior: Prior) -> list[ByteLayer]:
    return [layer for layer in prior.modules() if isinstance(layer, ByteLayer)]


def _narrow(prior: Prior, own: dict[ByteLayer, Tensor]) -> Tensor:
    """Narrow a prior, all but what its trunk is handed; which channels it hands on itself."""
    net, width = prior.dequantiser, len(own[prior.trunk.layers[-1]])
    features = _chain(prior.trunk.layers, torch.arange(len(prior.trunk.first.table.common)), own)
    for head in prior.heads:
        _reads(head.first.terms[0], features)
    _reads(net.first.terms[0], features)
    joined = torch.arange(0)
    if net.join is not None and (own[net.join].any() or net.refiner is None):
        read = _chain(net.layers, torch.arange(len(net.first.table.common)), own)
        joined = _chain([net.join], torch.cat([features, width + read]), own, BLOCK)
        _reads(net.last.terms[0], joined)
    else:
        net.join, net.rest = None, nn.ModuleList()
        net.last.convs = net.last.convs[1:]
    parent = torch.cat([features, width + joined])
    if net.refiner is not None:
        _reads(net.refiner.first.terms[0], parent)
        _reads(net.last.terms[-1], _chain(net.refiner.layers, torch.arange(len(net.refiner.first.table.common)), own))
    return parent


def _chain(layers: Sequence[ByteLayer], inputs: Tensor, own: dict[ByteLayer, Tensor], least: int = 0) -> Tensor:
    """Narrow layers that read one another; which outputs the last one keeps, at least so many."""
    for layer in layers:
        fires = own[layer]
        width = max(least, -(-int(fires.sum()) // BLOCK) * BLOCK)
        kept = torch.argsort(~fires, stable=True)[:width].sort().values
        _reads(layer.conv, inputs)
        layer.conv.weight = nn.Parameter(layer.conv.weight[kept])
        layer.bias = nn.Parameter(layer.bias[kept])
        inputs = kept
    return inputs


def _reads(conv: ExactConv, inputs: Tensor) -> None:
    """Leave out all other inputs of a convolution."""
    conv.weight = nn.Parameter(conv.weight[:, inputs])
