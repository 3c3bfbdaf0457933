"""Bytes -> a file that appears under its name once it is whole, or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

PART_PREFIX = ".bijou-"
"""What the names of unfinished files start with; a crash may leave one behind."""


@contextmanager
def whole_file(target: Path) -> Iterator[IO[bytes]]:
    """Write a file beside its final place and rename it when the block ends well.

    Args:
        target: Where the file is to appear; its folder is made. An older file is replaced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    umask = os.umask(0)
    os.umask(umask)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=PART_PREFIX, delete=False) as part:
        try:
            yield part
            part.close()
            Path(part.name).chmod(0o666 & ~umask)  # temporary files are private; a result is an ordinary file
            Path(part.name).replace(target)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise
