"""Channels that never fire -> left out: a smaller model that computes what the trained one does.

Training leaves channels behind that are 0 whatever a picture holds; whole layers end that way. Here a model codes
pictures at all kinds of qualities, and what stayed 0 throughout is taken out before it is exported. The checkpoint
keeps it: what is trained is not made smaller (`wake` begins it anew).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

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
        carry: What else is added to them, places of a 2x2 cell one after the other: four outputs a channel.
    """

    name: str
    layer: Layer
    readers: Readers
    needed: bool = True
    carry: ExactConv | None = None

    @property
    def kernels(self) -> list[tuple[ExactConv, int]]:
        """What gives its channels, and how many outputs each of them has there; the first reads bytes if any does."""
        return [(conv, 1) for conv in convs_of(self.layer)] + ([(self.carry, 4)] if self.carry else [])

    @property
    def biases(self) -> list[tuple[nn.Module, str, nn.Parameter]]:
        """What is added to its channels, these last, and where it lives."""
        owner = self.layer.table if isinstance(self.layer, ExactSum) else self.layer
        return [(owner, name, own) for name, own in owner.named_parameters(recurse=False)]


def convs_of(layer: Layer) -> list[ExactConv]:
    """The convolutions of a layer; the first reads bytes if any does."""
    return layer.terms if isinstance(layer, ExactSum) else [layer.conv]


def rows_of(channels: Tensor, outputs: int) -> Tensor:
    """Where the outputs of channels are in a kernel that has several for each; channels: numbers or a mask."""
    if channels.dtype == torch.bool:
        return channels.repeat_interleave(outputs)
    return (channels[:, None] * outputs + torch.arange(outputs)).flatten()


def hidden_layers(model: CodecModel) -> list[Hidden]:
    """All of them, each before those that read it."""
    names = {layer: name for name, layer in model.named_modules()}
    result: list[Hidden] = []

    def chain(layers: Sequence[Layer], last: Readers) -> None:
        """Layers that read one another, and who reads the last."""
        readers = [[(convs_of(after)[0], 0)] for after in layers[1:]] + [last]
        result.extend(Hidden(names[own], own, read) for own, read in zip(layers, readers, strict=True))

    for index in reversed(range(len(model.sets))):
        prior, coarsest = model.sets[index], index == len(model.sets) - 1
        finer = [other.trunk.carry for other in model.sets[max(0, index - 1) : index + coarsest]]
        trunk, net, width = prior.trunk, prior.dequantiser, prior.trunk.width
        read: Readers = [(head.first.terms[0], 0) for head in prior.heads] + [(carry, 0) for carry in finer]
        joined: Readers = [(carry, width) for carry in finer]
        if net.refiner is not None:
            read.append((net.refiner.first.terms[0], 0))
            joined.append((net.refiner.first.terms[0], width))
        read.append((net.first.terms[0], 0))
        if net.join is not None:
            read.append((net.join.conv, 0))
            joined.append((net.last.terms[0], 0))
        after: Readers = [(trunk.layers[0].conv, 0)] if trunk.layers else read
        result.append(Hidden(names[trunk.first], trunk.first, after, carry=trunk.carry))
        chain(trunk.layers, read)
        if net.join is not None:
            chain([net.first, *net.layers], [(net.join.conv, width)])
            result.append(Hidden(names[net.join], net.join, joined, needed=net.refiner is None))
        if net.refiner is not None:
            chain([net.refiner.first, *net.refiner.layers], [(net.last.terms[-1], 0)])
        for head in prior.heads:
            chain([head.first, head.second], [(head.last.terms[0], 0)])
    return result


def watch(model: CodecModel, see: Callable[[str, Tensor], None]) -> list[RemovableHandle]:
    """Call `see` with the name of each hidden layer and what it gives, [N, outputs, H, W], whenever it is run."""
    hooks = []
    for hidden in hidden_layers(model):

        def given(_: nn.Module, __: object, output: Tensor, name: str = hidden.name) -> None:
            see(name, output)

        def read(_: nn.Module, inputs: tuple[Tensor, ...], name: str = hidden.name) -> None:
            see(name, inputs[0])

        if isinstance(hidden.layer, ByteLayer):
            hooks.append(hidden.layer.register_forward_hook(given))
        else:  # clipped outside of the layer, and read only once
            hooks.append(hidden.readers[0][0].register_forward_pre_hook(read))
    return hooks


@torch.no_grad()
def fired(model: CodecModel, pictures: Sequence[Picture]) -> Fired:
    """Code pictures of any size, one after the other, and see which channels fire."""
    seen: Fired = {}

    def see(name: str, output: Tensor) -> None:
        fires = output.amax((0, 2, 3)) > 0
        seen[name] = seen.get(name, fires) | fires

    code_all(model, pictures, watch(model, see))
    return seen


@torch.no_grad()
def code_all(model: CodecModel, pictures: Sequence[Picture], hooks: Sequence[RemovableHandle]) -> None:
    """Code pictures of any size, one after the other, at CODES in turn, for hooks that are removed then."""
    unit = 2 << model.config.levels
    for number, picture in enumerate(pictures):
        code, (rows, columns) = CODES[number % len(CODES)], (-side % unit for side in picture.shape[:2])
        padded = np.pad(picture, ((0, rows), (0, columns), (0, 0)), "edge")
        model(to_tensor(padded[None]), torch.tensor([code]), code == LOSSLESS_POSITION)
    for hook in hooks:
        hook.remove()


def compacted(model: CodecModel, channels: Fired) -> CodecModel:
    """A copy without the channels that never fired, widths rounded up to whole blocks.

    What a dequantiser joins is left out as a whole if none of it fires and offsets have a refiner.
    """
    kept = {}
    for hidden in hidden_layers(model):
        fires = channels[hidden.name]
        own = torch.zeros_like(fires)
        if hidden.needed or fires.any():
            width = max(BLOCK, -(-int(fires.sum()) // BLOCK) * BLOCK)
            own[torch.argsort(~fires, stable=True)[:width]] = True
        kept[hidden.name] = own
    return cut(model, kept)


@torch.no_grad()
def cut(model: CodecModel, kept: Fired) -> CodecModel:
    """A copy with these channels of each hidden layer and no others; it knows which of the whole model's they are."""
    result = copy.deepcopy(model)
    inputs: dict[ExactConv, Tensor] = {}
    for hidden in hidden_layers(result):
        own = kept[hidden.name]
        for conv, outputs in hidden.kernels:
            conv.weight = nn.Parameter(conv.weight[rows_of(own, outputs)])
        for owner, name, bias in hidden.biases:
            setattr(owner, name, nn.Parameter(bias[..., own]))
        for reader, first in hidden.readers:
            read = inputs.setdefault(reader, torch.ones(reader.weight.shape[1], dtype=torch.bool))
            read[first : first + len(own)] = own
        whole = model.kept.get(hidden.name, torch.ones_like(own)).clone()
        whole[whole.clone()] = own
        result.kept[hidden.name] = whole
    for conv, read in inputs.items():
        conv.weight = nn.Parameter(conv.weight[:, read])
    for prior in result.sets:
        prior.parent = prior.trunk.carry.weight.shape[1]
        net = prior.dequantiser
        if net.join is not None and not len(net.join.bias):
            net.join, net.rest = None, nn.ModuleList()
            net.last.convs = net.last.convs[1:]
    result.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs miss this form
    return result
