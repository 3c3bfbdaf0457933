"""Channels that were left out -> there again, for training to make use of: `python -m model_export regrow`.

What is left of a smaller model (`silent`, `prune`) is put back where it was in one of all channels its sizes say. The
others begin as those of a new model do, and nobody reads them at first: the model computes what it did.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model_export.integers import ExactConv
from model_export.model import CodecModel
from model_export.prune import set_of
from model_export.silent import cut, hidden_layers, rows_of
from service.codec.artifact import PRIORS

log = logging.getLogger(__name__)


@torch.no_grad()
def regrown(model: CodecModel, sets: Sequence[str] = PRIORS) -> CodecModel:
    """A copy with all channels of the hidden layers that are left in some sets of priors, out of PRIORS.

    Layers that were left out as a whole stay out. Weights of the channels more are drawn from torch's generator.
    """
    if not model.kept:
        return copy.deepcopy(model)
    left = {hidden.name for hidden in hidden_layers(model)}
    kept = {
        name: torch.ones_like(own) if name in left and set_of(name) in sets else own for name, own in model.kept.items()
    }
    result = cut(CodecModel(model.config), kept)
    rows: dict[nn.Module, Tensor] = {}
    columns: dict[nn.Module, Tensor] = {}
    added = 0
    for hidden in hidden_layers(result):
        own = model.kept[hidden.name][kept[hidden.name]]
        added += int((~own).sum())
        for conv, outputs in hidden.kernels:
            rows[conv] = rows_of(own, outputs)
        for owner, _, _ in hidden.biases:
            rows[owner] = own
        for reader, first in hidden.readers:
            read = columns.setdefault(reader, torch.ones(reader.weight.shape[1], dtype=torch.bool))
            read[first : first + len(own)] = own
    given = dict(model.named_modules())
    for name, module in result.named_modules():
        for part, weight in module.named_parameters(recurse=False):
            was = given[name].get_parameter(part)
            if isinstance(module, ExactConv):
                own = rows.get(module, torch.ones(len(weight), dtype=torch.bool))
                read = columns.get(module, torch.ones(weight.shape[1], dtype=torch.bool))
                weight[own] = 0
                weight[own.nonzero(), read.nonzero()[:, 0]] = was
            else:
                weight[..., rows.get(module, slice(None))] = was
        for part, value in module.named_buffers(recurse=False):
            value.copy_(given[name].get_buffer(part))
    log.info("%d channels more", added)
    return result
