"""Planes <-> low-pass and nine detail channels: trainable lifting, rows then columns.

The taps are parameters per lattice, level, axis and luma/chroma, started at CDF 9/7 (lossy) and 5/3 (lossless) and
moved slowly (TAP_SPEED). A rung is a level on one of the lattices: all lossy ones, then all lossless ones.
"""

import torch
from torch import Tensor, nn

from model_export.flow import lifting
from model_export.flow.colour import Rounding
from model_export.integers import Exactable, round_through

TAP_SPEED = 0.03
"""Scale of the stored tap offsets: the optimiser moves taps this much slower than other parameters."""


def significant(fraction: Tensor) -> Tensor:
    """A fraction of at most SIGNIFICANT_BITS significant bits; gradients pass as if it were not rounded."""
    _, exponent = torch.frexp(fraction.detach())
    unit = torch.exp2((exponent - lifting.SIGNIFICANT_BITS).to(fraction.dtype))
    return round_through(fraction / unit) * unit


class Wavelet(Exactable):
    """One level of a separable lifting wavelet.

    Args:
        levels: Number of levels, each with its own taps on each lattice.
    """

    start: Tensor
    whole: Tensor
    limits: Tensor
    scale: Tensor
    fine: Tensor

    def __init__(self, levels: int) -> None:
        super().__init__()
        rungs = [lattice for lattice in lifting.LATTICES for _ in range(levels)]
        self.offsets = nn.Parameter(torch.zeros(len(rungs), 2, 4, 2))
        bits = torch.tensor([float(b) for b in lifting.FRACTION_BITS])
        for name, values in (
            ("start", [[tap - whole for tap, whole in zip(r.taps, r.whole, strict=True)] for r in rungs]),
            ("whole", [r.whole for r in rungs]),
            ("limits", [r.limits for r in rungs]),
            ("fine", [[r.fine] * 4 for r in rungs]),
            ("scale", torch.exp2(bits).expand(len(rungs), 4).tolist()),
        ):
            table = torch.tensor(values, dtype=torch.float32).view(-1, 1, 4, 1)
            self.register_buffer(name, table, persistent=False)

    def tables(self) -> tuple[Tensor, Tensor | None]:
        """Coarse and fine fractions of the taps, [rungs, 2 axes, 4 steps, luma and chroma]; float mode has no fine."""
        fraction = self.start + TAP_SPEED * self.offsets
        fraction = torch.where(self.fine > 0, fraction, significant(fraction))
        if not self.exact:
            return fraction, None
        coarse = round_through(torch.clamp(fraction * self.scale, -self.limits, self.limits)) / self.scale
        coarse = torch.where(self.fine > 0, coarse, fraction)
        finer = self.scale * 2.0**lifting.FINE_BITS
        rest = (fraction - coarse) * finer
        return coarse, round_through(
            rest.clamp(-(2.0 ** (lifting.FINE_BITS - 1)), 2.0 ** (lifting.FINE_BITS - 1))
        ) / finer

    def taps(self, rung: Tensor) -> list[list[lifting.Tap]]:
        """rung: one-hot [N, rungs] -> for each axis the four taps, their parts [N, 3, 1, 1] and [N, 1, 1, 1]."""

        def chosen(table: Tensor) -> Tensor:
            values = (rung @ table.flatten(1)).view(-1, 2, 4, 2)
            return torch.cat([values, values[..., 1:]], -1)[..., None, None]

        coarse, fine = self.tables()
        first, second = chosen(coarse), None if fine is None else chosen(fine)
        whole = (rung @ self.whole[:, 0, :, 0])[:, :, None, None, None]
        return [
            [
                (
                    first[:, axis, step],
                    None if second is None else second[:, axis, step],
                    whole[:, step] if self.has_whole(step) else None,
                )
                for step in range(4)
            ]
            for axis in range(2)
        ]

    @staticmethod
    def has_whole(step: int) -> bool:
        """Whether a step's tap has an integer part on any lattice."""
        return any(lattice.whole[step] for lattice in lifting.LATTICES)

    def forward(self, x: Tensor, rung: Tensor, rounding: Rounding) -> tuple[Tensor, Tensor]:
        """x [N, 3, H, W], sides even -> low [N, 3, H/2, W/2], details [N, 9, H/2, W/2] (LH, HL, HH)."""
        rows, columns = self.taps(rung)
        low, high = lifting.forward(x, 2, rows, rounding)
        ll, lh = lifting.forward(low, 3, columns, rounding)
        hl, hh = lifting.forward(high, 3, columns, rounding)
        return ll, torch.cat([lh, hl, hh], 1)

    def inverse(self, ll: Tensor, details: Tensor, rung: Tensor, rounding: Rounding) -> Tensor:
        """Undo `forward`."""
        rows, columns = self.taps(rung)
        lh, hl, hh = details.chunk(3, 1)
        low = lifting.inverse(ll, lh, 3, columns, rounding)
        high = lifting.inverse(hl, hh, 3, columns, rounding)
        return lifting.inverse(low, high, 2, rows, rounding)
