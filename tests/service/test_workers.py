"""workers: jobs never run on the event loop, and a stopped one never begins."""

from __future__ import annotations

import asyncio
import threading

import pytest

from service.cancellation import Cancellation, StoppedError
from service.workers import CodecWorkers

PATIENCE_S = 30.0


def test_jobs_run_in_threads_and_errors_pass_through():
    async def scenario() -> None:
        workers = CodecWorkers(workers=1)
        done = await workers.run(threading.current_thread, Cancellation())
        assert done.value is not threading.main_thread()
        assert done.queue_s >= 0
        with pytest.raises(ZeroDivisionError):
            await workers.run(lambda: 1 // 0, Cancellation())
        workers.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("reason", ["deadline", "disconnect", "drain"])
def test_a_job_stopped_before_a_thread_takes_it_never_begins(reason):
    async def scenario() -> None:
        workers, opened, ran = CodecWorkers(workers=1), threading.Event(), []
        blocking = asyncio.create_task(workers.run(lambda: opened.wait(PATIENCE_S), Cancellation()))
        token = Cancellation()
        waiting = asyncio.create_task(workers.run(lambda: ran.append(1), token))
        await asyncio.sleep(0.01)
        token.cancel(reason)
        with pytest.raises(StoppedError) as stopped:
            await asyncio.wait_for(waiting, PATIENCE_S)
        assert (stopped.value.reason, stopped.value.stage) == (reason, "pool")
        assert not blocking.done(), "the thread was still busy"
        with pytest.raises(StoppedError):
            await workers.run(lambda: ran.append(2), token)
        opened.set()
        assert (await blocking).value
        assert not ran
        workers.close()

    asyncio.run(scenario())


def test_a_job_whose_deadline_passes_while_it_waits_never_begins():
    async def scenario() -> None:
        workers, opened, ran = CodecWorkers(workers=1), threading.Event(), []
        blocking = asyncio.create_task(workers.run(lambda: opened.wait(PATIENCE_S), Cancellation()))
        waiting = asyncio.create_task(workers.run(lambda: ran.append(1), Cancellation(0.01)))
        await asyncio.sleep(0.05)
        opened.set()
        await blocking
        with pytest.raises(StoppedError) as stopped:
            await waiting
        assert (stopped.value.reason, stopped.value.stage, ran) == ("deadline", "pool", [])
        workers.close()

    asyncio.run(scenario())


def test_a_running_job_is_waited_for():
    async def scenario() -> None:
        workers, opened, began = CodecWorkers(workers=1), threading.Event(), threading.Event()

        def job() -> str:
            began.set()
            assert opened.wait(PATIENCE_S)
            return "done"

        token = Cancellation()
        running = asyncio.create_task(workers.run(job, token))
        assert await asyncio.to_thread(began.wait, PATIENCE_S)
        token.cancel("disconnect")
        await asyncio.sleep(0.01)
        assert not running.done()
        opened.set()
        assert (await running).value == "done"
        workers.close()

    asyncio.run(scenario())
