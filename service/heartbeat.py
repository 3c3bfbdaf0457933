"""The event loop's own clock: how late it runs, and what has to be looked at every second."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

BEAT_S = 0.25
KEPT_BEATS = 60
"""The worst of so many beats, 15 s, is shown: what happens between two scrapes is not lost."""
BEATS_PER_LOOK = 4


class Heartbeat:
    """Measures how late timers of the event loop fire.

    Args:
        look: Called every second, on the loop; has to be quick.
    """

    def __init__(self, look: Callable[[], None]) -> None:
        self._look = look
        self._lags_s: deque[float] = deque([0.0], maxlen=KEPT_BEATS)

    def worst_lag_s(self) -> float:
        """The longest delay of the last 15 seconds."""
        return max(self._lags_s.copy())

    async def beat(self) -> None:
        """Beat until cancelled."""
        loop, beats = asyncio.get_running_loop(), 0
        while True:
            due = loop.time() + BEAT_S
            await asyncio.sleep(BEAT_S)
            self._lags_s.append(max(0.0, loop.time() - due))
            beats += 1
            if beats % BEATS_PER_LOOK == 0:
                self._look()
