"""The golden check: a shipped picture must encode to the shipped streams, and they back to it, to the byte."""

from pathlib import Path

from service.codec.artifact import Model, ModelSet
from service.codec.errors import BijouError, GoldenCheckError
from service.codec.images import Limits, read_image
from service.codec.pipeline import decode, encode
from service.codec.target import Target

QUALITIES = (10.0, 50.0, 90.0, 100.0)
PICTURE = "picture.png"


def stream_name(quality: float) -> str:
    """File name of the golden stream of a quality."""
    return f"q{quality:g}.bij"


def golden_check(model: Model) -> None:
    """Encode and decode the golden picture of a model.

    Raises:
        GoldenCheckError: Files are missing or one byte differs.
    """
    folder = model.folder / "golden"
    try:
        picture = read_image((folder / PICTURE).read_bytes(), Limits())
        for quality in QUALITIES:
            expected = (folder / stream_name(quality)).read_bytes()
            if encode(picture, model, Target(quality=quality)).stream != expected:
                raise GoldenCheckError(
                    f"model {model.id} encodes its golden picture differently at quality {quality:g}"
                )
            decode(expected, ModelSet([model]))
    except OSError as error:
        raise GoldenCheckError(f"model {model.id} has no golden files; export it again") from error
    except GoldenCheckError:
        raise
    except BijouError as error:
        raise GoldenCheckError(f"model {model.id} failed its golden check: {error}") from error


def write_golden(model: Model, folder: Path, picture_png: bytes) -> None:
    """Make the golden files of a model from a picture."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PICTURE).write_bytes(picture_png)
    picture = read_image(picture_png, Limits())
    for quality in QUALITIES:
        (folder / stream_name(quality)).write_bytes(encode(picture, model, Target(quality=quality)).stream)
