"""First bytes of a body -> how many pixels its picture has, before anything is decoded.

What cannot be read here counts as none: the operation itself refuses it, with the right words.
"""

from __future__ import annotations

import io
import warnings

from PIL import Image

from service import codec
from service.codec.container import read_header
from service.codec.images import FORMATS
from service.operations import is_stream

# Pillow's own bound would call a large picture corrupt; the limits of the settings are checked here instead.
Image.MAX_IMAGE_PIXELS = None


def pixels_of(data: bytes, limits: codec.Limits) -> int:
    """Width times height by the header of an image or a stream; 0 if it cannot be read.

    Raises:
        LimitError: The picture is larger than a limit allows.
    """
    try:
        width, height = _stream_size(data, limits) if is_stream(data) else _image_size(data)
    except codec.LimitError:
        raise
    except Exception:  # noqa: BLE001  decoders raise anything on hostile bytes; the operation names the fault
        return 0
    limits.check(width, height)
    return width * height


def _stream_size(data: bytes, limits: codec.Limits) -> tuple[int, int]:
    header, _ = read_header(data, limits)
    return header.width, header.height


def _image_size(data: bytes) -> tuple[int, int]:
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return image.size
