"""What a bulk job did, as JSON lines, and what is left to do.

A line says what it is: `job` (one for each start), `file` (one for each result) or `totals` (one for each end). The
last line about an input counts. Lines are appended as results arrive, so a killed run loses none it had heard of.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

Status = Literal["done", "found", "failed"]


@dataclass(frozen=True)
class FileFacts:
    """What a listing says of a file: bytes, and nanoseconds since 1970."""

    size_bytes: int
    changed_ns: int


class OtherJobError(Exception):
    """The manifest is that of a job with other options, models or places."""


@dataclass(frozen=True)
class FileRecord:
    """What became of one input.

    Attributes:
        input: Name below the source.
        output: Name below the destination.
        status: `done`; `found`: an earlier run wrote the output but was killed before it said so; `failed`.
        input_bytes: Size of the input.
        input_changed_ns: Its time of change.
        output_bytes: Size of the output; 0 if it failed.
        sha256: Of the output, hex.
        error: Why it failed.
        seconds: Time in the worker.
        facts: Of a result: model id, quality, pixels, and the rate and PSNR of a stream.
    """

    input: str
    output: str
    status: Status
    input_bytes: int
    input_changed_ns: int
    output_bytes: int = 0
    sha256: str = ""
    error: str = ""
    seconds: float = 0.0
    facts: Mapping[str, Any] | None = None


class Manifest:
    """A manifest file, open for appending; a context manager.

    Args:
        path: The file; made if it does not exist.
        job: What makes two runs the same job.

    Raises:
        OtherJobError: The file belongs to another job.
    """

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        self.records: dict[str, FileRecord] = {}
        self.begun_ns = 0
        for line in _lines(path):
            kind = line.pop("kind")
            if kind == "job":
                self.begun_ns = self.begun_ns or int(line.pop("started_ns"))
                if line["job"] != job:
                    raise OtherJobError(f"{path} is the manifest of another job; name another or delete it")
            elif kind == "file":
                self.records[line["input"]] = FileRecord(**line)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        self._file.write(b"\n" if path.stat().st_size else b"")  # ends a line that a crash cut short
        now = datetime.now(UTC)
        started_ns = int(now.timestamp() * 1e9)
        self.begun_ns = self.begun_ns or started_ns
        self._append("job", {"job": dict(job), "started": now.isoformat(), "started_ns": started_ns})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def holds(self, name: str, source: FileFacts, output: FileFacts | None) -> bool:
        """Whether the input was done, has not changed since, and its output is there in full length."""
        record = self.records.get(name)
        return (
            record is not None
            and output is not None
            and record.status != "failed"
            and (record.input_bytes, record.input_changed_ns) == (source.size_bytes, source.changed_ns)
            and record.output_bytes == output.size_bytes
        )

    def made(self, source: FileFacts, output: FileFacts | None) -> bool:
        """Whether an output can only be this job's: it appeared, whole, since the job began, and after its input."""
        return output is not None and output.changed_ns > max(self.begun_ns, source.changed_ns)

    def add(self, record: FileRecord) -> None:
        """Note a result."""
        self.records[record.input] = record
        self._append("file", asdict(record))

    def totals(self, wall_s: float) -> dict[str, Any]:
        """Note and return what all runs of the job together came to; `wall_s` is that of this run."""
        good = [r for r in self.records.values() if r.status != "failed"]
        totals = {
            "files": len(good),
            "failed": len(self.records) - len(good),
            "input_bytes": sum(r.input_bytes for r in good),
            "output_bytes": sum(r.output_bytes for r in good),
            "pixels": sum((r.facts or {}).get("pixels", 0) for r in good),
            "worker_seconds": round(sum(r.seconds for r in good), 3),
            "wall_seconds": round(wall_s, 3),
        }
        self._append("totals", totals)
        return totals

    def _append(self, kind: str, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({"kind": kind, **values}).encode() + b"\n")
        self._file.flush()


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for text in path.read_bytes().splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # cut short by a crash, or empty; its input is done again or its output found
        yield line
