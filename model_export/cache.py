"""Figures <-> a folder of JSON lines, one file per codec.

A run that was interrupted goes on where it stopped, and another codec can be added to a finished run. Every figure is
on disk as soon as it is known; a line that was cut short is measured again.
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any


class Cache:
    """Figures by key, in memory and (if a folder is given) on disk. Safe to use from several threads."""

    def __init__(self, folder: Path | None) -> None:
        """Read what the folder holds; a line cut short by an interruption counts as not there."""
        self._folder = folder
        self._known: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        for path in sorted(folder.glob("*.jsonl")) if folder else ():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    entry = json.loads(line)
                    self._known[json.dumps(entry["key"])] = entry["figures"]
                except (ValueError, KeyError, TypeError):
                    continue

    def get(self, key: list[Any]) -> dict[str, Any] | None:
        """Figures under this key, or None."""
        return self._known.get(json.dumps(key))

    def put(self, codec: str, key: list[Any], picture: str, figures: dict[str, Any]) -> None:
        """Keep figures; on disk at once, in `<codec>.jsonl`."""
        with self._lock:
            self._known[json.dumps(key)] = figures
            if self._folder is None:
                return
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{codec}.jsonl"
            torn = path.exists() and not path.read_bytes().endswith(b"\n")
            with path.open("a", encoding="utf-8") as file:
                line = json.dumps({"key": key, "picture": picture, "figures": figures})
                file.write(("\n" if torn else "") + line + "\n")
