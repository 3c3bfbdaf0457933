"""File names -> file names for the command line: where results go, one by one, and what is said on stderr."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console
from rich.progress import track

from service import codec
from service.atomic import whole_file
from service.operations import Result

PIPE = "-"
OTHER, USAGE, BAD_INPUT, LIMITS, MODEL, SERVICE = 1, 2, 3, 4, 5, 6
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (codec.ModelError, MODEL),
    (codec.UnknownModelError, MODEL),
    (codec.LimitError, LIMITS),
    (codec.TargetError, LIMITS),
    (codec.OptionError, USAGE),
    (codec.BijouError, BAD_INPUT),
    (FileExistsError, USAGE),
)
"""First match wins; anything else is OTHER."""


@dataclass(frozen=True)
class Work:
    """What to do with each file.

    Attributes:
        job: Input bytes -> result, or plain output bytes.
        force: Overwrite.
        quiet: Say nothing but errors.
    """

    job: Callable[[bytes], Result | bytes]
    force: bool
    quiet: bool


def fail(message: str, code: int) -> NoReturn:
    """Say one line on stderr and leave."""
    complain(message)
    raise SystemExit(code)


def complain(message: str) -> None:
    """Say one line on stderr."""
    print(f"bijou: {' '.join(message.split())}", file=sys.stderr)


def explain(error: Exception) -> tuple[str, int]:
    """One line and the exit code for an error."""
    code = next((code for cls, code in EXIT_CODES if isinstance(error, cls)), OTHER)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror, code
    return str(error) or type(error).__name__, code


def run_files(inputs: list[str], output: str | None, suffix: str, work: Work) -> None:
    """Do the work on each input; a failing one is reported and the rest goes on.

    Args:
        inputs: File names or `-`.
        output: File, folder (existing, or ending in a slash), `-`, or None: beside the input.
        suffix: Of results that are named after their input.
        work: What to do.

    Raises:
        SystemExit: Usage is wrong, or an input failed; the code is that of the first failure.
    """
    try:
        names = [_output_name(name, output, suffix, len(inputs)) for name in inputs]
    except ValueError as error:
        fail(str(error), USAGE)
    to_files = [name for name in names if name != PIPE]
    if len(set(to_files)) < len(to_files):
        fail("several inputs would be written to the same file; give them different names", USAGE)
    console = Console(stderr=True)
    hidden = work.quiet or len(inputs) == 1 or not console.is_terminal
    pairs = track(list(zip(inputs, names, strict=True)), console=console, disable=hidden, transient=True)
    codes = [_run_file(source, target, work) for source, target in pairs]
    failure = next((code for code in codes if code), 0)
    if failure:
        raise typer.Exit(failure)


def _run_file(source: str, target: str, work: Work) -> int:
    try:
        if target != PIPE and not work.force and Path(target).exists():
            raise FileExistsError(f"{target} exists; give --force to overwrite it")
        data = sys.stdin.buffer.read() if source == PIPE else Path(source).read_bytes()
        result = work.job(data)
        _write(result if isinstance(result, bytes) else result.body, target)
    except Exception as error:  # noqa: BLE001  one bad file never stops the others
        message, code = explain(error)
        complain(f"{source}: {message}")
        return code
    if isinstance(result, Result) and not work.quiet:
        print(f"{target}: {_summary(result)}", file=sys.stderr)
    return 0


def _output_name(source: str, output: str | None, suffix: str, inputs: int) -> str:
    if output == PIPE or (output is None and source == PIPE):
        if inputs > 1 and suffix != "json":
            raise ValueError("stdout takes one result; give --output a folder")
        return PIPE
    name = f"{Path(source).stem if source != PIPE else 'stdin'}.{suffix}"
    if output is None:
        return str(Path(source).with_name(name))
    if output.endswith(os.sep) or Path(output).is_dir():
        return str(Path(output) / name)
    if inputs > 1:
        raise ValueError("--output has to be a folder for several inputs; end it with a slash")
    return output


def _write(data: bytes, target: str) -> None:
    """Write all or nothing: a file appears under its name once it is whole."""
    if target == PIPE:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    with whole_file(Path(target)) as file:
        file.write(data)


def _summary(result: Result) -> str:
    parts = [f"{len(result.body)} bytes", f"quality {result.quality:g}"]
    if result.bits_per_pixel is not None:
        parts.append(f"{result.bits_per_pixel:.3f} bpp")
    if result.psnr_db is not None:
        parts.append("lossless" if math.isinf(result.psnr_db) else f"{result.psnr_db:.2f} dB")
    if result.stable is not None:
        parts.append("stable" if result.stable else "not stable")
    return ", ".join(parts)
