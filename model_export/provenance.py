"""Where figures come from: command, commit, machine, versions, date. Every report carries it."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

PACKAGES = ("numpy", "scipy", "pillow", "pillow-jxl-plugin", "onnxruntime", "onnxruntime-gpu", "constriction")


def provenance(module: str, arguments: Sequence[str]) -> dict[str, str]:
    """Describe this run.

    Args:
        module: What `python -m` was given, sub-command included.
        arguments: The command line after it; absolute paths are shortened to their last part.
    """
    command = shlex.join(_shortened(a) for a in arguments)
    versions = [f"{name} {version}" for name in PACKAGES if (version := _version(name)) is not None]
    return {
        "command": f"python -m {module} {command}".rstrip(),
        "commit": commit(),
        "machine": f"{_processor()}, {_cores()} cores, {platform.system()} {platform.machine()}",
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
        "date": datetime.datetime.now(tz=datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def commit() -> str:
    """Commit of the working tree this file lies in, with `+changes` if files differ from it; `unknown` without git."""
    root = Path(__file__).parent
    try:
        head = _git(root, "rev-parse", "--verify", "HEAD")
        return head + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _shortened(argument: str) -> str:
    return Path(argument).name if argument.startswith("/") else argument


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown processor"


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
