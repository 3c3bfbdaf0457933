"""Names for the arrays that pass between rooms."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Number = TypeVar("Number", bound=np.generic)

Bytes8 = NDArray[np.uint8]
"""Pixels, [H, W, 3] red green blue, or one plane [H, W]."""
Floats = NDArray[np.float32]
"""Integers held in float32, as graphs take and give them."""
Integers = NDArray[np.int32]
"""Lattice values or bins."""
Shorts = NDArray[np.int16]
"""What heads say: means in 1/8 bin, scale indices, offsets in 1/256 bin."""
Planes = Floats | Shorts
"""Pixels on the lattice, [1, 3, H, W]: as the flow takes and gives them, or in half the memory."""
