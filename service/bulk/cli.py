"""The command `python -m service.bulk`: folders or prefixes in, folders or prefixes out, with a manifest.

The same command goes on where a broken-off run stopped. Exit codes as those of `bijou`: 0 done, 2 usage, 3 some inputs
failed and are in the manifest, 1 anything else.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from service import codec
from service.cli_files import BAD_INPUT, OTHER, USAGE, explain, fail
from service.cli_options import (
    Effort,
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
    options_of,
    targets_of,
)
from service.schemas import DecodeOptions, EncodeOptions, ReEncodeOptions
from service.settings import SettingsError, load_settings

if TYPE_CHECKING:
    from service.bulk.job import Operation

MANIFEST = "bijou-bulk.jsonl"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

Source = Annotated[str, typer.Argument(help="Folder or URI (s3://, gs://, ...) of the inputs.", show_default=False)]
Target = Annotated[str, typer.Argument(help="Folder or URI of the outputs; mirrors the inputs.", show_default=False)]
ManifestPath = Annotated[
    Path | None, typer.Option("--manifest", help=f"JSON lines. Default: {MANIFEST} in a local target.")
]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster (auto, ray://...); without: this machine.")]
Workers = Annotated[int, typer.Option(min=0, help="Actors; 0: one for each GPU, else for each core.")]
Gpus = Annotated[float, typer.Option("--gpus", min=0.01, help="GPUs of one actor, where there are some.")]


@dataclasses.dataclass(frozen=True)
class Where:
    """Places and pool, as the command line gives them."""

    source: str
    target: str
    manifest: Path | None
    address: str | None
    workers: int
    gpus: float
    keep_suffix: bool
    quiet: bool


@app.command()
def encode(
    source: Source,
    target: Target,
    quality: Quality = None,
    lossless: Lossless = False,
    target_bpp: TargetBpp = None,
    target_psnr: TargetPsnr = None,
    max_bytes: MaxBytes = None,
    stable: Stable = False,
    effort: Effort = 0,
    metadata: Metadata = "icc",
    model: ModelName = None,
    manifest: ManifestPath = None,
    address: Address = None,
    workers: Workers = 0,
    gpus: Gpus = 1.0,
    keep_suffix: KeepSuffix = False,
    quiet: Quiet = False,
) -> None:
    """Images -> .bij."""
    targets = targets_of(quality, lossless, target_bpp, target_psnr, max_bytes, stable, effort, model)
    options = options_of(EncodeOptions, {**targets, "metadata": metadata})
    _run("encode", options, Where(source, target, manifest, address, workers, gpus, keep_suffix, quiet))


@app.command("re-encode")
def re_encode(
    source: Source,
    target: Target,
    quality: Quality = None,
    lossless: Lossless = False,
    target_bpp: TargetBpp = None,
    target_psnr: TargetPsnr = None,
    max_bytes: MaxBytes = None,
    stable: Stable = False,
    effort: Effort = 0,
    model: ModelName = None,
    manifest: ManifestPath = None,
    address: Address = None,
    workers: Workers = 0,
    gpus: Gpus = 1.0,
    quiet: Quiet = False,
) -> None:
    """.bij -> .bij at another quality or of another model."""
    targets = targets_of(quality, lossless, target_bpp, target_psnr, max_bytes, stable, effort, model)
    options = options_of(ReEncodeOptions, targets)
    _run("re-encode", options, Where(source, target, manifest, address, workers, gpus, False, quiet))


@app.command()
def decode(
    source: Source,
    target: Target,
    fmt: Format = None,
    scale: Scale = 1,
    quality: ImageQuality = None,
    manifest: ManifestPath = None,
    address: Address = None,
    workers: Workers = 0,
    gpus: Gpus = 1.0,
    keep_suffix: KeepSuffix = False,
    quiet: Quiet = False,
) -> None:
    """.bij -> images."""
    options = options_of(DecodeOptions, {"format": fmt, "scale": scale, "quality": quality})
    _run("decode", options, Where(source, target, manifest, address, workers, gpus, keep_suffix, quiet))


def main() -> None:
    """Entry point; nothing but one line and a code leaves it on failure."""
    try:
        app(prog_name="bijou bulk")
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on from here", OTHER)
    except Exception as error:  # noqa: BLE001  a user gets a line, not a traceback
        fail(*explain(error))


def _run(op: Operation, options: EncodeOptions | DecodeOptions | ReEncodeOptions, where: Where) -> None:
    try:
        from service.bulk import run as bulk  # Ray takes seconds to import, and may be missing
        from service.bulk.job import Job
        from service.bulk.manifest import OtherJobError
        from service.bulk.places import Place
    except ImportError as error:
        fail(f"{error}; install the extra: pip install 'bijou[bulk]'", OTHER)
    try:
        settings = load_settings()
    except SettingsError as error:
        fail(str(error), USAGE)
    if where.manifest is None and not Place(where.target).is_local:
        fail("the target is not on this machine; say with --manifest where the manifest goes", USAGE)
    # Actors share a machine by cores, so a graph has one thread unless the setting says more.
    runtime = dataclasses.replace(settings.runtime(), threads=settings.device_threads or 1)
    job = Job(op, options, where.source, where.target, runtime, settings.limits(), settings.models_folder)
    pool = bulk.Pool(where.address, where.workers, where.gpus)
    manifest = where.manifest or Path(where.target) / MANIFEST
    try:
        totals = bulk.run(job, pool, manifest, where.keep_suffix, where.quiet)
    except (OtherJobError, bulk.NamesError) as error:
        fail(str(error), USAGE)
    except codec.BijouError as error:
        fail(*explain(error))
    if not where.quiet:
        Console(stderr=True).print(", ".join(f"{name} {value}" for name, value in totals.items()))
    if totals["failed"]:
        fail(f"{totals['failed']} inputs failed; {manifest} says why", BAD_INPUT)
