"""Files that are left to do -> a pool of Ray actors -> manifest, streaming.

Ray Data does what is hard: it keeps the pool busy, bounds what is under way, replaces lost workers, and spreads over
a cluster. No picture travels through it: a worker reads and writes its files itself.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import ray
import ray.data
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from service.bulk.job import Job, Row, Worker
from service.bulk.manifest import FileRecord, Manifest
from service.bulk.places import Place
from service.cli_batch import IMAGE_SUFFIXES, STREAM_SUFFIXES

TASKS_WANTED = 2000
"""A task of one file is reported at once; more tasks than this cost Ray more than they give."""


class NamesError(ValueError):
    """Two inputs would be written to the same output."""


@dataclass(frozen=True)
class Pool:
    """Where the work is done.

    Attributes:
        address: Of a Ray cluster, or None for one on this machine that ends with the job.
        workers: Actors; 0: one for each GPU, or for each core where there is none.
        gpus: GPUs of one actor, which may be a fraction.
    """

    address: str | None
    workers: int
    gpus: float


def run(job: Job, pool: Pool, manifest_path: Path, keep_suffix: bool, quiet: bool) -> dict[str, Any]:
    """Do what is left of a job.

    Returns:
        Totals of all runs of the job so far.

    Raises:
        OtherJobError: The manifest is that of another job.
        NamesError: Two inputs would be written to the same output.
    """
    started = time.monotonic()
    with Manifest(manifest_path, job.identity()) as manifest:
        left = rows(job, manifest, keep_suffix)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        console = Console(stderr=True)
        with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as shown:
            bar = shown.add_task(job.op, total=len(left))
            for record in _records(job, pool, left):
                manifest.add(record)
                shown.advance(bar)
        return manifest.totals(time.monotonic() - started)


def rows(job: Job, manifest: Manifest, keep_suffix: bool) -> list[Row]:
    """One row for each input that is not done. Raises NamesError."""
    inputs, outputs = Place(job.source).list(), Place(job.target).list()
    kinds = IMAGE_SUFFIXES if job.op == "encode" else STREAM_SUFFIXES
    left, taken = [], dict[str, str]()
    for name, facts in sorted(inputs.items()):
        path = PurePosixPath(name)
        if path.suffix.lower() not in kinds:
            continue
        output = name + job.suffix if keep_suffix else str(path.with_suffix(job.suffix))
        if taken.setdefault(output, name) != name:
            raise NamesError(f"{taken[output]} and {name} would both be written to {output}; give --keep-suffix")
        if not manifest.holds(name, facts, outputs.get(output)):
            made = name not in manifest.records and manifest.made(facts, outputs.get(output))
            sizes = {"input_bytes": facts.size_bytes, "input_changed_ns": facts.changed_ns}
            left.append({"input": name, "output": output, "made": made, **sizes})
    return left


def _records(job: Job, pool: Pool, left: list[Row]) -> Iterator[FileRecord]:
    if not left:
        return
    cluster: Any = ray  # its annotations do not know actors that are given as classes
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    here = {} if pool.address else {"include_dashboard": False}
    cluster.init(address=pool.address or "local", log_to_driver=False, logging_level=logging.ERROR, **here)
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        cluster.data.DataContext.get_current().enable_progress_bars = False
        resources: dict[str, float] = cluster.cluster_resources()
        gpus = pool.gpus if job.runtime.device != "cpu" and resources.get("GPU", 0) >= pool.gpus else 0.0
        threads = max(1, job.runtime.threads)
        most = resources["GPU"] / gpus if gpus else resources["CPU"] / threads
        actors = min(len(left), pool.workers or max(1, int(most)))
        results = cluster.data.from_items(left, override_num_blocks=min(len(left), TASKS_WANTED)).map(
            Worker,
            fn_constructor_args=(job,),
            compute=cluster.data.ActorPoolStrategy(size=actors),
            num_gpus=gpus or None,
            num_cpus=None if gpus else threads,
        )
        for row in results.iter_rows():
            yield FileRecord(**json.loads(row["record"]))
    finally:
        cluster.shutdown()
