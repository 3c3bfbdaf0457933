"""Files and folders -> what is to be done, and a journal of what is done, so that a broken-off run can go on.

The journal is a file of JSON lines in each output folder. A line is written before its output appears; an output counts
as done if a line names it with the same input, the same options and the digest the file really has.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

JOURNAL = ".bijou-remote.jsonl"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"})
STREAM_SUFFIXES = frozenset({".bij"})


class PlanError(ValueError):
    """Inputs and outputs do not fit together; the text says how to change them."""


@dataclass(frozen=True)
class Task:
    """One input file and where its result goes."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Order:
    """What to do with every input.

    Attributes:
        op: encode, re-encode or decode.
        options: Query options by name.
        force: Overwrite outputs that were not made by a run like this one.
        quiet: Say nothing but errors.
    """

    op: Literal["encode", "re-encode", "decode"]
    options: dict[str, Any]
    force: bool
    quiet: bool

    @property
    def asked(self) -> str:
        """The order as the journal notes it."""
        return json.dumps([self.op, self.options], sort_keys=True)


def plan(
    places: Iterable[str], output: str | None, suffix: str, kinds: frozenset[str], keep_suffix: bool
) -> list[Task]:
    """Files to read and to write, by name.

    Args:
        places: Files, whatever their names, and folders, searched for files of the kinds.
        output: Folder (existing, or ending in a slash) that mirrors the inputs, or one file; None: beside the input.
        suffix: Of results, without its dot.
        kinds: Suffixes of files taken from folders, in lower case.
        keep_suffix: `a.png` gives `a.png.bij`, not `a.bij`.

    Raises:
        PlanError: There is nothing to do, or two inputs would be written to the same file.
    """
    found = [(Path(place), file) for place in places for file in _files(Path(place), kinds)]
    if not found:
        raise PlanError(f"no file of these kinds was found: {', '.join(sorted(kinds))}")
    to_folder = output is None or output.endswith(os.sep) or Path(output).is_dir()
    if not to_folder and (len(found) > 1 or found[0][0].is_dir()):
        raise PlanError("--output has to be a folder for several inputs; end it with a slash")
    tasks = []
    for place, file in found:
        name = f"{file.name if keep_suffix else file.stem}.{suffix}"
        if output is None:
            target = file.with_name(name)
        elif to_folder:
            target = Path(output) / (file.parent.relative_to(place) if place.is_dir() else "") / name
        else:
            target = Path(output)
        tasks.append(Task(file, target))
    by_target: dict[Path, Path] = {}
    for task in tasks:
        first = by_target.setdefault(task.target, task.source)
        if first != task.source:
            raise PlanError(f"{first} and {task.source} would both be written to {task.target}; give --keep-suffix")
    return [Task(source, target) for target, source in by_target.items()]


def _files(place: Path, kinds: frozenset[str]) -> list[Path]:
    if not place.is_dir():
        return [place]
    return sorted(p for p in place.rglob("*") if p.suffix.lower() in kinds and p.is_file() and p.name[0] != ".")


class Journal:
    """What was done in one output folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL
        self._done: dict[str, dict[str, object]] = {}
        if self._path.exists():
            for line in self._path.read_text("utf-8", errors="replace").splitlines():
                try:
                    entry = json.loads(line)
                    self._done[entry["output"]] = entry
                except (ValueError, KeyError, TypeError):
                    continue  # a line cut short by a crash: its output is made again

    def holds(self, task: Task, asked: str) -> bool:
        """Whether the output is there, whole, and what would be made now."""
        entry = self._done.get(task.target.name)
        if entry is None or not task.target.is_file():
            return False
        expected = self._entry(task, asked, hashlib.sha256(task.target.read_bytes()).hexdigest())
        return entry == expected

    def write(self, task: Task, asked: str, sha256: str) -> None:
        """Note a result; call it before the output appears."""
        entry = self._entry(task, asked, sha256)
        self._done[task.target.name] = entry
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # The line starts with its own line end, so that it survives a cut-off line before it.
        with self._path.open("ab") as file:
            file.write(f"\n{json.dumps(entry)}".encode())

    def may_replace(self, task: Task, asked: str) -> bool:
        """Whether the output, if it is there, was made with the same options: then it is damaged or out of date."""
        return self._done.get(task.target.name, {}).get("asked") == asked

    @staticmethod
    def _entry(task: Task, asked: str, sha256: str) -> dict[str, object]:
        facts = task.source.stat()
        return {
            "output": task.target.name,
            "input_bytes": facts.st_size,
            "input_time_ns": facts.st_mtime_ns,
            "asked": asked,
            "sha256": sha256,
        }
