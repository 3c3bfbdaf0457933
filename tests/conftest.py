"""What tests share: the shipped models, and pictures made on the spot."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from service import codec


@pytest.fixture(scope="session")
def models() -> codec.ModelSet:
    """The models the service ships, on the CPU with one thread."""
    return codec.shipped_models(codec.RuntimeOptions(device="cpu", threads=1))


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """A small picture with slopes, edges and noise, odd in both sides."""
    rows, columns = np.mgrid[0:45, 0:61]
    noise = np.random.default_rng(7).integers(0, 24, (45, 61, 3))
    slopes = np.stack([rows * 4, columns * 3, (rows + columns) * 2], axis=2)
    slopes[10:30, 20:40] = (200, 30, 60)
    return np.clip(slopes + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def png(pixels: np.ndarray) -> bytes:
    """The picture as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()
