"""Result -> HTTP response: the headers of the contract, in one place.

Sources: RFC 9530 (Content-Digest), Server Timing (W3C), RFC 9651 (structured fields: ?1 is true).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Response

from service.operations import Result


@dataclass(frozen=True)
class HeaderText:
    """A response header for the API description: what it says, an example, and whether it is always there."""

    text: str
    example: str
    always: bool = True


RESULT_HEADERS: Mapping[str, HeaderText] = {
    "Content-Digest": HeaderText(
        "SHA-256 of the body (RFC 9530).", "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
    ),
    "Server-Timing": HeaderText(
        "Milliseconds in queue, image, flow, prior, entropy.",
        "queue;dur=0.1, image;dur=2.0, flow;dur=9.5, prior;dur=20.4, entropy;dur=4.2",
    ),
    "X-Content-Type-Options": HeaderText("Always nosniff.", "nosniff"),
    "Bijou-Model": HeaderText("Id of the model.", "3603fb26d177a8a2"),
    "Bijou-Quality": HeaderText("Quality of the stream, 1 to 100; 100 is lossless.", "75"),
}
STREAM_HEADERS: Mapping[str, HeaderText] = {
    "Bijou-Bits-Per-Pixel": HeaderText("Rate of the stream, container included.", "0.8412"),
    "Bijou-Psnr": HeaderText(
        "PSNR in dB of what the stream decodes to against what was encoded; inf if equal.", "38.214"
    ),
    "Bijou-Stable": HeaderText("Whether a stable stream was reached, if it was asked for.", "?1", always=False),
}
RE_ENCODE_HEADERS: Mapping[str, HeaderText] = {
    "Bijou-Generation-Changed": HeaderText("Whether the stream differs from the input.", "?0"),
}
"""Header -> what it says; the API description is made from these."""

STAGES = ("queue", "image", "flow", "prior", "entropy")
"""What Server-Timing always names, in this order."""


def of_result(result: Result, seconds: Mapping[str, float]) -> Response:
    """The response for a result.

    Args:
        result: What the operation returned.
        seconds: Stage -> time, the queue's included.
    """
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Content-Digest": f"sha-256=:{result.digest}:",
        "Server-Timing": server_timing({**dict.fromkeys(STAGES, 0.0), **seconds}),
        "Bijou-Model": result.model_id,
        "Bijou-Quality": f"{result.quality:g}",
    }
    if result.bits_per_pixel is not None:
        headers["Bijou-Bits-Per-Pixel"] = f"{result.bits_per_pixel:.4f}"
    if result.psnr_db is not None:
        headers["Bijou-Psnr"] = "inf" if math.isinf(result.psnr_db) else f"{result.psnr_db:.3f}"
    if result.stable is not None:
        headers["Bijou-Stable"] = boolean(result.stable)
    if result.changed is not None:
        headers["Bijou-Generation-Changed"] = boolean(result.changed)
    return Response(result.body, media_type=result.media_type, headers=headers)


def server_timing(seconds: Mapping[str, float]) -> str:
    """Stage -> seconds as a Server-Timing value, in milliseconds."""
    return ", ".join(f"{stage};dur={duration_s * 1000:.1f}" for stage, duration_s in seconds.items())


def boolean(value: bool) -> str:
    """A structured-field boolean."""
    return f"?{value:d}"
