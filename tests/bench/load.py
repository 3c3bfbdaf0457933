"""Load on a service of this machine: throughput beside the bare library, then twice as much as it can do.

    python -m tests.bench.load [--seconds 60] [--out load.md]

    library     the mix of requests by plain calls, one after the other: what each kind costs
    closed      a few clients that wait for their answers: what the service sustains
    open        arrivals at `--factor` times that rate, at random moments, whatever the answers: the overload

Throughputs are in requests of the whole mix a second: an answer counts by what its kind costs the library, so that
the kinds that happen to be served do not matter. The generator runs beside the service and takes part of the same
cores, so the figures are a lower bound. It stops after `--seconds` or `--most` requests, and never calls anything but
loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from model_export.provenance import provenance
from model_export.report import bullets, table
from service import codec
from service.operations import Codec
from tests.bench.load_client import Sample, Target, fetch, target_of
from tests.bench.load_mix import Job, jobs_of
from tests.e2e.process import running

MEBIBYTE = 2**20
TIMEOUT_S = 60.0
HEALTH_EVERY_S, MEMORY_EVERY_S = 0.1, 0.5
HEALTH_BOUND_S, FLAT_BYTES = 0.05, 64 * MEBIBYTE
MORE = 0.9
"""Share of the library's throughput the service has to reach."""


@dataclass
class Run:
    """What a phase saw.

    Attributes:
        seconds: How long it took.
        samples: Its requests.
        health: Its probes.
        resident_bytes: Memory of the server now and then; empty if it is not ours.
    """

    seconds: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    health: list[Sample] = field(default_factory=list)
    resident_bytes: list[int] = field(default_factory=list)

    def times(self, *statuses: int) -> list[float]:
        """Seconds of the requests with these answers."""
        return [s.seconds for s in self.samples if s.status in statuses]

    @property
    def library_share(self) -> float:
        """Work of the good answers a second, as a share of what the library does in a second."""
        return sum(sample.cost_s for sample in self.samples if sample.status == 200) / self.seconds


def library(jobs: Sequence[Job], seconds: float) -> list[float]:
    """Seconds each job costs by plain calls: the mean over whole rounds of the mix, after one that does not count."""
    for job in jobs:
        job.call()
    spent, rounds, begun = [0.0] * len(jobs), 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for index, job in enumerate(jobs):
            started = time.perf_counter()
            job.call()
            spent[index] += time.perf_counter() - started
        rounds += 1
    return [total / rounds for total in spent]


Costed = Sequence[tuple[Job, float]]


async def closed(target: Target, jobs: Costed, clients: int, seconds: float) -> Run:
    """So many clients, each waiting for its answer before it asks again."""
    run, mix, begun = Run(), itertools.cycle(jobs), time.perf_counter()

    async def client() -> None:
        while time.perf_counter() - begun < seconds:
            job, cost_s = next(mix)
            run.samples.append(await fetch(target, "POST", job.path, job.body, TIMEOUT_S, cost_s))

    await asyncio.gather(*(client() for _ in range(clients)))
    run.seconds = time.perf_counter() - begun
    return run


async def open_loop(
    target: Target, jobs: Costed, rate: float, seconds: float, most: int, resident: Callable[[], int] | None
) -> Run:
    """Arrivals at random moments, `rate` a second on average, whether or not earlier ones have been answered."""
    run, mix, begun = Run(), itertools.cycle(jobs), time.perf_counter()
    draw = random.Random(7)
    watching = [asyncio.create_task(_probe(target, run))]
    if resident is not None:
        watching.append(asyncio.create_task(_weigh(resident, run)))
    tasks: list[asyncio.Task[None]] = []

    async def one(job: Job, cost_s: float) -> None:
        run.samples.append(await fetch(target, "POST", job.path, job.body, TIMEOUT_S, cost_s))

    due_s = 0.0
    while due_s < seconds and len(tasks) < most:
        await asyncio.sleep(max(0.0, begun + due_s - time.perf_counter()))
        tasks.append(asyncio.create_task(one(*next(mix))))
        due_s += draw.expovariate(rate)
    await asyncio.gather(*tasks)
    run.seconds = time.perf_counter() - begun
    for task in watching:
        task.cancel()
    return run


async def _probe(target: Target, run: Run) -> None:
    while True:
        run.health.append(await fetch(target, "GET", "/healthz/ready", b"", TIMEOUT_S, 0.0))
        await asyncio.sleep(HEALTH_EVERY_S)


async def _weigh(resident: Callable[[], int], run: Run) -> None:
    while True:
        run.resident_bytes.append(resident())
        await asyncio.sleep(MEMORY_EVERY_S)


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which this share lies; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def rows_of(name: str, run: Run) -> list[tuple[str, ...]]:
    """One row for good answers and one for each kind of refusal."""
    counts = Counter(sample.status for sample in run.samples)
    return [
        (
            name,
            "no answer" if status == 0 else str(status),
            str(count),
            f"{count / run.seconds:.1f}",
            *(f"{quantile(run.times(status), share) * 1000:.1f}" for share in (0.5, 0.99)),
            f"{max(run.times(status)) * 1000:.1f}",
        )
        for status, count in sorted(counts.items())
    ]


def verdicts(calm: Run, flood: Run, deadline_s: float) -> dict[str, bool]:
    """What issue and contract ask for -> whether this run shows it."""
    refused = [s for s in flood.samples if s.status == 503]
    memory = flood.resident_bytes
    settled = memory[len(memory) // 4 :]
    found = {
        f"the service reaches {MORE:.0%} of the library's throughput": calm.library_share >= MORE,
        "every request is answered, with 200 or 503": {s.status for s in flood.samples} <= {200, 503},
        "every refusal says when to come again": bool(refused) and all(s.retry_after for s in refused),
        "half of the refusals come within 50 ms": quantile([s.seconds for s in refused], 0.5) < HEALTH_BOUND_S,
        "accepted requests stay below the deadline": quantile(flood.times(200), 0.99) < deadline_s,
        f"99 % of the probes are answered within {HEALTH_BOUND_S * 1000:.0f} ms": (
            quantile([s.seconds for s in flood.health], 0.99) < HEALTH_BOUND_S
            and {s.status for s in flood.health} == {200}
        ),
    }
    if settled:
        found["memory stays flat after the first quarter"] = max(settled) - settled[0] < FLAT_BYTES
    return found


def report(options: argparse.Namespace, bare: float, calm: Run, flood: Run) -> str:
    """All figures as Markdown."""
    probes = [s.seconds * 1000 for s in flood.health]
    memory = [size / MEBIBYTE for size in flood.resident_bytes] or [0.0]
    facts = {
        "library": f"{bare:.1f} requests/s",
        "service, closed loop": f"{calm.library_share * bare:.1f} requests/s, {calm.library_share:.1%} of the library",
        "service, overload": f"{flood.library_share * bare:.1f} requests/s answered with 200",
        "probes": f"{len(probes)}, median {statistics.median(probes):.1f} ms, "
        f"99 % {quantile(probes, 0.99):.1f} ms, most {max(probes):.1f} ms",
        "resident memory": f"begin {memory[0]:.0f} MiB, end {memory[-1]:.0f} MiB, most {max(memory):.0f} MiB",
    }
    shown = {name: "yes" if good else "NO" for name, good in verdicts(calm, flood, options.deadline_s).items()}
    header = ("phase", "answer", "requests", "a second", "median ms", "99 % ms", "most ms")
    parts = (
        bullets(provenance("tests.bench.load", sys.argv[1:])),
        bullets(facts),
        table(header, [*rows_of("closed", calm), *rows_of("open", flood)]),
        bullets(shown),
    )
    return "\n".join(parts)


async def measure(
    target: Target, jobs: Costed, options: argparse.Namespace, resident: Callable[[], int] | None
) -> tuple[Run, Run]:
    """The closed phase, which warms up first, and the overload."""
    await closed(target, jobs, options.clients, options.closed_seconds / 4)
    calm = await closed(target, jobs, options.clients, options.closed_seconds)
    rate = calm.library_share * len(jobs) / sum(cost_s for _, cost_s in jobs) * options.factor
    return calm, await open_loop(target, jobs, rate, options.seconds, options.most, resident)


def main() -> int:
    """Exit code 0 if the run shows everything it should, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="length of the overload")
    parser.add_argument("--closed-seconds", type=float, default=15, help="length of the library and closed phases")
    parser.add_argument("--factor", type=float, default=2.0, help="overload, times the sustained rate")
    parser.add_argument("--most", type=int, default=20_000, help="most requests of the overload")
    parser.add_argument("--clients", type=int, default=16, help="of the closed phase")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a graph, library and service alike")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="cpu")
    parser.add_argument("--deadline-s", type=float, default=30.0, help="of the service")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another setting of the service"
    )
    parser.add_argument("--url", help="measure this loopback server instead of starting one")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    runtime = codec.RuntimeOptions(device=options.device, threads=options.threads)
    jobs = jobs_of(Codec(codec.shipped_models(runtime), codec.Limits()))
    costs = library(jobs, options.closed_seconds)
    bare, costed = len(jobs) / sum(costs), list(zip(jobs, costs, strict=True))
    if options.url:
        calm, flood = asyncio.run(measure(target_of(options.url), costed, options, None))
    else:
        settings = {
            "device": options.device,
            "device_threads": options.threads,
            "request_deadline_s": options.deadline_s,
            "log_level": "warning",
            **dict(pair.split("=", 1) for pair in options.set),
        }
        with tempfile.TemporaryDirectory() as folder, running(Path(folder), **settings) as server:
            target = Target("127.0.0.1", server.port)
            calm, flood = asyncio.run(measure(target, costed, options, server.resident_bytes))
    text = report(options, bare, calm, flood)
    print(text)
    if options.out:
        options.out.write_text(text)
    return 0 if all(verdicts(calm, flood, options.deadline_s).values()) else 1


if __name__ == "__main__":
    sys.exit(main())
