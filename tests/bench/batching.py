"""What batching gives on this machine: requests per second with and without, picture by picture size.

    python -m tests.bench.batching [--threads 1] [--requests 48] [--mixed 1000]

A closed loop of clients encodes and decodes pictures of one size at mixed qualities through the device, as the
service does but without HTTP. Both ways alternate in one run, so that their ratio survives a busy machine. `--mixed`
instead sends so many different requests at once and compares every answer with the library's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from service import codec
from service.cancellation import Cancellation
from service.drivers import Device, bounds_of
from tests.bench.subjects import textured
from tests.service.mixed import wrong_answers

SIZES = ((64, 64), (128, 128), (256, 256), (512, 768))
QUALITIES = (20.0, 40.0, 60.0, 80.0)
CLIENTS = 8
Job = Callable[[codec.TileRunner], object]


@dataclass(frozen=True)
class Way:
    """One way to run: requests per second of wall-clock time and of processor time, and steps in a mean batch."""

    per_wall_s: float
    per_cpu_s: float
    mean_items: float


def measure(jobs: Sequence[Job], device: str, batching: bool, drivers: int) -> Way:
    """Run all jobs by CLIENTS threads."""
    sizes: list[int] = []
    bounds = bounds_of(device, "on" if batching else "off", CLIENTS, 0, 5.0, drivers, CLIENTS)
    running = Device(bounds, observe=lambda op, reason, items, pixels: sizes.append(items))
    begun_wall_s, begun_cpu_s = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(lambda job: job(running.runner(Cancellation())), jobs))
    wall_s, cpu_s = time.perf_counter() - begun_wall_s, time.process_time() - begun_cpu_s
    running.close()
    return Way(len(jobs) / wall_s, len(jobs) / cpu_s, statistics.mean(sizes))


def jobs_of(size: tuple[int, int], count: int, models: codec.ModelSet) -> dict[str, list[Job]]:
    """Encodes and decodes of pictures of one size, each at one of QUALITIES."""
    picture = codec.Picture(textured(*size))
    targets = [codec.Target(quality=QUALITIES[i % len(QUALITIES)]) for i in range(count)]
    streams = [codec.encode(picture, models.default, target).stream for target in targets[: len(QUALITIES)]]

    def encode(target: codec.Target) -> Job:
        return lambda runner: codec.encode(picture, models.default, target, runner=runner)

    def decode(stream: bytes) -> Job:
        return lambda runner: codec.decode(stream, models, runner=runner)

    return {
        "encode": [encode(target) for target in targets],
        "decode": [decode(streams[i % len(streams)]) for i in range(count)],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line a size and operation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of a graph")
    parser.add_argument("--drivers", type=int, default=0, help="driver threads; 0: as the service by default")
    parser.add_argument("--requests", type=int, default=32, help="requests of a 64 x 64 picture; fewer of larger ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mixed", type=int, default=0, help="check so many mixed requests instead")
    o = parser.parse_args(argv)
    models = codec.shipped_models(codec.RuntimeOptions(device=o.device, threads=o.threads))
    if o.mixed:
        wrong, sizes = wrong_answers(models, o.mixed, threads=16)
        print(f"{o.mixed} requests, {len(wrong)} wrong answers; batches by items: {dict(sorted(sizes.items()))}")
        return 1 if wrong else 0
    print(f"{CLIENTS} clients, device {models.default.device}, {o.threads} threads; medians of {o.rounds} rounds")
    print("size      op      requests/s off, on, ratio     requests/CPU-s off, on, ratio    items in a batch")
    for size in SIZES:
        count = max(3 * CLIENTS, o.requests * 64 * 64 // (size[0] * size[1]))
        for op, jobs in jobs_of(size, count, models).items():
            pairs = [[measure(jobs, o.device, on, o.drivers) for on in (False, True)] for _ in range(o.rounds)]
            wall = [statistics.median(pair[i].per_wall_s for pair in pairs) for i in (0, 1)]
            cpu = [statistics.median(pair[i].per_cpu_s for pair in pairs) for i in (0, 1)]
            wall_ratio = statistics.median(on.per_wall_s / off.per_wall_s for off, on in pairs)
            cpu_ratio = statistics.median(on.per_cpu_s / off.per_cpu_s for off, on in pairs)
            items = statistics.mean(on.mean_items for _, on in pairs)
            name = f"{size[1]}x{size[0]}"
            print(
                f"{name:9} {op:7} {wall[0]:8.2f} {wall[1]:8.2f} {wall_ratio:6.2f}      "
                f"{cpu[0]:8.2f} {cpu[1]:8.2f} {cpu_ratio:6.2f}    {items:8.1f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
