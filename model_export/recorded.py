"""Gradients by replay: a GPU records a pass forward and back once, as a CUDA graph, and then repeats it.

A pass has some fifteen thousand small kernels; starting them one by one takes longer than computing them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

REHEARSALS = 3
"""Passes before one is recorded, in which libraries choose their kernels."""


class Recorded:
    """Loss of a batch, and its gradients in the parameters' own, for each kind of batch recorded when it first comes.

    Args:
        parameters: What is trained; they and their gradients stay where they are from here on.
        loss: Loss of pictures, [N, 3, H, W], lossless or not. Nothing in it may wait for the GPU.
    """

    def __init__(self, parameters: list[nn.Parameter], loss: Callable[[Tensor, bool], Tensor]) -> None:
        self.loss = loss
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)
        self.gradients = [p.grad for p in parameters if p.grad is not None]
        self.pool = torch.cuda.graph_pool_handle()
        self.kept: dict[tuple[torch.Size, bool], tuple[torch.cuda.CUDAGraph, Tensor, Tensor]] = {}

    def __call__(self, pictures: Tensor, lossless: bool) -> Tensor:
        """Loss of a batch, [N, 3, H, W]; its value is overwritten by the next one's."""
        kind = pictures.shape, lossless
        if kind not in self.kept:
            self.kept[kind] = self._record(pictures, lossless)
        graph, read, loss = self.kept[kind]
        read.copy_(pictures)
        graph.replay()
        return loss

    def _record(self, pictures: Tensor, lossless: bool) -> tuple[torch.cuda.CUDAGraph, Tensor, Tensor]:
        read, aside = pictures.clone(), torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(REHEARSALS):
                self._pass(read, lossless)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool):
            loss = self._pass(read, lossless)
        return graph, read, loss

    def _pass(self, pictures: Tensor, lossless: bool) -> Tensor:
        torch._foreach_zero_(self.gradients)
        loss = self.loss(pictures, lossless)
        loss.backward()
        return loss.detach()
