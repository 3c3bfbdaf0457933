"""Planes <-> low-pass and nine detail channels: trainable lifting, rows then columns.

The taps are parameters per level, axis and luma/chroma, started at CDF 9/7 and moved slowly (TAP_SPEED).
"""

import torch
from torch import Tensor, nn

from model_export.flow import lifting
from model_export.flow.colour import Rounding
from model_export.integers import Exactable, round_through

TAP_SPEED = 0.03
"""Scale of the stored tap offsets: the optimiser moves taps this much slower than other parameters."""


class Wavelet(Exactable):
    """One level of a separable lifting wavelet.

    Args:
        levels: Number of levels, each with its own taps.
    """

    start: Tensor
    limits: Tensor
    scale: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.offsets = nn.Parameter(torch.zeros(levels, 2, 4, 2))
        start = torch.tensor(lifting.TAPS) - torch.tensor(lifting.WHOLE)
        self.register_buffer("start", start.view(1, 1, 4, 1), persistent=False)
        limits = torch.tensor([float(limit) for limit in lifting.FRACTION_LIMITS])
        self.register_buffer("limits", limits.view(1, 1, 4, 1), persistent=False)
        bits = torch.tensor([float(b) for b in lifting.FRACTION_BITS])
        self.register_buffer("scale", torch.exp2(bits).view(1, 1, 4, 1), persistent=False)

    def tables(self) -> tuple[Tensor, Tensor | None]:
        """Coarse and fine fractions of the taps, [levels, 2 axes, 4 steps, luma and chroma]; float mode has no fine."""
        fraction = self.start + TAP_SPEED * self.offsets
        if not self.exact:
            return fraction, None
        coarse = round_through(torch.clamp(fraction * self.scale, -self.limits, self.limits)) / self.scale
        finer = self.scale * 2.0**lifting.FINE_BITS
        rest = (fraction - coarse) * finer
        return coarse, round_through(
            rest.clamp(-(2.0 ** (lifting.FINE_BITS - 1)), 2.0 ** (lifting.FINE_BITS - 1))
        ) / finer

    def fractions(self, level: Tensor) -> list[list[lifting.Fraction]]:
        """level: one-hot [N, levels] -> for each axis the four fractions, [N, 3, 1, 1]."""

        def chosen(table: Tensor) -> Tensor:
            values = (level @ table.flatten(1)).view(-1, 2, 4, 2)
            return torch.cat([values, values[..., 1:]], -1)[..., None, None]

        coarse, fine = self.tables()
        first, second = chosen(coarse), None if fine is None else chosen(fine)
        return [
            [(first[:, axis, step], None if second is None else second[:, axis, step]) for step in range(4)]
            for axis in range(2)
        ]

    def forward(self, x: Tensor, level: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
        """x [N, 3, H, W], sides even -> low [N, 3, H/2, W/2], details [N, 9, H/2, W/2] (LH, HL, HH)."""
        rows, columns = self.fractions(level)
        low, high = lifting.forward(x, 2, rows, rounding)
        ll, lh = lifting.forward(low, 3, columns, rounding)
        hl, hh = lifting.forward(high, 3, columns, rounding)
        return ll, torch.cat([lh, hl, hh], 1)

    def inverse(self, ll: Tensor, details: Tensor, level: Tensor, rounding: Rounding) -> Tensor:
        """Undo `forward`."""
        rows, columns = self.fractions(level)
        lh, hl, hh = details.chunk(3, 1)
        low = lifting.inverse(ll, lh, 3, columns, rounding)
        high = lifting.inverse(hl, hh, 3, columns, rounding)
        return lifting.inverse(low, high, 2, rows, rounding)
