"""Bytes, path or open file -> a body that can be sent more than once."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

CHUNK_BYTES = 2**16

Source = bytes | os.PathLike[str] | IO[bytes]
"""What can be sent. An open file has to be seekable: it is sent from where it stands, and again after a failure."""


@dataclass(frozen=True)
class Body:
    """A request body.

    Attributes:
        source: Where the bytes come from.
        start: Where an open file stood.
        total_bytes: How many there are.
    """

    source: Source
    start: int
    total_bytes: int

    @classmethod
    def of(cls, source: Source) -> Body:
        """Measure a source.

        Raises:
            OSError: The file cannot be read or is not seekable.
        """
        if isinstance(source, bytes):
            return cls(source, 0, len(source))
        if isinstance(source, os.PathLike):
            return cls(source, 0, Path(source).stat().st_size)
        start = source.tell()
        end = source.seek(0, io.SEEK_END)
        source.seek(start)
        return cls(source, start, end - start)

    def chunks(self) -> Iterator[bytes]:
        """The bytes from the beginning, in pieces."""
        if isinstance(self.source, bytes):
            yield from _pieces(io.BytesIO(self.source))
        elif isinstance(self.source, os.PathLike):
            with Path(self.source).open("rb") as file:
                yield from _pieces(file)
        else:
            self.source.seek(self.start)
            yield from _pieces(self.source)


def _pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(CHUNK_BYTES):
        yield piece
