"""Requests a second with one, two and more replicas behind the shipped HAProxy, beside one process without it.

    python -m tests.deploy.throughput --replicas 1 2 3
    python -m tests.deploy.throughput --url http://service:8080     a service that runs already
    python -m tests.deploy.throughput --bulk 200                    the bulk job beside a plain loop

Clients keep every replica busy with requests for the same picture, so that rows differ by what stands behind the
address and by nothing else. Prints a table for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from service import codec, operations
from service.client import Client
from service.operations import Codec
from service.schemas import EncodeOptions
from tests.deploy.names import NameServer
from tests.deploy.processes import ROOT, Replica, balancer, free_port, wait_until

WIDTH, HEIGHT = 768, 512
QUALITY = 40


def main() -> None:
    """Measure what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=20.0, help="of each row")
    parser.add_argument("--clients", type=int, default=0, help="at once; 0: two for each replica")
    parser.add_argument("--url", help="measure this service alone")
    parser.add_argument("--bulk", type=int, default=0, help="pictures; measure the bulk job instead")
    arguments = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, {WIDTH}x{HEIGHT}, quality {QUALITY}, one thread a replica\n")
    if arguments.bulk:
        measure_bulk(arguments.bulk)
        return
    print("| behind the address | clients | encode, requests/s | decode, requests/s |\n| --- | ---: | ---: | ---: |")
    if arguments.url:
        row("the service", arguments.url, arguments.clients or 2, arguments.seconds)
        return
    with replicas(1) as (_, [alone]):
        row("one process, no balancer", alone.url, arguments.clients or 2, arguments.seconds)
    for number in arguments.replicas:
        with replicas(number) as (url, _):
            row(f"HAProxy, replicas: {number}", url, arguments.clients or 2 * number, arguments.seconds)


def row(name: str, url: str, clients: int, seconds: float) -> None:
    """Measure one address and print its line."""
    with Client(url) as client:
        stream = client.encode(picture(), quality=QUALITY).data
    encode_rate = rate(url, clients, seconds, lambda client: client.encode(picture(), quality=QUALITY))
    decode_rate = rate(url, clients, seconds, lambda client: client.decode(stream))
    print(f"| {name} | {clients} | {encode_rate:.2f} | {decode_rate:.2f} |", flush=True)


def rate(url: str, clients: int, seconds: float, ask: Callable[[Client], object]) -> float:
    """Answers a second; clients that have begun when the time is over end, and count with the time they took."""
    done, started = [0] * clients, time.perf_counter()

    def run(index: int) -> None:
        with Client(url) as client:
            while time.perf_counter() - started < seconds:
                ask(client)
                done[index] += 1

    threads = [threading.Thread(target=run, args=(index,)) for index in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - started)


@contextmanager
def replicas(number: int) -> Iterator[tuple[str, list[Replica]]]:
    """Replicas behind a balancer; its address, and them."""
    hosts = [f"127.0.0.{20 + index}" for index in range(number)]
    port = free_port(*hosts)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        names = stack.enter_context(NameServer("bijou", hosts))
        started = [Replica(host, port, folder / f"{host}.log") for host in hosts]
        for replica in started:
            stack.callback(replica.kill)
            replica.start()
        front = stack.enter_context(balancer(names.address, port, folder / "haproxy.log"))
        for replica in started:
            replica.wait_ready()
        wait_until(lambda: len(front.up()) == number, "all replicas are up", 30)
        yield front.url, started


def measure_bulk(number: int) -> None:
    """The bulk job on a local Ray, and one process with one thread that does the same files in a loop."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        for index in range(number):
            (folder / "in" / f"{index:05}.png").write_bytes(picture())
        tools = Codec(codec.shipped_models(codec.RuntimeOptions(device="cpu", threads=1)), codec.Limits())
        started = time.perf_counter()
        for path in sorted((folder / "in").iterdir()):
            body = operations.encode(path.read_bytes(), EncodeOptions(quality=QUALITY), tools).body
            (folder / f"{path.stem}.bij").write_bytes(body)
        loop_s = time.perf_counter() - started
        command = [sys.executable, "-m", "service.bulk", "encode", f"{folder}/in", f"{folder}/out", "--quiet"]
        options = ["--quality", str(QUALITY), "--manifest", f"{folder}/manifest"]
        subprocess.run([*command, *options], cwd=ROOT, check=True, env=os.environ | {"BIJOU_DEVICE": "cpu"})
        totals = json.loads((folder / "manifest").read_text().splitlines()[-1])
        same = all((folder / f"{p.stem}.bij").read_bytes() == p.read_bytes() for p in (folder / "out").glob("*.bij"))
    print("| | pictures | s | pictures/s |\n| --- | ---: | ---: | ---: |")
    print(f"| plain loop, one thread | {number} | {loop_s:.1f} | {number / loop_s:.2f} |")
    wall_s = totals["wall_seconds"]
    print(f"| bulk, start of Ray included | {totals['files']} | {wall_s:.1f} | {totals['files'] / wall_s:.2f} |")
    print(f"\nsame bytes: {same}; seconds in workers: {totals['worker_seconds']:.1f}")


@functools.cache
def picture() -> bytes:
    """A smooth picture with some noise, as PNG."""
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    smooth = np.stack([128 + 100 * np.sin(columns / 37), 128 + 100 * np.cos(rows / 23), (rows + columns) / 5], axis=2)
    noise = np.random.default_rng(1).normal(0, 6, (HEIGHT, WIDTH, 1))
    file = io.BytesIO()
    Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8)).save(file, "PNG", compress_level=1)
    return file.getvalue()


if __name__ == "__main__":
    main()
