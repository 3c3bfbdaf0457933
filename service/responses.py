"""Result -> HTTP response: the headers of the contract, in one place.

Sources: RFC 9530 (Content-Digest), Server Timing (W3C), RFC 9651 (structured fields: ?1 is true).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from fastapi import Response

from service.operations import Result

HEADERS: Mapping[str, str] = {
    "Content-Digest": "SHA-256 of the body (RFC 9530).",
    "Server-Timing": "Milliseconds in queue, image, flow, prior, entropy.",
    "Bijou-Model": "Id of the model.",
    "Bijou-Quality": "Quality of the stream, 1 to 100; 100 is lossless.",
    "Bijou-Bits-Per-Pixel": "Rate of the stream, container included.",
    "Bijou-Psnr": "PSNR in dB against the encoded picture; inf if equal.",
    "Bijou-Stable": "Whether a stable stream was asked for and reached.",
    "Bijou-Generation-Changed": "On re-encode: whether the stream differs from the input.",
}
"""Header -> what it says; the API description is made from it."""


def of_result(result: Result, queue_s: float) -> Response:
    """The response for a result.

    Args:
        result: What the operation returned.
        queue_s: How long it waited for a worker.
    """
    headers = {
        "X-Content-Type-Options": "nosniff",
        "Content-Digest": f"sha-256=:{result.digest}:",
        "Server-Timing": server_timing({"queue": queue_s, **result.seconds}),
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
