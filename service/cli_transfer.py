"""Tasks + a running service -> files: a few at once, a progress bar, a summary, an exit code.

A file that fails is reported and the rest goes on; only when the service stays away for longer than one file may take
is the rest left, for the same command to be started again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from service.atomic import whole_file
from service.cli_batch import Journal, Order, Task
from service.cli_files import BAD_INPUT, LIMITS, MODEL, OTHER, SERVICE, USAGE
from service.client import (
    AsyncClient,
    ClientError,
    Image,
    ProblemError,
    RefusedError,
    Retries,
    ServerFaultError,
    Stream,
    Transfer,
)

ATTEMPTS = 1000
"""Time, not the number of attempts, decides when to give up on a file."""
SLUG_CODES = {
    "over-limit": LIMITS,
    "body-too-large": LIMITS,
    "target-out-of-reach": LIMITS,
    "bad-option": USAGE,
    "unknown-model": MODEL,
    "model-failure": MODEL,
}
STATUS_CODES = {401: USAGE, 403: USAGE, 413: LIMITS, 400: BAD_INPUT, 415: BAD_INPUT, 422: BAD_INPUT}


@dataclass(frozen=True)
class Remote:
    """The service, and how hard to work it.

    Attributes:
        url: Where it is.
        api_key: Sent as a bearer token.
        jobs: Files in work at once.
        give_up_s: How long to try for one file.
    """

    url: str
    api_key: str | None
    jobs: int
    give_up_s: float


@dataclass
class Tally:
    """What came of a run so far."""

    files: Counter[str] = field(default_factory=Counter)
    read_bytes: Counter[str] = field(default_factory=Counter)
    written_bytes: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    code: int = 0
    gone: bool = False


def transfer(order: Order, tasks: list[Task], remote: Remote) -> int:
    """Do the tasks.

    Returns:
        Exit code of the first failure, 0 if there was none.

    Raises:
        ValueError: The URL is not one of HTTP.
        KeyboardInterrupt: It was interrupted; what is done is journaled.
    """
    console = Console(stderr=True)
    tally, started = Tally(), time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = Progress(*columns, console=console, transient=True, disable=order.quiet or not console.is_terminal)
    try:
        with shown:
            run = _Run(order, remote, shown, shown.add_task(order.op, total=len(tasks)), tally)
            anyio.run(run.all, tasks)
    finally:
        if not order.quiet:
            _summarise(console, tally, len(tasks), time.monotonic() - started)
    return tally.code


class _Run:
    """One run; everything here happens on one event loop."""

    def __init__(self, order: Order, remote: Remote, shown: Progress, bar: TaskID, tally: Tally) -> None:
        self._order, self._remote, self._shown, self._bar, self._tally = order, remote, shown, bar, tally
        self._journals: dict[Path, Journal] = {}

    async def all(self, tasks: list[Task]) -> None:
        """Start the workers; each takes the next task when it is done with one."""
        remote, waiting = self._remote, iter(tasks)
        retries = Retries(attempts=ATTEMPTS, total_s=remote.give_up_s)
        settings = {"api_key": remote.api_key, "retries": retries, "connections": remote.jobs}
        async with AsyncClient(remote.url, **settings) as client, anyio.create_task_group() as group:  # type: ignore[arg-type]
            for _ in range(min(remote.jobs, len(tasks))):
                group.start_soon(self._worker, client, waiting)

    async def _worker(self, client: AsyncClient, waiting: Iterator[Task]) -> None:
        for task in waiting:
            if self._tally.gone:
                return
            try:
                await self._one(client, task)
            except (ClientError, OSError) as error:
                self._failed(task, error)
            self._shown.advance(self._bar)

    async def _one(self, client: AsyncClient, task: Task) -> None:
        journal = self._journal(task.target.parent)
        asked = self._order.asked
        size = task.source.stat().st_size
        if await anyio.to_thread.run_sync(journal.holds, task, asked):
            self._count("done before", size, task.target.stat().st_size)
            return
        if task.target.exists() and not self._order.force and not journal.may_replace(task, asked):
            raise FileExistsError(f"{task.target} exists; give --force to overwrite it")
        result = await self._ask(client, task)
        journal.write(task, asked, result.digest)
        await anyio.to_thread.run_sync(_write, task.target, result.data)
        self._count("done", size, len(result.data))

    async def _ask(self, client: AsyncClient, task: Task) -> Stream | Image:
        options, heard = self._order.options, self._heard
        if self._order.op == "decode":
            return await client.decode(task.source, progress=heard, **options)
        if self._order.op == "encode":
            return await client.encode(task.source, progress=heard, **options)
        return await client.re_encode(task.source, progress=heard, **options)

    def _journal(self, folder: Path) -> Journal:
        if folder not in self._journals:
            self._journals[folder] = Journal(folder)
        return self._journals[folder]

    def _heard(self, step: Transfer) -> None:
        if step.stage == "retry":
            self._tally.retries += 1
            self._shown.update(self._bar, description=f"{self._order.op}, {self._tally.retries} tried again")

    def _count(self, state: str, read_bytes: int, written_bytes: int) -> None:
        self._tally.files[state] += 1
        self._tally.read_bytes[state] += read_bytes
        self._tally.written_bytes[state] += written_bytes

    def _failed(self, task: Task, error: Exception) -> None:
        code = exit_code(error)
        self._tally.files["failed"] += 1
        self._tally.code = self._tally.code or code
        self._tally.gone = self._tally.gone or code == SERVICE
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        line = f"bijou: {task.source}: {' '.join(text.split())}"
        self._shown.console.print(line, markup=False, highlight=False, soft_wrap=True)


def exit_code(error: Exception) -> int:
    """The exit code for what ended a task."""
    if isinstance(error, RefusedError | ServerFaultError) or (
        isinstance(error, ProblemError) and error.slug in SLUG_CODES
    ):
        return SLUG_CODES.get(error.slug, STATUS_CODES.get(error.status, OTHER))
    if isinstance(error, ClientError):
        return SERVICE
    return USAGE if isinstance(error, FileExistsError) else OTHER


def _write(target: Path, data: bytes) -> None:
    with whole_file(target) as file:
        file.write(data)


def _summarise(console: Console, tally: Tally, tasks: int, seconds: float) -> None:
    table = Table(
        "", "files", "in, bytes", "out, bytes", "out : in", title=f"{seconds:.1f} s, {tally.retries} tried again"
    )
    for name in table.columns[1:]:
        name.justify = "right"
    files = Counter(tally.files)
    files["left"] = tasks - files.total()
    for state in ("done", "done before", "failed", "left"):
        if files[state]:
            read, written = tally.read_bytes[state], tally.written_bytes[state]
            ratio = f"{written / read:.3f}" if read else ""
            table.add_row(state, str(files[state]), str(read or ""), str(written or ""), ratio)
    console.print(table)
    if tally.gone and files["left"]:
        console.print("the service stayed away; start the same command again to go on", soft_wrap=True)
