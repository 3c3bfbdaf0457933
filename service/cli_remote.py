"""`bijou remote`: files and folders through a running service, several at once; started again, it goes on.

Only this part of the command line needs the client's libraries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli_batch import IMAGE_SUFFIXES, STREAM_SUFFIXES, Order, PlanError, Task, plan
from service.cli_files import OTHER, USAGE, fail
from service.cli_options import (
    Effort,
    Force,
    Format,
    ImageQuality,
    KeepSuffix,
    Lossless,
    MaxBytes,
    Metadata,
    ModelName,
    Quality,
    Quiet,
    Scale,
    Stable,
    TargetBpp,
    TargetPsnr,
    format_of,
    options_of,
    targets_of,
)
from service.schemas import DecodeOptions, EncodeOptions, ReEncodeOptions

app = typer.Typer(no_args_is_help=True, help="Do it on a running service: files and folders, several at once.")

Places = Annotated[list[str], typer.Argument(help="Files and folders.", show_default=False)]
Output = Annotated[
    str | None, typer.Option("--output", "-o", help="Folder, or file for one input. Default: beside it.")
]
Url = Annotated[str, typer.Option(help="Where the service is.")]
KeyFile = Annotated[Path | None, typer.Option("--api-key-file", help="File whose first line is the API key.")]
Jobs = Annotated[int, typer.Option("--jobs", "-j", min=1, max=256, help="Files in work at once.")]
GiveUp = Annotated[float, typer.Option("--give-up-s", min=0, help="How long to try for one file.")]
URL_DEFAULT = "http://127.0.0.1:8000"


@app.command()
def encode(
    places: Places,
    output: Output = None,
    url: Url = URL_DEFAULT,
    api_key_file: KeyFile = None,
    jobs: Jobs = 4,
    give_up_s: GiveUp = 120.0,
    quality: Quality = None,
    lossless: Lossless = False,
    target_bpp: TargetBpp = None,
    target_psnr: TargetPsnr = None,
    max_bytes: MaxBytes = None,
    stable: Stable = False,
    effort: Effort = 0,
    metadata: Metadata = "icc",
    model: ModelName = None,
    keep_suffix: KeepSuffix = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Images -> .bij."""
    targets = targets_of(quality, lossless, target_bpp, target_psnr, max_bytes, stable, effort, model)
    options = options_of(EncodeOptions, {**targets, "metadata": metadata})
    tasks = _plan(places, output, "bij", IMAGE_SUFFIXES, keep_suffix)
    _run(
        Order("encode", options.model_dump(exclude_none=True), force, quiet), tasks, url, api_key_file, jobs, give_up_s
    )


@app.command("re-encode")
def re_encode(
    places: Places,
    output: Output = None,
    url: Url = URL_DEFAULT,
    api_key_file: KeyFile = None,
    jobs: Jobs = 4,
    give_up_s: GiveUp = 120.0,
    quality: Quality = None,
    lossless: Lossless = False,
    target_bpp: TargetBpp = None,
    target_psnr: TargetPsnr = None,
    max_bytes: MaxBytes = None,
    stable: Stable = False,
    effort: Effort = 0,
    model: ModelName = None,
    keep_suffix: KeepSuffix = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """.bij -> .bij at another quality."""
    targets = targets_of(quality, lossless, target_bpp, target_psnr, max_bytes, stable, effort, model)
    options = options_of(ReEncodeOptions, targets)
    tasks = _plan(places, output, "bij", STREAM_SUFFIXES, keep_suffix)
    order = Order("re-encode", options.model_dump(exclude_none=True), force, quiet)
    _run(order, tasks, url, api_key_file, jobs, give_up_s)


@app.command()
def decode(
    places: Places,
    output: Output = None,
    url: Url = URL_DEFAULT,
    api_key_file: KeyFile = None,
    jobs: Jobs = 4,
    give_up_s: GiveUp = 120.0,
    fmt: Format = None,
    scale: Scale = 1,
    quality: ImageQuality = None,
    keep_suffix: KeepSuffix = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """.bij -> images."""
    chosen = fmt or format_of(output) or "png"
    options = options_of(DecodeOptions, {"format": chosen, "scale": scale, "quality": quality})
    tasks = _plan(places, output, chosen, STREAM_SUFFIXES, keep_suffix)
    _run(
        Order("decode", options.model_dump(exclude_none=True), force, quiet), tasks, url, api_key_file, jobs, give_up_s
    )


def _plan(places: list[str], output: str | None, suffix: str, kinds: frozenset[str], keep_suffix: bool) -> list[Task]:
    try:
        return plan(places, output, suffix, kinds, keep_suffix)
    except PlanError as error:
        fail(str(error), USAGE)


def _run(order: Order, tasks: list[Task], url: str, api_key_file: Path | None, jobs: int, give_up_s: float) -> None:
    try:
        key = api_key_file.read_text("utf-8").partition("\n")[0].strip() if api_key_file else None
        from service.cli_transfer import Remote, transfer  # the client's libraries are an extra
    except (OSError, ValueError) as error:
        fail(f"the API key cannot be read: {error}", USAGE)
    except ImportError as error:
        fail(f"{error.name} is missing; install the client with: pip install 'bijou[client]'", OTHER)
    try:
        code = transfer(order, tasks, Remote(url, key, jobs, give_up_s))
    except ValueError as error:
        fail(str(error), USAGE)
    if code:
        raise typer.Exit(code)
