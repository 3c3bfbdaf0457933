"""RGB <-> Y, Cg, Co: three lifting steps and, for lossy streams, a fourth; exact on integers.

Source: H. Malvar and G. Sullivan, "YCoCg-R: A Color Space with RGB Reversibility and Low Dynamic Range",
JVT-I014r3, 2003. Halves are rounded down. Channels are ordered blue, green, red on the RGB side, so that with the
gate at 0 the layer is the identity: the same graph then serves the levels below the first.

The fourth step makes Y the mean of the three colours (nearly: LEAN is a sixth), so that what an error in Y and one in
Cg add to the picture is orthogonal, and neither has to make up for the other.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from service.codec.lattice import LEAN_256THS

Rounding = Callable[[Tensor], Tensor]

LEAN = LEAN_256THS / 256
"""How much of Cg is taken from Y in lossy streams."""


def forward(bgr: Tensor, gate: Tensor, lean: Tensor, floor: Rounding) -> Tensor:
    """bgr [N, 3, H, W] -> Y, Cg, Co of the same shape.

    gate [N, 1, 1, 1] is 1, or 0 for the identity; lean [N, 1, 1, 1] is LEAN, or 0 for three steps only.
    """
    b, g, r = bgr.split(1, 1)
    co = r - gate * b
    t = b + floor(gate * co * 0.5)
    cg = g - gate * t
    return torch.cat([t + floor(gate * cg * 0.5) - floor(lean * cg), cg, co], 1)


def inverse(ycc: Tensor, gate: Tensor, lean: Tensor, floor: Rounding) -> Tensor:
    """Undo `forward`."""
    y, cg, co = ycc.split(1, 1)
    t = y + floor(lean * cg) - floor(gate * cg * 0.5)
    b = t - floor(gate * co * 0.5)
    return torch.cat([b, cg + gate * t, co + gate * b], 1)
