"""Channels that tell least for the time they take -> left out: `python -m model_export prune`.

What a model loses without a channel is estimated by the square of what its loss would change by, to first order, in
each of many crops, if the channel were what it usually is; that mean goes into the biases of what reads it. Whole
blocks go in the order of that loss by the time they take, in several rounds, since what a channel tells depends on
which others are left. The model that comes out is smaller, and is trained on.

Source of the estimate: P. Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model_export.byte_sum import ByteSum
from model_export.data import Picture, batches
from model_export.integers import ByteLayer, ExactConv, ExactSum
from model_export.loss import loss_of, lossless_batch
from model_export.model import CodecModel
from model_export.silent import BLOCK, Hidden, Layer, compacted, hidden_layers, rows_of, watch
from service.codec.artifact import PRIORS

log = logging.getLogger(__name__)

BATCH, SIDE, WIDE_SHARE = 12, 128, 0.4
"""Crops that tell: how many at once, their side, share of batches of wide ones; one batch in three is lossless."""
FLOAT = 3.5
"""What a multiplication of floats takes, in those of bytes."""
SUMMED, READ, CARRIED = 700.0, 90.0, 370.0
"""What a channel takes besides at each sample, where floats are added up, where bytes are read by a layer of floats,
and where they are read by a coarser level's at once, likewise.

All four measured with ONNX Runtime's kernels on a processor with VNNI, finest level, one thread."""


@dataclass(frozen=True)
class Tells:
    """What the channels of a layer tell.

    Attributes:
        loss: Square of what the loss changes by, to first order, if they are what they usually are, [outputs].
        usual: Their mean, [outputs].
    """

    loss: Tensor
    usual: Tensor


Told = dict[str, Tells]
"""Of each hidden layer, by its name."""


def pruned(
    model: CodecModel,
    pictures: list[Picture],
    share: float,
    rounds: int = 6,
    each: int = 50,
    seed: int = 0,
    sets: Sequence[str] = PRIORS,
) -> CodecModel:
    """A copy that takes a share of the time, as far as hidden layers go.

    Args:
        model: Is left as it is.
        pictures: What crops are cut from.
        share: Of the time that the model takes with all channels its sizes say, 0 ... 1.
        rounds: After each, what is left tells anew.
        each: Batches of crops in a round.
        seed: Of crops, qualities and noise.
        sets: Priors whose channels are up for choice, out of PRIORS.
    """
    result = copy.deepcopy(model)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    source = batches(pictures, SIDE, BATCH, rng, WIDE_SHARE)
    for number in range(rounds):
        losses = (functools.partial(one_loss, result, next(source), index % 3 == 2, rng) for index in range(each))
        left = prune(result, told(result, losses), share ** ((number + 1) / rounds), sets)
        log.info("%.3f of the time left", left)
    return compacted(result, {own.name: ~zeroed(own) for own in hidden_layers(result)})


def one_loss(model: CodecModel, batch: Tensor, lossless: bool, rng: np.random.Generator) -> tuple[Tensor, int]:
    """The mean loss of a batch, rate and distortion alone, and its crops."""
    if lossless:
        batch = lossless_batch(batch, rng)
    return loss_of(model, batch.float(), lossless, foretelling=0.0), len(batch)


def set_of(name: str) -> str:
    """Which set of priors a layer is of."""
    return PRIORS[int(name.split(".")[1])]


def samples_of(name: str) -> float:
    """Samples a pixel that a layer is computed at."""
    level = (1 / 4, 1 / 16, 1 / 64, 1 / 192)[PRIORS.index(set_of(name))]
    return level / 4 if "luma" in name or "chroma" in name else level


def alive(weight: Tensor, axis: int) -> int:
    """How many outputs (axis 0) or inputs (1) of a kernel are not zeroed."""
    return int((weight.detach().abs().flatten(2).amax(2).amax(1 - axis) > 0).sum())


def time_of(hidden: Hidden, owners: dict[ExactConv, tuple[str, Layer]], count: Callable[[Tensor, int], int]) -> float:
    """What one channel takes, what reads it included, in multiplications of bytes for a pixel.

    Args:
        hidden: Its layer.
        owners: Of convolutions.
        count: How many outputs (0) or inputs (1) of a kernel are to be computed.
    """
    samples = samples_of(hidden.name)
    own = sum(count(conv.weight, 1) * taps(conv, hidden.layer) for conv, _ in hidden.kernels)
    total = 1.0 + samples * (FLOAT * own + SUMMED if of_floats(hidden.layer) else own)
    for reader, _ in hidden.readers:
        name, layer = owners[reader]
        products = count(reader.weight, 0) * taps(reader, layer)
        if not of_floats(layer):
            total += samples_of(name) * products
        elif isinstance(layer, ExactSum) and reader in layer.terms:
            total += samples_of(name) * (FLOAT * products + READ)
        else:  # a carry is computed at the coarser level's samples
            total += samples * (FLOAT * products + CARRIED)
    return total


def of_floats(layer: Layer) -> bool:
    """Whether a layer is computed with floats where there are 8-bit kernels."""
    return isinstance(layer, ExactSum) and not isinstance(layer, ByteSum)


def taps(conv: ExactConv, layer: Layer) -> int:
    """Places that a convolution of a layer is computed at for each sample: where bins are joined, 3x3 at least."""
    joined = isinstance(layer, ByteSum) and max(term.kernel for term in layer.terms) > 1
    return max(conv.kernel, 3 if joined else 1) ** 2


def zeroed(hidden: Hidden) -> Tensor:
    """Which channels of a layer are nothing any more, [outputs]."""
    kernels = [conv.weight.detach().flatten(1) for conv, outputs in hidden.kernels if outputs == 1]
    return torch.stack([(kernel == 0).all(1) for kernel in kernels]).all(0)


def told(model: CodecModel, losses: Iterable[Callable[[], tuple[Tensor, int]]]) -> Told:
    """What the channels of hidden layers tell.

    Args:
        model: Is run by the losses.
        losses: Each gives the mean loss of a batch and the number of its crops.
    """
    sums: dict[str, list[Tensor]] = defaultdict(list)  # of each batch: gradients, activations times them, activations
    batch: dict[str, list[Tensor]] = defaultdict(list)

    def meet(name: str, output: Tensor) -> None:
        value = output.detach()

        def back(gradient: Tensor) -> None:
            own = gradient.float()
            batch[name].append(torch.stack([own.sum((2, 3)), (own * value).sum((2, 3)), value.float().mean((2, 3))]))

        output.register_hook(back)

    hooks = watch(model, meet)
    for loss in losses:
        mean, crops = loss()
        model.zero_grad()
        mean.backward()
        for name, met in batch.items():
            gradients, products, _ = (torch.stack(met).sum(0) * crops).unbind(0)
            sums[name].append(torch.stack([gradients, products, torch.stack([each[2] for each in met]).mean(0)]))
        batch.clear()
    for hook in hooks:
        hook.remove()
    result = {}
    for name, parts in sums.items():
        gradients, products, values = torch.cat(parts, 1).unbind(0)
        usual = values.mean(0)
        result[name] = Tells((products - usual * gradients).square().mean(0), usual)
    return result


def owners_of(model: CodecModel) -> dict[ExactConv, tuple[str, Layer]]:
    """The layers that convolutions belong to, whose bias is added to what they give, and their names."""
    result: dict[ExactConv, tuple[str, Layer]] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, ByteLayer):
            result[layer.conv] = name, layer
        elif isinstance(layer, ExactSum):
            result |= dict.fromkeys(layer.terms, (name, layer))
    carries = {prior.trunk.carry: prior.trunk.first for prior in model.sets}
    return result | {carry: result[first.terms[0]] for carry, first in carries.items()}


@torch.no_grad()
def prune(model: CodecModel, tells: Told, share: float, sets: Sequence[str] = PRIORS) -> float:
    """Zero blocks of channels of some sets until a share of the time of hidden layers is left; gives what is left."""
    owners, blocks, whole, left = owners_of(model), [], 0.0, 0.0
    for hidden in hidden_layers(model):
        own, takes, before = tells[hidden.name].loss, time_of(hidden, owners, alive), zeroed(hidden)
        order = torch.argsort(own.masked_fill(before, -1.0), descending=True)[: int((~before).sum())]
        whole += time_of(hidden, owners, lambda weight, axis: weight.shape[axis]) * len(own)
        left += takes * len(order)
        parts = order.split(BLOCK)[1 if hidden.needed else 0 :] if set_of(hidden.name) in sets else ()
        blocks += [
            (float(own[part].sum()) / (takes * len(part)), takes * len(part), hidden, part)
            for part in parts
            if len(part)
        ]
    gone: dict[str, int] = {}
    for _, takes, hidden, part in sorted(blocks, key=lambda block: block[0]):
        if left <= share * whole:
            break
        zero(hidden, part, tells[hidden.name].usual[part], owners)
        gone[hidden.name] = gone.get(hidden.name, 0) + len(part)
        left -= takes
    for name, count in gone.items():
        log.info("%s: %d of %d channels left out", name, count, len(tells[name].loss))
    return left / whole


@torch.no_grad()
def zero(hidden: Hidden, channels: Tensor, usual: Tensor, owners: dict[ExactConv, tuple[str, Layer]]) -> None:
    """Channels that are 0 from now on and that nobody reads; what they usually told goes into biases."""
    for conv, outputs in hidden.kernels:
        conv.weight[rows_of(channels, outputs)] = 0
    for _, _, bias in hidden.biases:
        bias[..., channels] = 0
    for reader, first in hidden.readers:
        missing = torch.einsum("oikl,i->o", reader.weight[:, first + channels], usual)
        reader.weight[:, first + channels] = 0
        _, layer = owners[reader]
        if isinstance(layer, ByteLayer):
            layer.bias.add_(missing)
        else:
            layer.table.common.add_(missing.view(len(layer.table.common), -1).mean(1))
