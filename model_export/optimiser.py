"""Muon for kernels of hidden layers, Adam for everything else, the kernels of output layers included.

Under Muon, which moves every kernel as far whatever its gradient, outputs of which little can be foretold drown in
noise: dequantisers whose output layers it trained learned nothing at all.

Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration, from the source."""
OUTPUT = ".last."
"""What occurs in the names of output layers."""


def orthogonalise(matrix: Tensor, narrow: bool = False) -> Tensor:
    """Five Newton-Schulz steps towards the nearest orthogonal matrix, [..., rows, columns]; narrow: in bfloat16."""
    a, b, c = NEWTON_SCHULZ
    x = matrix / (matrix.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    x = x.bfloat16() if narrow else x
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else x.mT
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.mT).to(matrix.dtype)


class Muon:
    """Orthogonalised momentum for kernels of hidden layers, Adam for the rest.

    Args:
        named: What is trained, by name; output layers by OUTPUT.
        rate: Muon's step.
        adam_rate: Adam's step.
        momentum: Muon's momentum.
        narrow: Whether steps are orthogonalised in bfloat16, as its source does: faster where convolutions are.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        rate: float = 0.02,
        adam_rate: float = 0.002,
        momentum: float = 0.95,
        narrow: bool = False,
    ) -> None:
        kernels: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for name, p in named:
            hidden = p.ndim == 4 and p[0].numel() > 1 and p.shape[0] > 1 and OUTPUT not in f".{name}"
            (kernels if hidden else others).append(p)
        self.kernels = kernels
        self.adam = torch.optim.Adam(others, adam_rate)
        self.velocity = [torch.zeros_like(p) for p in self.kernels]
        self.rate, self.adam_rate, self.momentum, self.narrow = rate, adam_rate, momentum, narrow

    @torch.no_grad()
    def step(self, factor: float) -> None:
        """Take one step; factor scales both rates."""
        for group in self.adam.param_groups:
            group["lr"] = self.adam_rate * factor
        self.adam.step()
        alike: dict[torch.Size, list[tuple[nn.Parameter, Tensor]]] = {}
        for parameter, velocity in zip(self.kernels, self.velocity, strict=True):
            if parameter.grad is not None:
                alike.setdefault(parameter.shape, []).append((parameter, velocity))
        for shape, pairs in alike.items():  # together: a GPU is as fast with many as with one
            gradient = torch.stack([cast("Tensor", parameter.grad) for parameter, _ in pairs]).flatten(2)
            velocity = torch.stack([own for _, own in pairs]).flatten(2) * self.momentum + gradient
            update = orthogonalise(gradient + self.momentum * velocity, self.narrow)
            aspect = max(1.0, shape[0] / shape[1:].numel()) ** 0.5
            for (parameter, own), moved, kept in zip(pairs, update, velocity, strict=True):
                own.copy_(kept.view(shape))
                parameter.sub_(moved.view(shape), alpha=self.rate * factor * aspect)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"adam": self.adam.state_dict(), "velocity": self.velocity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.adam.load_state_dict(state["adam"])
        for velocity, saved in zip(self.velocity, state["velocity"], strict=True):
            velocity.copy_(saved)
