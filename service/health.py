"""What the probes answer, from cached state: starting -> ready -> draining, or failed.

A service is ready once every model has reproduced its golden streams to the byte, which warms its graphs up as well.
A failed golden check is for good; a failing device makes a ready service failed for as long as it fails.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from service import codec


class State(StrEnum):
    """Where the service is in its life."""

    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"
    DRAINING = "draining"


class Health:
    """The state, changed from the event loop and read by the probes."""

    def __init__(self) -> None:
        self._state = State.STARTING
        self._failure: Callable[[], str | None] = lambda: None

    @property
    def state(self) -> State:
        """The current state."""
        return State.FAILED if self._state is State.READY and self._failure() else self._state

    @property
    def started(self) -> bool:
        """Whether the golden check has passed, whatever came later."""
        return self._state in (State.READY, State.DRAINING)

    def follow(self, failure: Callable[[], str | None]) -> None:
        """Count as failed while this returns a reason; it is called for every probe and has to be quick."""
        self._failure = failure

    def checked(self, passed: bool) -> None:
        """Record the golden check; draining is never left again."""
        if self._state is State.STARTING:
            self._state = State.READY if passed else State.FAILED

    def drain(self) -> None:
        """Turn readiness off for good; safe to call from a signal handler."""
        self._state = State.DRAINING


def check_models(models: codec.ModelSet) -> None:
    """Golden check of every model; takes a while, so it belongs in a worker thread.

    Raises:
        GoldenCheckError: A model does not reproduce its streams.
    """
    for model in models:
        codec.golden_check(model)
