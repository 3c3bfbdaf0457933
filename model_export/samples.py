"""Folders and files -> the pictures an evaluation is made on, each known by its digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from model_export.data import SUFFIXES, NoPicturesError
from model_export.peers import Pixels


@dataclass(frozen=True)
class Sample:
    """A picture file: where it is, its name in reports and the SHA-256 of its bytes."""

    path: Path
    name: str
    digest: str

    def pixels(self) -> Pixels:
        """Decode the file: RGB, [H, W, 3]."""
        with Image.open(self.path) as image:
            return np.asarray(image.convert("RGB"))


def find_samples(places: Iterable[Path]) -> list[Sample]:
    """Picture files of folders (searched through) and single files, by name.

    Raises:
        NoPicturesError: There are none.
    """
    paths: list[Path] = []
    for place in places:
        found = sorted(place.rglob("*")) if place.is_dir() else [place]
        paths += [p for p in found if p.suffix.lower() in SUFFIXES and p.is_file()]
    if not paths:
        raise NoPicturesError("no picture found; give folders or files of PNG, WebP, JPEG, TIFF or BMP")
    return [Sample(p, p.stem, hashlib.sha256(p.read_bytes()).hexdigest()) for p in paths]
