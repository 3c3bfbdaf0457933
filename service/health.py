"""What the probes answer, from cached state: starting -> ready -> draining, or failed for good.

A service is ready once every model has reproduced its golden streams to the byte, which warms its graphs up as well.
"""

from __future__ import annotations

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

    @property
    def state(self) -> State:
        """The current state."""
        return self._state

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
