"""Peak memory of encoding and decoding one picture, each in a process of its own.

This module is both sides: `measure_peaks` starts `python -m tests.bench.memory`, which prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from model_export.peers import Pixels
from tests.bench.subjects import Options, opened


@dataclass(frozen=True)
class Peak:
    """One direction.

    Attributes:
        resting_bytes: Resident just before, with model and input (picture or file) loaded.
        peak_bytes: Most that was ever resident.
        seconds: Wall-clock time of the one, cold call.
    """

    resting_bytes: int
    peak_bytes: int
    seconds: float


def measure_peaks(name: str, quality: float, pixels: Pixels, options: Options) -> tuple[Peak, Peak]:
    """Encode, then decode, in fresh processes.

    Raises:
        subprocess.CalledProcessError: One of them failed; its stderr has been shown.
    """
    with TemporaryDirectory() as folder:
        picture, stream = Path(folder) / "picture.npy", Path(folder) / "stream"
        np.save(picture, pixels)
        encode = _in_process("encode", name, quality, picture, stream, options)
        return encode, _in_process("decode", name, quality, stream, picture, options)


def _in_process(direction: str, name: str, quality: float, source: Path, goal: Path, options: Options) -> Peak:
    command = [sys.executable, "-m", "tests.bench.memory", direction, name, str(quality), str(source), str(goal)]
    command += ["--threads", str(options.threads), "--device", options.device]
    command += ["--model", str(options.model)] if options.model is not None else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Peak(**json.loads(done.stdout.splitlines()[-1]))


def main(argv: Sequence[str] | None = None) -> int:
    """The measured process."""
    parser = argparse.ArgumentParser(description="internal side of the memory benchmark")
    parser.add_argument("direction", choices=("encode", "decode"))
    parser.add_argument("name")
    parser.add_argument("quality", type=float)
    parser.add_argument("source", type=Path)
    parser.add_argument("goal", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", type=Path)
    o = parser.parse_args(argv)
    codec = opened(o.name, o.quality, Options(o.threads, o.device, o.model))
    source = np.load(o.source) if o.direction == "encode" else o.source.read_bytes()
    resting_bytes = _resident("VmRSS")
    start_s = time.perf_counter()
    result = codec.encode(source)[0] if o.direction == "encode" else codec.decode(source)[0]
    seconds = time.perf_counter() - start_s
    print(json.dumps(asdict(Peak(resting_bytes, _resident("VmHWM"), seconds))))
    if isinstance(result, bytes):
        o.goal.write_bytes(result)
    return 0


def _resident(field: str) -> int:
    """Bytes by the kernel's name. ru_maxrss is the fallback: on Linux it includes the parent's peak before exec."""
    status = Path("/proc/self/status")
    if not status.exists():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    lines = [line for line in status.read_text(encoding="ascii").splitlines() if line.startswith(f"{field}:")]
    return int(lines[0].split()[1]) * 1024


if __name__ == "__main__":
    raise SystemExit(main())
