"""drivers: whatever a step does, its request gets an answer and the next one is served."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import pytest

from service import codec, execution
from service.batcher import Bounds, FullError
from service.cancellation import Cancellation, StoppedError
from service.codec.clock import Clock
from service.codec.steps import Analyse
from service.drivers import STUCK_S, Device, bounds_of

PATIENCE_S = 30.0


@dataclass(frozen=True, eq=False)
class Double(codec.Step[int]):
    """2 * number, or what `act` does; `ran` logs the numbers of each batch."""

    op: ClassVar[str] = "double"
    number: int
    ran: list[list[int]] = field(default_factory=list)
    act: Callable[[], object] | None = None
    key: Hashable = "key"
    pixels: int = 10

    @classmethod
    def together(cls, steps: Sequence[Self], clock: Clock) -> list[int]:
        steps[0].ran.append([step.number for step in steps])
        with clock.room("flow"):
            for step in steps:
                if step.act is not None:
                    step.act()
        return [2 * step.number for step in steps]


class Bench:
    """A device with one driver, and pool threads that wait for their steps."""

    def __init__(self, waiting: int = 16, observe: Callable[[str, str, int, int], None] | None = None) -> None:
        bounds = Bounds(items=8, pixels=1000, delay_s=0.005, slots=1, drivers=1, waiting=waiting)
        self.seen: list[tuple[str, str, int, int]] = []
        self.device = Device(bounds, observe or (lambda *batch: self.seen.append(batch)), clock=self.clock)
        self.pool = ThreadPoolExecutor(16)
        self.opened = threading.Event()
        self.ahead_s = 0.0

    def clock(self) -> float:
        return time.monotonic() + self.ahead_s

    def run(self, step: Double, cancel: Cancellation | None = None) -> Future[int]:
        runner = self.device.runner(cancel or Cancellation(clock=self.clock))
        return self.pool.submit(runner.run, step, Clock())

    def block(self) -> Future[int]:
        """Keep the driver busy until `opened`."""
        started = threading.Event()

        def wait() -> None:
            started.set()
            assert self.opened.wait(PATIENCE_S)

        blocked = self.run(Double(0, act=wait))
        assert started.wait(PATIENCE_S)
        return blocked

    def until_waiting(self, count: int) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while sum(w.requests for w in self.device.waiting().values()) != count:
            assert time.monotonic() < deadline
            time.sleep(0.001)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.opened.set()
    bench.device.close()
    bench.pool.shutdown()


def fail(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def test_what_waits_runs_together_in_order_and_is_told_apart(bench):
    blocked, clocks = bench.block(), [Clock() for _ in range(5)]
    ran: list[list[int]] = []
    done = []
    for number, clock in enumerate(clocks):
        runner = bench.device.runner(Cancellation())
        done.append(bench.pool.submit(runner.run, Double(number, ran), clock))
        bench.until_waiting(number + 1)
    assert bench.device.waiting()["double"].pixels == 50
    bench.opened.set()
    assert [d.result(PATIENCE_S) for d in done] == [0, 2, 4, 6, 8]
    assert blocked.result(PATIENCE_S) == 0
    assert ran == [[0, 1, 2, 3, 4]]
    assert bench.seen == [("double", "idle", 1, 10), ("double", "idle", 5, 50)]
    assert all(set(clock.seconds) == {"flow", "queue"} and clock.seconds["queue"] > 0 for clock in clocks)


def test_a_bad_step_fails_alone(bench):
    bench.block()
    ran: list[list[int]] = []
    done = []
    for number in range(4):
        act = fail(codec.CorruptStreamError("bad")) if number == 2 else None
        done.append(bench.run(Double(number, ran, act)))
        bench.until_waiting(number + 1)
    bench.opened.set()
    assert [done[i].result(PATIENCE_S) for i in (0, 1, 3)] == [0, 2, 6]
    with pytest.raises(codec.CorruptStreamError):
        done[2].result(PATIENCE_S)
    assert ran == [[0, 1, 2, 3], [0], [1], [2], [3]]
    assert [reason for _, reason, _, _ in bench.seen] == ["idle", "idle", *["retry"] * 4]
    assert bench.device.failure is None


def test_a_step_cancelled_while_its_batch_is_retried_does_not_run(bench):
    bench.block()
    ran: list[list[int]] = []
    token, first = Cancellation(), threading.Event()

    def cancel_the_other() -> None:
        if first.is_set():
            token.cancel("disconnect")
        first.set()
        raise codec.CorruptStreamError("bad")

    bad = bench.run(Double(1, ran, cancel_the_other))
    bench.until_waiting(1)
    other = bench.run(Double(2, ran), token)
    bench.until_waiting(2)
    bench.opened.set()
    with pytest.raises(codec.CorruptStreamError):
        bad.result(PATIENCE_S)
    with pytest.raises(StoppedError):
        other.result(PATIENCE_S)
    assert ran == [[1, 2], [1]]


@pytest.mark.parametrize("reason", ["disconnect", "drain"])
def test_a_cancelled_step_leaves_the_queue_at_once_and_never_runs(reason, bench: Bench):
    bench.block()
    token = Cancellation()
    ran: list[list[int]] = []
    waiting = bench.run(Double(1, ran), token)
    bench.until_waiting(1)
    token.cancel(reason)
    with pytest.raises(StoppedError) as stopped:
        waiting.result(PATIENCE_S)
    assert (stopped.value.reason, stopped.value.stage) == (reason, "queue")
    bench.until_waiting(0)
    bench.opened.set()
    assert bench.run(Double(3, ran)).result(PATIENCE_S) == 6
    assert ran == [[3]]


def test_a_step_past_its_deadline_is_refused_though_the_driver_is_busy(bench):
    blocked = bench.block()
    waiting = bench.run(Double(1), Cancellation(0.02))
    with pytest.raises(StoppedError) as stopped:
        waiting.result(PATIENCE_S)
    assert (stopped.value.reason, stopped.value.stage) == ("deadline", "queue")
    assert not blocked.done()


def test_a_stopped_request_stops_at_its_next_step(bench):
    token = Cancellation()
    ran: list[list[int]] = []
    assert bench.run(Double(1, ran), token).result(PATIENCE_S) == 2
    token.cancel("disconnect")
    with pytest.raises(StoppedError) as stopped:
        bench.run(Double(2, ran), token).result(PATIENCE_S)
    assert (stopped.value.reason, stopped.value.stage) == ("disconnect", "step")
    assert ran == [[1]]


def test_a_running_step_is_waited_for(bench):
    token = Cancellation()
    running = threading.Event()

    def act() -> None:
        running.set()
        assert bench.opened.wait(PATIENCE_S)

    step = bench.run(Double(4, act=act), token)
    assert running.wait(PATIENCE_S)
    token.cancel("disconnect")
    assert not step.done()
    bench.opened.set()
    assert step.result(PATIENCE_S) == 8


def test_more_than_may_wait_are_refused_with_a_time():
    bench = Bench(waiting=2)
    bench.block()
    waiting = [bench.run(Double(i)) for i in range(2)]
    bench.until_waiting(2)
    with pytest.raises(FullError) as full:
        bench.run(Double(9)).result(PATIENCE_S)
    assert full.value.retry_after_s >= 1
    bench.opened.set()
    assert [w.result(PATIENCE_S) for w in waiting] == [0, 2]
    bench.device.close()
    bench.pool.shutdown()


def test_closing_refuses_what_waits_and_what_comes(bench):
    blocked = bench.block()
    waiting = bench.run(Double(1))
    bench.until_waiting(1)
    bench.device.close()
    for step in (waiting, bench.run(Double(2))):
        with pytest.raises(StoppedError) as stopped:
            step.result(PATIENCE_S)
        assert stopped.value.reason == "drain"
    bench.opened.set()
    assert blocked.result(PATIENCE_S) == 0
    assert bench.device.failure is not None


def test_a_step_that_ends_its_thread_is_answered_and_the_next_one_served(bench):
    with pytest.raises(codec.DeviceError):
        bench.run(Double(1, act=fail(SystemExit()))).result(PATIENCE_S)
    assert bench.run(Double(2)).result(PATIENCE_S) == 4
    assert bench.device.failure is None


def test_errors_of_the_runtime_make_the_device_fail_until_it_recovers(bench: Bench, models):
    def failure() -> str | None:
        return bench.device.failure

    def fails() -> None:
        planes = np.zeros((1, 5, 16, 16), np.float32)  # the graph takes three channels
        with pytest.raises(codec.DeviceError) as error:
            bench.device.runner(Cancellation()).run(Analyse(models.default, planes, 64), Clock())
        assert type(error.value.__cause__).__module__.startswith("onnxruntime.")

    for _ in range(execution.FAILURES_TO_FAIL):
        assert failure() is None
        fails()
    assert "the device failed" in (failure() or "")
    bench.ahead_s = execution.RECOVERY_S
    assert failure() is None, "it is tried again"
    fails()
    assert failure() is not None, "one more failure is enough then"
    assert bench.run(Double(2)).result(PATIENCE_S) == 4
    assert failure() is None


def test_a_batch_that_never_ends_is_a_failure(bench):
    blocked = bench.block()
    assert bench.device.failure is None
    bench.ahead_s = STUCK_S + 1
    assert "does not end" in (bench.device.failure or "")
    bench.opened.set()
    blocked.result(PATIENCE_S)


def test_statistics_that_fail_fail_no_work():
    bench = Bench(observe=lambda *batch: fail(ValueError("no such label"))())
    assert bench.run(Double(1)).result(PATIENCE_S) == 2
    bench.device.close()
    bench.pool.shutdown()


def test_settings_become_bounds():
    given: dict[str, Any] = {"max_batch_items": 8, "max_batch_delay_ms": 5.0, "waiting": 16}
    auto = bounds_of("cpu", "auto", max_batch_pixels=0, device_drivers=0, **given)
    assert (auto.items, auto.delay_s, auto.waiting, auto.drivers, auto.slots) == (8, 0.005, 16, 2, 1)
    assert auto.pixels < bounds_of("cuda", "auto", max_batch_pixels=0, device_drivers=0, **given).pixels
    assert auto.pixels < bounds_of("cpu", "on", max_batch_pixels=0, device_drivers=0, **given).pixels
    assert bounds_of("cpu", "auto", max_batch_pixels=77, device_drivers=0, **given).pixels == 77
    assert bounds_of("cpu", "off", max_batch_pixels=0, device_drivers=0, **given).items == 1
    one, four = (bounds_of("cpu", "auto", max_batch_pixels=0, device_drivers=n, **given) for n in (1, 4))
    assert (one.slots, one.drivers, four.slots, four.drivers) == (1, 1, 3, 4)
