"""Options of the command line: their help, and flags -> the option models of the HTTP routes.

The local commands and the remote ones take the same options and refuse the same faults.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer
from pydantic import ValidationError

from service import codec
from service.cli_files import USAGE, fail
from service.schemas import Options, OutputFormat, TargetOptions

OptionsT = TypeVar("OptionsT", bound=Options)

Files = Annotated[list[str], typer.Argument(help="Files; - is stdin.", show_default=False)]
Output = Annotated[
    str | None, typer.Option("--output", "-o", help="File or, with several inputs, folder; - is stdout.")
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite files.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No summary and no progress.")]
KeepSuffix = Annotated[bool, typer.Option("--keep-suffix", help="a.png gives a.png.bij, not a.bij.")]
Quality = Annotated[float | None, typer.Option(help="1 to 100; 100 is lossless. Default 75.")]
Lossless = Annotated[bool, typer.Option("--lossless", help="The same as --quality 100.")]
TargetBpp = Annotated[float | None, typer.Option(help="Most bits per pixel.")]
TargetPsnr = Annotated[float | None, typer.Option(help="Least PSNR, dB.")]
MaxBytes = Annotated[int | None, typer.Option(help="Longest stream, bytes.")]
Stable = Annotated[bool, typer.Option("--stable", help="Make encoding again give the same bytes.")]
Effort = Annotated[int, typer.Option(help="0, 1 or 2: smaller files for several times the time.")]
ModelName = Annotated[str | None, typer.Option("--model", help="Name or id of the model.")]
Scale = Annotated[int, typer.Option(help="1, 2, 4, 8 or 16: decode to 1/scale.")]
Metadata = Annotated[str, typer.Option(help="none, icc or all.")]
Format = Annotated[str | None, typer.Option("--format", help="png, webp, jpeg, tiff or avif.")]
ImageQuality = Annotated[int | None, typer.Option("--quality", help="Of a jpeg or avif. Default 90.")]


def targets_of(
    quality: float | None,
    lossless: bool,
    target_bpp: float | None,
    target_psnr: float | None,
    max_bytes: int | None,
    stable: bool,
    effort: int,
    model: str | None,
) -> dict[str, Any]:
    """Flags -> values of TargetOptions; SystemExit if they contradict each other."""
    if lossless and quality not in (None, 100):
        fail("--lossless and --quality contradict each other", USAGE)
    return {
        "quality": 100 if lossless else quality,
        "target_bpp": target_bpp,
        "target_psnr": target_psnr,
        "max_bytes": max_bytes,
        "stable": stable,
        "effort": effort,
        "model": model,
    }


def options_of(cls: type[OptionsT], values: dict[str, Any]) -> OptionsT:
    """Validate as the HTTP routes do; a fault is a usage error (SystemExit)."""
    try:
        options = cls.model_validate(values)
        if isinstance(options, TargetOptions):
            options.target()
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}".removeprefix(": ") for e in error.errors()]
        fail("; ".join(faults).replace("Value error, ", ""), USAGE)
    except codec.OptionError as error:
        fail(str(error), USAGE)
    return options


def format_of(output: str | None) -> str | None:
    """The format an output file's name asks for, if it does."""
    suffix = Path(output or "").suffix.lower().lstrip(".")
    name = {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
    return name if name in get_args(OutputFormat) else None
