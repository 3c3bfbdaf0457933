"""Folder names and URIs <-> files: listing, reading, and writing that is whole or not at all.

A name with a scheme is pyarrow's (file, s3, gs, hdfs, ...) or else fsspec's; anything else is a local folder.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import fsspec
import pyarrow
from pyarrow import fs

from service.atomic import PART_PREFIX, whole_file
from service.bulk.manifest import FileFacts

WHOLE_UPLOADS = frozenset({"s3", "gcs", "abfs"})
"""Stores in which an object appears once its upload has ended; elsewhere a part is written and renamed."""


class Place:
    """A folder or prefix.

    Args:
        name: Path or URI.

    Attributes:
        is_local: Whether it is on this machine.
    """

    def __init__(self, name: str) -> None:
        self._files, self._base = _open(name)
        self.is_local = isinstance(self._files, fs.LocalFileSystem)
        self.name = name

    def list(self) -> dict[str, FileFacts]:
        """Relative name -> facts of every file below, but for hidden ones; nothing if the folder does not exist."""
        found = self._files.get_file_info(fs.FileSelector(self._base, recursive=True, allow_not_found=True))
        facts = {}
        for info in found:
            name = PurePosixPath(info.path).relative_to(self._base)
            if info.type == fs.FileType.File and not any(part.startswith(".") for part in name.parts):
                facts[str(name)] = FileFacts(info.size or 0, info.mtime_ns or 0)
        return facts

    def read(self, name: str) -> bytes:
        """All of a file. Raises OSError."""
        with self._files.open_input_stream(self._path(name)) as file:
            data: bytes = file.read()
        return data

    def write(self, name: str, data: bytes) -> None:
        """Make a file appear whole, over an older one. Raises OSError."""
        path = self._path(name)
        if self.is_local:
            with whole_file(Path(path)) as part:
                part.write(data)
        elif self._files.type_name in WHOLE_UPLOADS:
            self._write(path, data)
        else:
            self._files.create_dir(str(PurePosixPath(path).parent), recursive=True)
            part_path = str(PurePosixPath(path).with_name(PART_PREFIX + PurePosixPath(path).name))
            self._write(part_path, data)
            self._files.move(part_path, path)

    def _write(self, path: str, data: bytes) -> None:
        with self._files.open_output_stream(path) as file:
            file.write(data)

    def _path(self, name: str) -> str:
        return str(PurePosixPath(self._base) / name)


def _open(name: str) -> tuple[fs.FileSystem, str]:
    if "://" not in name:
        return fs.LocalFileSystem(), str(Path(name).resolve())
    try:
        files, path = fs.FileSystem.from_uri(name)
    except pyarrow.ArrowInvalid:
        found, path = fsspec.core.url_to_fs(name)
        files = fs.PyFileSystem(fs.FSSpecHandler(found))
    return files, path.rstrip("/")
