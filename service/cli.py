"""The `bijou` command: the codec on files and pipes, and the server. Also `python -m service`.

Exit codes: 0 done, 1 other, 2 usage, 3 bad input, 4 over a limit or target out of reach, 5 model or device.
Results go to files or stdout, everything else to stderr, errors as one line each.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import typer
from pydantic import ValidationError

from service import __version__, codec, operations
from service.cli_files import Work, explain, fail, run_files
from service.operations import Codec
from service.schemas import DecodeOptions, EncodeOptions, Options, OutputFormat, ReEncodeOptions, TargetOptions
from service.settings import Settings, SettingsError, load_settings

OptionsT = TypeVar("OptionsT", bound=Options)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

Files = Annotated[list[str], typer.Argument(help="Files; - is stdin.", show_default=False)]
Output = Annotated[
    str | None, typer.Option("--output", "-o", help="File or, with several inputs, folder; - is stdout.")
]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite files.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No summary and no progress.")]
Quality = Annotated[float | None, typer.Option(help="1 to 100; 100 is lossless. Default 75.")]
Lossless = Annotated[bool, typer.Option("--lossless", help="The same as --quality 100.")]
TargetBpp = Annotated[float | None, typer.Option(help="Most bits per pixel.")]
TargetPsnr = Annotated[float | None, typer.Option(help="Least PSNR, dB.")]
MaxBytes = Annotated[int | None, typer.Option(help="Longest stream, bytes.")]
Stable = Annotated[bool, typer.Option("--stable", help="Make encoding again give the same bytes.")]
ModelName = Annotated[str | None, typer.Option("--model", help="Name or id of the model.")]
Scale = Annotated[int, typer.Option(help="1, 2, 4, 8 or 16: decode to 1/scale.")]


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Instead of BIJOU_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Instead of BIJOU_PORT.", min=0, max=65_535)] = None,
) -> None:
    """Serve over HTTP; BIJOU_ variables are the settings."""
    from service.server import serve as run_server  # the web framework is loaded by the server alone

    settings = _settings()
    asked = {"host": host, "port": port}
    settings = settings.model_copy(update={name: value for name, value in asked.items() if value is not None})
    try:
        raise typer.Exit(run_server(settings))
    except codec.BijouError as error:
        fail(*explain(error))


@app.command()
def encode(
    files: Files,
    output: Output = None,
    quality: Quality = None,
    lossless: Lossless = False,
    target_bpp: TargetBpp = None,
    target_psnr: TargetPsnr = None,
    max_bytes: MaxBytes = None,
    stable: Stable = False,
    metadata: Annotated[str, typer.Option(help="none, icc or all.")] = "icc",
    model: ModelName = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Images -> .bij."""
    targets = _targets(quality, lossless, target_bpp, target_psnr, max_bytes, stable, model)
    options = _options(EncodeOptions, {**targets, "metadata": metadata})
    tools = _tools()
    run_files(files, output, "bij", Work(lambda data: operations.encode(data, options, tools), force, quiet))


@app.command("re-encode")
def re_encode(
    files: Files,
    output: Output = None,
    quality: Quality = None,
    lossless: Lossless = False,
    target_bpp: TargetBpp = None,
    target_psnr: TargetPsnr = None,
    max_bytes: MaxBytes = None,
    stable: Stable = False,
    model: ModelName = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """.bij -> .bij at another quality, without a generation of pixels in between where possible."""
    options = _options(ReEncodeOptions, _targets(quality, lossless, target_bpp, target_psnr, max_bytes, stable, model))
    tools = _tools()
    run_files(files, output, "bij", Work(lambda data: operations.re_encode(data, options, tools), force, quiet))


@app.command()
def decode(
    files: Files,
    output: Output = None,
    fmt: Annotated[str | None, typer.Option("--format", help="png, webp, jpeg, tiff or avif.")] = None,
    scale: Scale = 1,
    quality: Annotated[int | None, typer.Option(help="Of a jpeg or avif. Default 90.")] = None,
    prefix: Annotated[bool, typer.Option("--prefix", help="Accept the first part of a stream.")] = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """.bij -> images."""
    options = _options(DecodeOptions, {"format": fmt or _format_of(output), "scale": scale, "quality": quality})
    chosen: OutputFormat = options.format or "png"
    tools = _tools()
    work = Work(lambda data: operations.decode(data, options, chosen, tools, prefix), force, quiet)
    run_files(files, output, chosen, work)


@app.command()
def inspect(files: Files) -> None:
    """.bij -> what it holds, as JSON, one line a file; the first part of a stream is enough."""
    settings = _settings()

    def describe(data: bytes) -> bytes:
        info = operations.inspect(data, settings.limits())
        return (json.dumps(info.model_dump(mode="json")) + "\n").encode()

    run_files(files, "-", "json", Work(describe, force=True, quiet=True))


@app.command()
def health(
    url: Annotated[str | None, typer.Option(help="Default: /healthz/ready at BIJOU_HOST and BIJOU_PORT.")] = None,
    timeout_s: Annotated[float, typer.Option(min=0.1)] = 3.0,
) -> None:
    """Ask a running server whether it is ready: 0 yes, 1 no."""
    settings = _settings()
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104  compared, not bound
    address = url or f"http://{host}:{settings.port}/healthz/ready"
    if not address.startswith(("http://", "https://")):
        fail("the URL has to start with http:// or https://", 2)
    try:
        with urllib.request.urlopen(address, timeout=timeout_s) as answer:  # noqa: S310  scheme checked above
            typer.echo(json.load(answer)["state"])
    except urllib.error.HTTPError as error:
        fail(f"not ready: HTTP {error.code}", 1)
    except (OSError, ValueError, KeyError) as error:
        fail(f"no answer: {error}", 1)


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(f"bijou {__version__}")


def main() -> None:
    """Entry point of the console script; nothing but one line and a code leaves it on failure."""
    try:
        app(prog_name="bijou")
    except KeyboardInterrupt:
        fail("interrupted", 1)
    except Exception as error:  # noqa: BLE001  a user gets a line, not a traceback
        fail(*explain(error))


def _settings() -> Settings:
    try:
        return load_settings()
    except SettingsError as error:
        fail(str(error), 2)


def _tools() -> Codec:
    settings = _settings()
    try:
        return Codec(codec.shipped_models(settings.runtime()), settings.limits())
    except codec.BijouError as error:
        fail(*explain(error))


def _targets(
    quality: float | None,
    lossless: bool,
    target_bpp: float | None,
    target_psnr: float | None,
    max_bytes: int | None,
    stable: bool,
    model: str | None,
) -> dict[str, Any]:
    if lossless and quality not in (None, 100):
        fail("--lossless and --quality contradict each other", 2)
    return {
        "quality": 100 if lossless else quality,
        "target_bpp": target_bpp,
        "target_psnr": target_psnr,
        "max_bytes": max_bytes,
        "stable": stable,
        "model": model,
    }


def _options(cls: type[OptionsT], values: dict[str, Any]) -> OptionsT:
    """Validate as the HTTP routes do; a fault is a usage error."""
    try:
        options = cls.model_validate(values)
        if isinstance(options, TargetOptions):
            options.target()
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}".removeprefix(": ") for e in error.errors()]
        fail("; ".join(faults).replace("Value error, ", ""), 2)
    except codec.OptionError as error:
        fail(str(error), 2)
    return options


def _format_of(output: str | None) -> str | None:
    """The format an output file's name asks for, if it does."""
    suffix = Path(output or "").suffix.lower().lstrip(".")
    name = {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
    return name if name in get_args(OutputFormat) else None
