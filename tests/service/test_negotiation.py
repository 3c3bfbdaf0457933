"""Accept header -> format."""

from __future__ import annotations

import pytest

from service.negotiation import choose_format
from service.problems import NotAcceptableError


@pytest.mark.parametrize(
    ("accept", "fmt"),
    [
        (None, "png"),
        ("", "png"),
        ("*/*", "png"),
        ("image/*", "png"),
        ("image/avif,image/webp,*/*;q=0.8", "webp"),
        ("image/avif;q=0.9, image/webp;q=0.5", "avif"),
        ("IMAGE/JPEG", "jpeg"),
        ("image/png;q=0, image/*", "webp"),
        ("text/html, image/tiff;q=0.1", "tiff"),
        ("image/png;q=banana, image/jpeg;q=0.2", "jpeg"),
        ("image/jpeg;q=7, image/png;q=0.1", "png"),
    ],
)
def test_choose_format(accept: str | None, fmt: str):
    assert choose_format(accept) == fmt


@pytest.mark.parametrize("accept", ["text/html", "image/bmp", "*/*;q=0", ";", "image/png;q=nan"])
def test_nothing_acceptable(accept: str):
    with pytest.raises(NotAcceptableError):
        choose_format(accept)
