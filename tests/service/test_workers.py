"""The bounded pool: slots are never lost, jobs never run on the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from service.problems import QueueFullError
from service.workers import CodecWorkers


def test_jobs_run_in_threads_and_errors_pass_through():
    async def scenario() -> None:
        workers = CodecWorkers(workers=1, slots=1)
        with workers.slot() as slot:
            done = await slot.run(threading.current_thread)
        assert done.value is not threading.main_thread()
        assert done.queue_s >= 0
        with pytest.raises(ZeroDivisionError), workers.slot() as slot:
            await slot.run(lambda: 1 // 0)
        assert workers.taken == 0
        workers.close()

    asyncio.run(scenario())


def test_no_more_slots_than_allowed():
    async def scenario() -> None:
        workers = CodecWorkers(workers=1, slots=2)
        with workers.slot(), workers.slot():
            with pytest.raises(QueueFullError) as refused:
                workers.slot()
            assert refused.value.retry_after_s >= 1
        assert workers.taken == 0
        workers.close()

    asyncio.run(scenario())


def test_a_slot_left_early_is_given_back_when_its_thread_ends():
    async def scenario() -> None:
        workers, opened = CodecWorkers(workers=1, slots=1), threading.Event()
        with workers.slot() as slot, pytest.raises(TimeoutError):
            await asyncio.wait_for(slot.run(lambda: opened.wait(30)), 0.01)
        assert workers.taken == 1
        opened.set()
        while workers.taken:  # noqa: ASYNC110  the pool has no event to wait for
            await asyncio.sleep(0.001)
        workers.close()

    asyncio.run(scenario())
