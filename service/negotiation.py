"""Accept header -> output format. Source: RFC 9110, section 12.5.1."""

from __future__ import annotations

import re

from service.operations import IMAGE_MEDIA_TYPES
from service.problems import NotAcceptableError
from service.schemas import OutputFormat

QVALUE = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")
"""A weight as RFC 9110 defines it; anything else counts as 0."""


def choose_format(accept: str | None) -> OutputFormat:
    """The format with the highest weight; among equals the first of png, webp, jpeg, tiff, avif.

    Args:
        accept: The header's value; None or empty accepts anything.

    Raises:
        NotAcceptableError: Every format has weight 0.
    """
    ranges = _ranges(accept or "*/*")
    weights = {fmt: _weight(media_type, ranges) for fmt, media_type in IMAGE_MEDIA_TYPES.items()}
    best = max(weights, key=lambda fmt: weights[fmt])
    if weights[best] <= 0:
        raise NotAcceptableError(f"accept one of {', '.join(IMAGE_MEDIA_TYPES.values())}, or ask with ?format=")
    return best


def _ranges(accept: str) -> dict[str, float]:
    ranges = {}
    for item in accept.split(","):
        media_range, *parameters = (part.strip().lower() for part in item.split(";"))
        ranges[media_range] = min((_q(p) for p in parameters if p.startswith("q=")), default=1.0)
    return ranges


def _q(parameter: str) -> float:
    value = parameter.removeprefix("q=")
    return float(value) if QVALUE.fullmatch(value) else 0.0


def _weight(media_type: str, ranges: dict[str, float]) -> float:
    """The most specific range decides."""
    for media_range in (media_type, "image/*", "*/*"):
        if media_range in ranges:
            return ranges[media_range]
    return 0.0
