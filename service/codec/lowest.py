"""The coarsest low-pass of a tile <-> the head of its first part: plain DPCM, one table a channel.

No prior reads this far: each value is predicted by the mean of its left and upper neighbour. (Left + above - above left
costs 4 % more: neighbours are too far apart for slopes to go on.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Integers
from service.codec.coder_tables import Tables, alike, symbols_of
from service.codec.entropy import Decoder, Encoder
from service.codec.errors import CorruptStreamError

LOW_TABLES = 70
"""Each channel is coded with one of these scale indices, said in one byte."""
CHANNELS = 3


def encode_lowest(bins: Integers, encoder: Encoder, tables: Tables) -> bytes:
    """Code the bins, [3, h, w]; returns the bytes that precede the part's words: the scale index of each channel."""
    head = []
    for channel in bins:
        around = np.pad(channel, ((1, 0), (1, 0)))
        around[1:, 0], around[0, 1:] = around[:-1, 1], around[1, :-1]  # at an edge, the neighbour there is counts twice
        values = (channel - (around[1:, :-1] + around[:-1, 1:] >> 1)).ravel().astype(np.int32)
        head.append(_scale_of(values))
        encoder.add(symbols_of(values, *alike(values.size, head[-1]), tables))
    return bytes(head)


def _scale_of(values: Integers) -> int:
    """The scale index whose table fits the mean size of the differences."""
    # A logistic of scale s has a mean size of 2 s ln 2; whole numbers keep the choice the same everywhere.
    spread = int(np.abs(values).sum()) * 1024 // max(1, values.size)
    index = sum(spread > int(1024 * 1.386 * 2 ** (-4.8 + 0.2 * i + 0.1)) for i in range(LOW_TABLES))
    return min(index, LOW_TABLES - 1)


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
        differences = decoder.take(*alike(size[0] * size[1], scale)).reshape(size)
        channels.append(_summed(differences.tolist()))
    return decoder, np.array(channels, np.int64)


def _summed(differences: list[list[int]]) -> list[list[int]]:
    """Undo the prediction. Damaged differences add up along rows and columns at most, far within 64 bits."""
    rows: list[list[int]] = []
    for row in differences:
        values: list[int] = []
        for column, difference in enumerate(row):
            left = values[-1:] or (rows[-1][:1] if rows else [0])
            above = rows[-1][column] if rows else left[0]
            values.append(difference + (left[0] + above >> 1))
        rows.append(values)
    return rows
