"""Channels that never fire -> left out: a smaller model that computes what the trained one does.

Training leaves channels behind that are 0 whatever a picture holds; whole layers end that way. Here a model codes
pictures at all kinds of qualities, and what stayed 0 throughout is taken out before it is exported. The checkpoint
keeps it: what is trained is not made smaller (`wake` begins it anew).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from model_export.data import Picture, to_tensor
from model_export.integers import ByteLayer, ExactConv, ExactSum
from model_export.model import CodecModel
from model_export.quantiser import LAST_POSITION, LOSSLESS_POSITION

BLOCK = 16
"""Widths are multiples of it: kernels work on whole blocks, so that a channel less would be no faster."""
CODES = (0.0, 150.0, float(LOSSLESS_POSITION), 300.0, 450.0, 600.0, float(LAST_POSITION))
"""Positions that pictures are coded at in turn."""
Fired = dict[str, Tensor]
"""Of each hidden layer, by its name, whether its channels were ever above 0: [outputs]."""
Readers = list[tuple[ExactConv, int]]
"""Convolutions that read all channels of a layer, and the input where these begin."""


Layer = ByteLayer | ExactSum


@dataclass(frozen=True)
class Hidden:
    """A layer that ends in a clipped ReLU.

    Attributes:
        name: In the model.
        layer: What gives its channels.
        readers: Who reads them.
        needed: Whether some of them have to stay, even if none fires.
    """

    name: str
    layer: Layer
    readers: Readers
    needed: bool = True

    @property
    def biases(self) -> list[tuple[nn.Module, str, nn.Parameter]]:
        """What is added to its channels, these last, and where it lives."""
        owner = self.layer.table if isinstance(self.layer, ExactSum) else self.layer
        return [(owner, name, own) for name, own in owner.named_parameters(recurse=False)]


def convs_of(layer: Layer) -> list[ExactConv]:
    """What gives the channels of a layer; the first reads bytes."""
    return layer.terms if isinstance(layer, ExactSum) else [layer.conv]


def hidden_layers(model: CodecModel) -> list[Hidden]:
    """All of them but what trunks begin with, where everything fires; each before those that read it.

    Raises:
        ValueError: The model has been made smaller.
    """
    names = {layer: name for name, layer in model.named_modules()}
    result: list[Hidden] = []

    def chain(layers: Sequence[Layer], last: Readers) -> None:
        """Layers that read one another, and who reads the last."""
        readers = [[(convs_of(after)[0], 0)] for after in layers[1:]] + [last]
        result.extend(Hidden(names[own], own, read) for own, read in zip(layers, readers, strict=True))

    for index in reversed(range(len(model.sets))):
        prior, coarsest = model.sets[index], index == len(model.sets) - 1
        finer = [other.trunk.carry for other in model.sets[max(0, index - 1) : index + coarsest]]
        net, width, join = prior.dequantiser, prior.trunk.width, prior.dequantiser.join
        if join is None:
            raise ValueError("this model was made smaller for export; take its checkpoint")
        read: Readers = [(head.first.terms[0], 0) for head in prior.heads] + [(net.first.terms[0], 0), (join.conv, 0)]
        joined: Readers = [(net.last.terms[0], 0)]
        read += [(carry, 0) for carry in finer]
        joined += [(carry, width) for carry in finer]
        if net.refiner is not None:
            read.append((net.refiner.first.terms[0], 0))
            joined.append((net.refiner.first.terms[0], width))
        chain(prior.trunk.layers, read)
        chain([net.first, *net.layers], [(join.conv, width)])
        result.append(Hidden(names[join], join, joined, needed=net.refiner is None))
        if net.refiner is not None:
            chain([net.refiner.first, *net.refiner.layers], [(net.last.terms[-1], 0)])
        for head in prior.heads:
            chain([head.first, head.second], [(head.last.terms[0], 0)])
    return result


@torch.no_grad()
def fired(model: CodecModel, pictures: Sequence[Picture]) -> Fired:
    """Code pictures of any size, one after the other, and see which channels fire."""
    seen: Fired = {}
    hooks = []
    for hidden in hidden_layers(model):

        def see(_: nn.Module, __: object, output: Tensor, name: str = hidden.name) -> None:
            fires = output.amax((0, 2, 3)) > 0
            seen[name] = seen.get(name, fires) | fires

        hooks.append(hidden.layer.register_forward_hook(see))
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
    """A copy without the channels that never fired, widths rounded up to whole blocks.

    What a dequantiser joins is left out as a whole if none of it fires and offsets have a refiner.
    """
    result = copy.deepcopy(model)
    kept: dict[ExactConv, Tensor] = {}
    for hidden in hidden_layers(result):
        fires = channels[hidden.name]
        own = torch.zeros_like(fires)
        if hidden.needed or fires.any():
            width = max(BLOCK, -(-int(fires.sum()) // BLOCK) * BLOCK)
            own[torch.argsort(~fires, stable=True)[:width]] = True
        for conv in convs_of(hidden.layer):
            conv.weight = nn.Parameter(conv.weight[own])
        for owner, name, bias in hidden.biases:
            setattr(owner, name, nn.Parameter(bias[..., own]))
        for reader, first in hidden.readers:
            inputs = kept.setdefault(reader, torch.ones(reader.weight.shape[1], dtype=torch.bool))
            inputs[first : first + len(own)] = own
    for conv, inputs in kept.items():
        conv.weight = nn.Parameter(conv.weight[:, inputs])
    for prior in result.sets:
        prior.parent = prior.trunk.carry.weight.shape[1]
        net = prior.dequantiser
        if net.join is not None and not len(net.join.bias):
            net.join, net.rest = None, nn.ModuleList()
            net.last.convs = net.last.convs[1:]
    return result
