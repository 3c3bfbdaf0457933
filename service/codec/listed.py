"""Values at a few places, said one by one: places and bytes <-> a compressed list.

Source: zlib, RFC 1950.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Bytes8
from service.codec.errors import CorruptStreamError

FEWEST_PLACES = 16
"""One place in so many may be listed."""
GAP = np.dtype("<u4")
COUNT_BYTES = 4

Listed = tuple[NDArray[np.intp], Bytes8]
"""Ascending places, [N], and values, [N, width]."""


def packed(lists: Sequence[Listed]) -> bytes:
    """Several lists, one after the other; nothing if all are empty.

    Of each how many there are, how far each place is behind the one before, and values: bytes of one weight together.
    """
    if not any(len(places) for places, _ in lists):
        return b""
    parts = []
    for places, values in lists:
        gaps = np.diff(places, prepend=-1).astype(GAP)
        bytes_of_gaps = gaps.view(np.uint8).reshape(-1, GAP.itemsize)
        parts += [len(places).to_bytes(COUNT_BYTES, "little"), bytes_of_gaps.T.tobytes(), values.T.tobytes()]
    return zlib.compress(b"".join(parts), 9)


def unpacked(data: bytes, widths: Sequence[int], places: int) -> list[Listed]:
    """The reverse of `packed`.

    Args:
        data: The list.
        widths: Bytes of each list's values.
        places: How many places there are.

    Raises:
        CorruptStreamError: No encoder lists these.
    """
    if not data:
        return [(np.empty(0, np.intp), np.empty((0, width), np.uint8)) for width in widths]
    most = places // FEWEST_PLACES
    opened = zlib.decompressobj()
    try:
        plain = opened.decompress(data, sum(COUNT_BYTES + most * (GAP.itemsize + width) for width in widths))
    except zlib.error as error:
        raise CorruptStreamError("a list of values cannot be read; the stream is damaged") from error
    result, position = [], 0
    for width in widths:
        count = int.from_bytes(plain[position : position + COUNT_BYTES], "little")
        body = position + COUNT_BYTES
        position = body + count * (GAP.itemsize + width)
        if count > most or position > len(plain):
            raise CorruptStreamError("a list of values is cut or too long; the stream is damaged")
        own = np.frombuffer(plain, np.uint8, position - body, body)
        gaps = np.ascontiguousarray(own[: count * GAP.itemsize].reshape(GAP.itemsize, count).T).view(GAP)[:, 0]
        at = np.cumsum(gaps, dtype=np.int64) - 1
        if count and (at[-1] >= places or not gaps.all()):
            raise CorruptStreamError("a list of values has impossible places; the stream is damaged")
        result.append((at.astype(np.intp), np.ascontiguousarray(own[count * GAP.itemsize :].reshape(width, count).T)))
    if position != len(plain) or not opened.eof or opened.unused_data:
        raise CorruptStreamError("there is more than the lists of values; the stream is damaged")
    return result
