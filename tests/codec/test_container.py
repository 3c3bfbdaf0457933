"""container: a stream says exactly what was written, in one order, and no damage goes unnoticed."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service import codec
from service.codec import container, lattice
from service.codec.container import ALPHA, EXIF, GREY, ICC, LAST_CODE, LOSSLESS, TIED, Header
from service.codec.forms import LAST_FORM
from service.codec.subsampling import SMALLEST
from tests.codec.samples import LIMITS, picture_of, put_together, rich_of, take_apart

MODEL_ID = "0123456789abcdef"


@pytest.fixture(scope="module")
def stream(models: codec.ModelSet) -> bytes:
    return codec.encode(picture_of(21, 34), models.default, codec.Target(quality=40)).stream


@pytest.fixture(scope="module")
def rich(models: codec.ModelSet) -> bytes:
    return codec.encode(rich_of(19, 18), models.default, codec.Target(quality=30)).stream


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 16383, 16384, 2**31, 2**35 - 1])
def test_numbers_come_back_in_their_shortest_form(value):
    written = container._varint(value)
    assert len(written) == max(1, -(-value.bit_length() // 7))
    reader = container._Reader(written)
    assert reader.varint() == value
    assert reader.position == len(written)


@pytest.mark.parametrize("damaged", [b"\x80\x00", b"\xff\x80\x00", b"\x80" * 5 + b"\x01", b"\x80", b""])
def test_numbers_of_another_form_are_refused(damaged):
    with pytest.raises(codec.CorruptStreamError):
        container._Reader(damaged).varint()


@settings(max_examples=60)
@given(
    flags=st.integers(0, 63).filter(lambda flags: not (flags & LOSSLESS and flags & TIED)),
    width=st.integers(1, 32_768),
    height=st.integers(1, 1_500),
    code=st.integers(0, LAST_CODE),
    crc=st.integers(0, 2**32 - 1),
)
def test_headers_come_back(flags, width, height, code, crc):
    numbers = 1 if flags & GREY or min(width, height) < SMALLEST else LAST_FORM + 1
    header = Header(flags, MODEL_ID, width, height, code % numbers if flags & LOSSLESS else code, crc)
    written = container.write(header, [])
    assert container.read_header(written + b"what follows", LIMITS) == (header, len(written))


@pytest.mark.parametrize("code", [0, 1, 392, LAST_CODE])
def test_a_code_is_an_eighth_of_quality(code):
    assert container.code_of(container.quality_of(code)) == code
    assert Header(0, MODEL_ID, 1, 1, code, 0).quality == 1 + code / 8
    assert Header(LOSSLESS, MODEL_ID, 1, 1, 0, 0).quality == 100


@given(levels=st.integers(0, lattice.LEVELS))
def test_parts_hold_every_level_once_coarse_to_fine(levels):
    parts = container.parts_of(levels)
    assert [level for part in parts for level in part] == list(reversed(range(levels)))
    scales = [container.part_scale(levels, part) for part in range(len(parts))]
    assert scales == [1 << (len(parts) - 1 - part) for part in range(len(parts))]


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (1, 1),
        (8, 8),
        (9, 3),
        (300, 200),
        (lattice.TILE + 1, 1),
        (lattice.TILE + 9, lattice.TILE + 40),
        (3 * lattice.TILE, 7),
    ],
)
def test_the_layout_goes_from_coarse_to_fine_and_holds_every_part_once(width, height):
    sections = container.layout(Header(ICC | ALPHA | EXIF, MODEL_ID, width, height, 0, 0))
    assert [s.kind for s in sections if s.kind != "part"] == ["icc", "alpha", "exif"]
    assert sections[0].kind == "icc"
    assert [s.kind for s in sections[-2:]] == ["alpha", "exif"]
    parts = [s for s in sections if s.kind == "part"]
    expected = {
        (index, part)
        for index in range(len(lattice.tiles_of(height, width)))
        for part in range(len(container.parts_of(lattice.levels_of(height, width))))
    }
    assert len(parts) == len(expected)
    assert {(s.tile, s.part) for s in parts} == expected
    for index in {s.tile for s in parts}:
        own = [s.part for s in parts if s.tile == index]
        assert own == sorted(own)
    first = [s.tile for s in parts if s.part == 0]
    assert [s.tile for s in parts[: len(first)]] == first == sorted(first), "every tile is there after the first round"


def test_a_stream_comes_apart_and_together(stream, rich):
    for one in (stream, rich):
        assert put_together(*take_apart(one)) == one


def test_every_truncation_is_refused(stream, models):
    for length in range(len(stream)):
        with pytest.raises(codec.StreamError):
            codec.decode(stream[:length], models)


def test_every_truncation_is_a_smaller_picture_or_refused(stream, models):
    seen: list[int] = []
    for length in range(0, len(stream), 3):
        try:
            decoded = codec.decode(stream[:length], models, prefix=True)
        except codec.StreamError:
            assert not seen, "once there is a picture, more bytes never take it away"
        else:
            seen.append(decoded.scale)
            assert decoded.picture.pixels.shape[:2] == (-(-21 // decoded.scale), -(-34 // decoded.scale))
    assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("kind", ["stream", "rich"])
def test_every_flipped_byte_is_refused(kind, models, request):
    whole = request.getfixturevalue(kind)
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10 + place % 16
        with pytest.raises((codec.StreamError, codec.LimitError)):
            codec.decode(bytes(damaged), models)


def test_a_flipped_byte_never_gives_another_prefix_picture(stream, models):
    whole = {scale: codec.decode(stream, models, scale=scale).picture.pixels for scale in (1, 2, 4, 8)}
    for place in range(0, len(stream), 2):
        damaged = bytearray(stream)
        damaged[place] ^= 1 << place % 8
        try:
            decoded = codec.decode(bytes(damaged), models, prefix=True)
        except (codec.StreamError, codec.LimitError):
            continue
        assert (decoded.picture.pixels == whole[decoded.scale]).all()


@pytest.mark.parametrize("prefix", [False, True])
def test_bytes_after_the_end_are_refused(stream, models, prefix):
    with pytest.raises(codec.CorruptStreamError, match="after the last section"):
        codec.decode(stream + b"\x00", models, prefix=prefix)


@pytest.mark.parametrize("foreign", [b"", b"\x89PNG\r\n\x1a\n", b"\x8bBIJ\n\x1a\n" + b"\x00" * 40])
def test_foreign_magic_is_not_a_stream(foreign, models):
    with pytest.raises(codec.NotAStreamError):
        codec.decode(foreign, models)


@pytest.mark.parametrize("version", [0, 2])
def test_another_version_is_not_a_stream(stream, models, version):
    with pytest.raises(codec.NotAStreamError, match=f"version {version}"):
        codec.decode(stream[:8] + bytes([version]) + stream[9:], models)


@pytest.mark.parametrize(
    "change",
    [
        {"flags": 64},
        {"flags": 128},
        {"code": LAST_CODE + 1},
        {"flags": LOSSLESS, "code": LAST_FORM + 1},
        {"flags": LOSSLESS | GREY, "code": 1},
        {"flags": LOSSLESS, "code": LAST_FORM, "height": SMALLEST - 1},
        {"flags": LOSSLESS | TIED, "code": 0},
    ],
)
def test_values_the_version_does_not_define_are_refused(stream, models, change):
    header, payloads = take_apart(stream)
    with pytest.raises(codec.CorruptStreamError, match="does not define"):
        codec.decode(put_together(dataclasses.replace(header, **change), payloads), models)


def test_an_unknown_model_is_named(stream, models):
    header, payloads = take_apart(stream)
    with pytest.raises(codec.UnknownModelError) as caught:
        codec.decode(put_together(dataclasses.replace(header, model_id=MODEL_ID), payloads), models)
    assert caught.value.model_id == MODEL_ID
    assert caught.value.served == tuple(m.id for m in models)


@pytest.mark.parametrize(
    ("width", "height", "limit"), [(32_769, 1, "side_pixels"), (1, 2**34, "side_pixels"), (20_000, 20_000, "pixels")]
)
def test_a_large_size_is_refused_before_anything_is_allocated(width, height, limit):
    header = container.write(Header(GREY, MODEL_ID, width, height, 0, 0), [])
    with pytest.raises(codec.LimitError) as caught:
        container.read_header(header, LIMITS)
    assert caught.value.limit == limit


def test_a_section_longer_than_the_limit_is_refused(stream, models):
    header, _ = take_apart(stream)
    head = container.write(header, [])
    with pytest.raises(codec.LimitError) as caught:
        codec.decode(head + container._varint(LIMITS.body_bytes + 1), models)
    assert caught.value.limit == "section_bytes"


def test_inspect_says_what_is_there(rich, stream):
    info = codec.inspect(rich)
    assert (info.version, info.width, info.height, info.quality, info.lossless) == (1, 18, 19, 30.0, False)
    assert (info.has_alpha, info.grey, info.icc_bytes, info.exif_bytes) == (True, False, 63, 20)
    assert (info.total_bytes, info.complete, info.tiles, info.levels) == (len(rich), True, 1, 2)
    assert [s.kind for s in info.sections] == ["icc", "part", "part", "part", "alpha", "exif"]
    assert [s.scale for s in info.sections] == [None, 4, 2, 1, None, None]
    assert rich[info.sections[0].offset :][: info.sections[0].length] == b"profile" * 9
    cut = codec.inspect(stream[: len(stream) // 2])
    assert not cut.complete
    assert len(cut.sections) < len(codec.inspect(stream).sections)
