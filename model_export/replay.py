"""Refiners trained on what dequantisers met: the codec runs once, they learn from that several times.

Nothing else reads what a refiner gives, so what it reads and what it is to foretell stay as they are while it learns.
A step then costs a fifth of one through the whole codec.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from model_export.integers import BYTE_BITS
from model_export.model import CodecModel, Seen
from model_export.quantiser import spread, within_bin

KEPT = 96
"""Batches that are kept, the newest."""
USES = 8
"""Steps for each batch that is met."""
UNITS = 2.0**BYTE_BITS


class Met:
    """What a dequantiser met, in few bytes.

    Args:
        seen: It.
    """

    def __init__(self, seen: Seen) -> None:
        self.level, self.condition, self.outward, self.weight = seen.level, seen.condition, seen.outward, seen.weight
        self.parent = torch.round(seen.parent * UNITS).to(torch.uint8)
        self.planes, self.signs = seen.planes.half(), torch.sign(seen.bins).to(torch.int8)
        self.left = (seen.value - seen.bins).half()

    def squared_error(self, model: CodecModel) -> Tensor:
        """What the offsets of the model's dequantiser leave, in squared grey levels of the picture, [N]."""
        offset = model.prior(self.level).dequantiser.offsets(
            self.parent.float() / UNITS, self.planes.float(), self.condition
        )
        error = self.left.float() - within_bin(self.signs.float(), offset, self.outward)
        return (self.weight * error.square()).flatten(1).sum(1)


class Replay:
    """Losses of dequantisers' offsets on batches met before.

    Args:
        model: The codec as it was when training began; it is put in exact mode.
        batches: Pictures, [N, 3, H, W].
        levels: Those that are trained, all to the coarsest.
        rng: Which kept batch comes next.
    """

    def __init__(self, model: CodecModel, batches: Iterator[Tensor], levels: range, rng: np.random.Generator) -> None:
        self.model, self.batches, self.levels, self.rng = model.eval(), batches, levels, rng
        model.set_exact(True)
        self.kept: list[list[tuple[Met, Tensor]]] = []
        self.uses = 0

    @torch.no_grad()
    def _meet(self) -> None:
        seen: list[Seen] = []
        self.model.observer = seen.append
        pictures = next(self.batches).to(next(self.model.parameters()).device).float()
        self.model(pictures, spread(len(pictures), pictures.device), finest=self.levels[0])
        met = [Met(one) for one in seen if one.level in self.levels]
        self.kept.append([(one, one.squared_error(self.model)) for one in met])
        del self.kept[:-KEPT]

    def loss(self, model: CodecModel) -> Tensor:
        """Share of the squared error that is left by the model's dequantisers, over all levels, mean of a batch."""
        if self.uses % USES == 0:
            self._meet()
        self.uses += 1
        chosen = self.kept[int(self.rng.integers(len(self.kept)))]
        before = torch.stack([error for _, error in chosen]).sum(0)
        after = torch.stack([met.squared_error(model) for met, _ in chosen]).sum(0)
        return (after / before).mean()
