"""The `bijou` command: the codec on files and pipes, and the server. Also `python -m service`.

Exit codes: 0 done, 1 other, 2 usage, 3 bad input, 4 over a limit or target out of reach, 5 model or device,
6 (remote commands) the service cannot be reached or has no room.
Results go to files or stdout, everything else to stderr, errors as one line each.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Annotated

import typer

from service import __version__, cli_remote, codec, operations
from service.bulk.cli import app as bulk_app
from service.cli_files import Work, explain, fail, run_files
from service.cli_options import (
    Effort,
    Files,
    Force,
    Format,
    ImageQuality,
    Lossless,
    MaxBytes,
    Metadata,
    ModelName,
    Output,
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
from service.operations import Codec
from service.schemas import DecodeOptions, EncodeOptions, OutputFormat, ReEncodeOptions
from service.settings import Settings, SettingsError, load_settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(cli_remote.app, name="remote")
app.add_typer(bulk_app, name="bulk")


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
    except SettingsError as error:
        fail(str(error), 2)
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
    effort: Effort = 0,
    metadata: Metadata = "icc",
    model: ModelName = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Images -> .bij."""
    targets = targets_of(quality, lossless, target_bpp, target_psnr, max_bytes, stable, effort, model)
    options = options_of(EncodeOptions, {**targets, "metadata": metadata})
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
    effort: Effort = 0,
    model: ModelName = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """.bij -> .bij at another quality, without a generation of pixels in between where possible."""
    options = options_of(
        ReEncodeOptions, targets_of(quality, lossless, target_bpp, target_psnr, max_bytes, stable, effort, model)
    )
    tools = _tools()
    run_files(files, output, "bij", Work(lambda data: operations.re_encode(data, options, tools), force, quiet))


@app.command()
def decode(
    files: Files,
    output: Output = None,
    fmt: Format = None,
    scale: Scale = 1,
    quality: ImageQuality = None,
    prefix: Annotated[bool, typer.Option("--prefix", help="Accept the first part of a stream.")] = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """.bij -> images."""
    options = options_of(DecodeOptions, {"format": fmt or format_of(output), "scale": scale, "quality": quality})
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
