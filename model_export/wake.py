"""Channels that never fire -> begun anew: behind a cut-off nothing has a gradient, so training alone wakes nothing.

What stayed 0 on training pictures (`silent`) becomes a copy of a channel that fires, with noise, or where a layer has
none, of one that it reads. Nobody reads it at first: the model computes what it did, and learns from there.

Source of the idea: T. Chen et al., "Net2Net: Accelerating Learning via Knowledge Transfer", 2016.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model_export.data import Picture
from model_export.model import CodecModel
from model_export.silent import Hidden, fired, hidden_layers, rows_of

log = logging.getLogger(__name__)

NOISE = 0.5
"""Standard deviation of what is added to copied weights, in that of the weights of channels that fire."""


@torch.no_grad()
def wake(model: CodecModel, pictures: Sequence[Picture]) -> int:
    """Begin anew what fires on none of these pictures; how many channels that were."""
    seen, woken = fired(model, pictures), 0
    for hidden in hidden_layers(model):
        fires = seen[hidden.name]
        dead, alive = (~fires).nonzero()[:, 0], fires.nonzero()[:, 0]
        if len(dead):
            _begin(hidden, dead, alive)
            woken += len(dead)
            log.info("%s: %d of %d channels begin anew", hidden.name, len(dead), len(fires))
    return woken


def _begin(hidden: Hidden, dead: Tensor, alive: Tensor) -> None:
    """Copies with noise, which nobody reads."""
    source = alive[torch.arange(len(dead)) % len(alive)] if len(alive) else None
    for conv, outputs in hidden.kernels:
        noise, into = nn.init.kaiming_normal_(torch.empty_like(conv.weight)), rows_of(dead, outputs)
        if source is None:
            inputs = (conv.weight.shape[1] - conv.weight.shape[0] + into) % conv.weight.shape[1]
            conv.weight[into] = NOISE * noise[into]
            conv.weight[into, inputs, conv.kernel // 2, conv.kernel // 2] += 1
        else:
            usual = conv.weight[rows_of(alive, outputs)].std() / noise.std()
            conv.weight[into] = conv.weight[rows_of(source, outputs)] + NOISE * usual * noise[into]
    for _, _, bias in hidden.biases:
        bias[..., dead] = 0 if source is None else bias[..., source]
    for reader, first in hidden.readers:
        reader.weight[:, first + dead] = 0
