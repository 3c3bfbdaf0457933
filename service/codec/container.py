"""Words <-> bitstream: the .bij container, version 1. docs/bitstream.md is the norm.

    magic  version  flags  model id  width  height  code  pixel CRC  header CRC  section ...
    section: length  payload  CRC

Every length is checked before anything is allocated, every section by its own CRC-32C.
"""

from __future__ import annotations

from dataclasses import dataclass

import google_crc32c

from service.codec.errors import CorruptStreamError, LimitError, NotAStreamError
from service.codec.forms import LAST_FORM, Form
from service.codec.images import Limits
from service.codec.lattice import levels_of, tiles_of
from service.codec.subsampling import SMALLEST

MAGIC = b"\x8bBIJ\r\n\x1a\n"
VERSION = 1
MODEL_ID_BYTES = 8
LOSSLESS, GREY, ALPHA, ICC, EXIF, TIED = 1, 2, 4, 8, 16, 32
LAST_CODE = 784
"""Quality codes 0 ... 784 are qualities 1 ... 99 in steps of 1/8."""
FINE_LEVELS = 3
"""The finest levels have a part of their own each; all coarser ones share the first part."""


@dataclass(frozen=True)
class Header:
    """What a stream says before its sections.

    Attributes:
        flags: LOSSLESS | GREY | ALPHA | ICC | EXIF | TIED.
        model_id: 16 hex digits.
        width: Pixels.
        height: Pixels.
        code: Quality code; if lossless the number of the form in which the picture is coded.
        pixel_crc: CRC-32C of the decoded pixels, red green blue, row by row.
    """

    flags: int
    model_id: str
    width: int
    height: int
    code: int
    pixel_crc: int

    @property
    def lossless(self) -> bool:
        """Whether the pixels come back exactly."""
        return bool(self.flags & LOSSLESS)

    @property
    def tied(self) -> bool:
        """Whether parities of bins are those of a trellis."""
        return bool(self.flags & TIED)

    @property
    def form(self) -> Form | None:
        """As what a lossless picture is coded; None: red, green and blue, or lossy."""
        return Form.of(self.code) if self.lossless else None

    @property
    def quality(self) -> float:
        """1 ... 99 in steps of 1/8, or 100."""
        return 100.0 if self.lossless else quality_of(self.code)


@dataclass(frozen=True)
class Section:
    """One section of a stream.

    Attributes:
        kind: `icc`, `lists`, `part`, `alpha` or `exif`.
        tile: Index of the tile of a part, else 0.
        part: 0 for the coarsest part, else 0.
        scale: The picture is whole down to 1/scale once this section is read; None for what is not a part.
    """

    kind: str
    tile: int = 0
    part: int = 0
    scale: int | None = None


@dataclass(frozen=True)
class Placed:
    """A section and where its payload lies in the stream, in bytes."""

    section: Section
    start: int
    length: int


def code_of(quality: float) -> int:
    """Quality 1 ... 99, a multiple of 1/8 -> code."""
    return round((quality - 1) * 8)


def quality_of(code: int) -> float:
    """Code -> quality 1 ... 99."""
    return 1 + code / 8


def parts_of(levels: int) -> list[list[int]]:
    """Levels (coarsest first) in each part of a tile, if a picture has so many; the first also has the low-pass."""
    fine = min(levels, FINE_LEVELS)
    return [list(range(levels - 1, fine - 1, -1))] + [[level] for level in reversed(range(fine))]


def part_scale(levels: int, part: int) -> int:
    """The tile is whole down to 1/this once the part is read."""
    return 1 << (min(levels, FINE_LEVELS) - part)


def layout(header: Header) -> list[Section]:
    """The sections a stream with this header has, in order: coarse to fine over all tiles."""
    levels, tiles = levels_of(header.height, header.width), len(tiles_of(header.height, header.width))
    sections = [Section("icc")] if header.flags & ICC else []
    if header.form is not None:
        sections.append(Section("lists"))
    for part in range(len(parts_of(levels))):
        sections += [Section("part", tile, part, part_scale(levels, part)) for tile in range(tiles)]
    for flag, kind in ((ALPHA, "alpha"), (EXIF, "exif")):
        if header.flags & flag:
            sections.append(Section(kind))
    return sections


def _varint(value: int) -> bytes:
    result = bytearray()
    while value >= 128:
        result.append(value & 127 | 128)
        value >>= 7
    result.append(value)
    return bytes(result)


class _Reader:
    """Reads forward through bytes; every shortfall is a CorruptStreamError."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data, self.position = data, position

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.position:
            raise CorruptStreamError("the stream ends too early; send all of it")
        self.position += count
        return self.data[self.position - count : self.position]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                if byte == 0 and shift:
                    raise CorruptStreamError("a number is not in its shortest form; the stream is damaged")
                return value
        raise CorruptStreamError("a number is too long; the stream is damaged")


def crc32c(data: bytes | memoryview) -> int:
    """CRC-32C (Castagnoli) of some bytes."""
    return int(google_crc32c.value(bytes(data)))


def write(header: Header, payloads: list[bytes]) -> bytes:
    """Header and the payloads of its sections, in the order of `layout` -> stream."""
    head = MAGIC + bytes([VERSION, header.flags]) + bytes.fromhex(header.model_id)
    head += _varint(header.width - 1) + _varint(header.height - 1) + _varint(header.code)
    head += header.pixel_crc.to_bytes(4, "little")
    head += crc32c(head).to_bytes(4, "little")
    body = (_varint(len(p)) + p + crc32c(p).to_bytes(4, "little") for p in payloads)
    return head + b"".join(body)


def read_header(data: bytes, limits: Limits) -> tuple[Header, int]:
    """Parse a header; also where the first section starts.

    Raises:
        NotAStreamError: Foreign magic or version.
        CorruptStreamError: Truncated or damaged.
        LimitError: The picture is larger than the limits allow.
    """
    if not data.startswith(MAGIC):
        raise NotAStreamError("these bytes are not a .bij stream; send what /encode returned")
    reader = _Reader(data, len(MAGIC))
    version, flags = reader.take(2)
    if version != VERSION:
        raise NotAStreamError(f"format version {version} is not known; this reader knows {VERSION}")
    model_id = reader.take(MODEL_ID_BYTES).hex()
    width, height, code = reader.varint() + 1, reader.varint() + 1, reader.varint()
    pixel_crc = int.from_bytes(reader.take(4), "little")
    stated = crc32c(data[: reader.position])
    if int.from_bytes(reader.take(4), "little") != stated:
        raise CorruptStreamError("the header's checksum is wrong; the stream is damaged")
    lossless = flags & LOSSLESS
    last = 0 if flags & GREY and lossless else LAST_FORM if lossless else LAST_CODE
    if flags >= 2 * TIED or code > last or (lossless and flags & TIED):
        raise CorruptStreamError("the header has values this version does not define; the stream is damaged")
    limits.check(width, height)
    header = Header(flags, model_id, width, height, code, pixel_crc)
    if header.form is not None and header.form.orientation is not None and min(width, height) < SMALLEST:
        raise CorruptStreamError(
            "the header has a form that this version does not define for its size; the stream is damaged"
        )
    return header, reader.position


def read_sections(data: bytes, header: Header, start: int, limits: Limits, prefix: bool) -> tuple[list[Placed], bool]:
    """Find the sections of a stream; their checksums are tested.

    Args:
        data: The stream.
        header: Its header.
        start: Where the first section starts.
        limits: For lengths.
        prefix: Whether a stream cut short is accepted; what is cut is left out.

    Returns:
        The sections in order and whether all were there.

    Raises:
        CorruptStreamError: Truncated, damaged or followed by other bytes.
    """
    reader = _Reader(data, start)
    placed: list[Placed] = []
    for section in layout(header):
        try:
            length = reader.varint()
            if length > limits.body_bytes:
                raise LimitError("section_bytes", length, limits.body_bytes)
            payload = reader.take(length)
            stated = int.from_bytes(reader.take(4), "little")
        except CorruptStreamError:
            if not prefix:
                raise
            return placed, False
        if crc32c(payload) != stated:
            raise CorruptStreamError(f"the checksum of a section ({section.kind}) is wrong; the stream is damaged")
        placed.append(Placed(section, reader.position - 4 - length, length))
    if reader.position != len(data):
        raise CorruptStreamError("there are bytes after the last section; the stream is damaged")
    return placed, True
