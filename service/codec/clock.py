"""Where time goes: seconds spent in each room, told to callers for their statistics."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds spent in each room."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @contextmanager
    def room(self, name: str) -> Iterator[None]:
        """Count what happens inside."""
        begun = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - begun
