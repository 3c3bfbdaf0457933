"""Training in several processes at once: `torchrun --nproc-per-node 2 -m -- model_export train ...`.

Each process takes its own crops and its gradients are averaged with those of the others before every step. On a CPU two
processes of one thread are as fast as one of two, and slowed less by other work: they wait for each other once a step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn


class Team:
    """The processes of one run: this one alone unless `torchrun` started it."""

    def __init__(self) -> None:
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Meet the others; part from them at the end."""
        if self.size > 1:
            dist.init_process_group("gloo")
        try:
            yield
        finally:
            if self.size > 1:
                dist.destroy_process_group()

    def averaged(self, parameters: Sequence[nn.Parameter], number: float) -> float:
        """Average gradients over all processes, in place, and a number; one that nobody has stays None."""
        if self.size == 1:
            return number
        parts = [(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters]
        whole = torch.cat([*parts, parts[0].new_tensor([number])])
        dist.all_reduce(whole)
        *parts, mean = (whole / self.size).split([*(len(part) for part in parts), 1])
        for p, part in zip(parameters, parts, strict=True):
            p.grad = part.view_as(p) if part.any() else None
        return float(mean)
