"""The coarsest low-pass of a tile <-> the head of its first part: plain DPCM, one table a channel.

No prior reads this far: each value is predicted from its three neighbours, left + above - above left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Integers, Shorts
from service.codec.entropy import Decoder, Encoder, Tables, symbols_of
from service.codec.errors import CorruptStreamError

LOW_TABLES = 70
"""Each channel is coded with one of these scale indices, said in one byte."""
CHANNELS = 3


def encode_lowest(bins: Integers, encoder: Encoder, tables: Tables) -> bytes:
    """Code the bins, [3, h, w]; returns the bytes that precede the part's words: the scale index of each channel."""
    head = []
    for channel in bins:
        padded = np.pad(channel, ((1, 0), (1, 0)))
        values = (channel - padded[1:, :-1] - padded[:-1, 1:] + padded[:-1, :-1]).ravel().astype(np.int32)
        head.append(_scale_of(values))
        encoder.add(symbols_of(values, *_flat(values.size, head[-1]), tables))
    return bytes(head)


def _scale_of(values: Integers) -> int:
    """The scale index whose table fits the mean size of the differences."""
    # A logistic of scale s has a mean size of 2 s ln 2; whole numbers keep the choice the same everywhere.
    spread = int(np.abs(values).sum()) * 1024 // max(1, values.size)
    index = sum(spread > int(1024 * 1.386 * 2 ** (-4.8 + 0.2 * i + 0.1)) for i in range(LOW_TABLES))
    return min(index, LOW_TABLES - 1)


def _flat(count: int, scale: int) -> tuple[Shorts, Shorts]:
    return np.zeros(count, np.int16), np.full(count, scale, np.int16)


def decode_lowest(part: bytes, size: tuple[int, int], tables: Tables) -> tuple[Decoder, NDArray[np.int64]]:
    """Read the bins, [3, h, w], off the first part of a tile; the decoder goes on with the rest of the part.

    Raises:
        CorruptStreamError: No encoder writes this. How large bins may be is for the caller to check.
    """
    head = part[:CHANNELS]
    if len(head) < CHANNELS or max(head) >= LOW_TABLES:
        raise CorruptStreamError("the first section is impossible; the stream is damaged")
    decoder, channels = Decoder(part[CHANNELS:], tables), []
    for scale in head:
        differences = decoder.take(*_flat(size[0] * size[1], scale)).reshape(size).astype(np.int64)
        channels.append(np.cumsum(np.cumsum(differences, 0), 1))
    return decoder, np.stack(channels)
