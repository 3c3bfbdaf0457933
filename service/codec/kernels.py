"""Do this processor's 8-bit kernels add up exactly? A trial, made once for every model that is opened.

A layer of bytes (`y`) and a sum of products as it is (`z`); of one sample a processor may have a kernel of its own.

Processors without dot products of bytes (AVX2 without VNNI) add neighbouring products in 16 bits, where two of
255 * 127 overflow and are cut off. The trial's weights come in such pairs; a kernel that gets it wrong is not used.
"""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.codec.arrays import Bytes8, Integers

CHANNELS = 64
SHIFT = 10
SIDE = 12


def weights() -> NDArray[np.int64]:
    """The trial's weights, [out, in, 3, 3]: half of the channels at random, half in pairs that overflow 16 bits."""
    rng = np.random.default_rng(1)
    kernel = rng.integers(-127, 128, (CHANNELS, CHANNELS, 3, 3))
    kernel[::2] = np.where(np.arange(CHANNELS) % 4 < 2, 127, -127)[:, None, None]
    return kernel


def biases() -> NDArray[np.int64]:
    """The trial's biases, [out]: sums that come out right lie well inside a byte after SHIFT."""
    return np.full(CHANNELS, 100 << SHIFT)


def inputs() -> tuple[Bytes8, Bytes8]:
    """Large bytes, and bytes of any size, [2, in, SIDE, SIDE]; and one window of them, [1, in, 3, 3]."""
    rng = np.random.default_rng(2)
    many = np.stack([rng.integers(low, 256, (CHANNELS, SIDE, SIDE)) for low in (200, 0)]).astype(np.uint8)
    return many, many[:1, :, :3, :3].copy()


def _expected(given: Bytes8) -> dict[str, Integers | Bytes8]:
    windows = np.lib.stride_tricks.sliding_window_view(given.astype(np.int64), (3, 3), (2, 3))
    sums = np.einsum("ncyxij,ocij->noyx", windows, weights(), optimize=True) + biases()[:, None, None]
    layer = np.clip(np.rint(sums / 2.0**SHIFT), 0, 255).astype(np.uint8)
    products = np.einsum("ncyx,oc->noyx", windows[..., 1, 1], weights()[:, :, 1, 1]).astype(np.int32)
    return {"y": layer, "z": products}


def adds_up(trial: ort.InferenceSession) -> bool:
    """Whether the trial's graph gives the integers it must; models of before have no products as they are."""
    names = [output.name for output in trial.get_outputs()]
    for given in inputs():
        expected = _expected(given)
        found = trial.run(names, {"x": given})
        if not all(np.array_equal(expected[name], own) for name, own in zip(names, found, strict=True)):
            return False
    return True
