"""conversion: pictures that were luma and chroma are told by their colours, and come back to the byte as any other."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service import codec
from service.codec import lattice, writer
from service.codec.conversion import (
    CONVERSIONS,
    JPEG,
    PHOTO_CD,
    WEBP,
    Conversion,
    found_in,
    lifted,
    settled,
    unmixed,
    with_exceptions,
)
from tests.codec.samples import Pixels, grey_of, pixels_of, psnr_db, put_together, take_apart

LOSSLESS = codec.Target(quality=100)
SIZE = (72, 97)


def again(pixels: Pixels, form: str, **options: object) -> Pixels:
    """Pixels out of a file of another format."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return np.asarray(Image.open(file).convert("RGB"))


def photo_cd(pixels: Pixels) -> Pixels:
    return PHOTO_CD.pixels(PHOTO_CD.estimated(pixels))


def clipped(pixels: Pixels) -> Pixels:
    """With so much contrast that much of it is clipped."""
    result: Pixels = np.clip((pixels.astype(int) - 128) * 3 + 128, 0, 255).astype(np.uint8)
    return result


MADE = [
    pytest.param(lambda p: again(p, "JPEG", quality=75), JPEG, id="JPEG"),
    pytest.param(lambda p: again(p, "JPEG", quality=97, subsampling=0), JPEG, id="JPEG 4:4:4"),
    pytest.param(lambda p: again(p, "JPEG", quality=90, progressive=True, subsampling=1), JPEG, id="JPEG 4:2:2"),
    pytest.param(lambda p: again(clipped(p), "JPEG", quality=90), JPEG, id="clipped JPEG"),
    pytest.param(lambda p: again(p, "WEBP", quality=85), WEBP, id="WebP"),
    pytest.param(lambda p: again(clipped(p), "WEBP", quality=50), WEBP, id="clipped WebP"),
    pytest.param(photo_cd, PHOTO_CD, id="Photo CD"),
]


@pytest.mark.parametrize(("made", "by"), MADE)
def test_what_a_conversion_made_is_told_by_its_colours(made, by):
    pixels = made(pixels_of(*SIZE))
    found = found_in(pixels)
    assert found is not None
    assert found.conversion is by
    assert not found.exceptions
    np.testing.assert_array_equal(by.pixels(found.values), pixels)


@pytest.mark.parametrize("by", CONVERSIONS, ids=lambda by: by.name)
def test_luma_and_chroma_are_found_again(by: Conversion):
    """Those of colours that are not clipped are the only ones."""
    values = np.random.default_rng(0).integers(0, 256, (4000, 3)).astype(np.uint8)
    pixels = by.pixels(values)
    inside = ((pixels > 0) & (pixels < 255)).all(1)
    undone, missing = by.undone(pixels)
    assert inside.sum() > 400
    assert not missing[inside].any()
    np.testing.assert_array_equal(undone[inside], values[inside])
    np.testing.assert_array_equal(by.pixels(undone)[~missing], pixels[~missing])


@pytest.mark.parametrize("by", CONVERSIONS, ids=lambda by: by.name)
def test_few_colours_can_come_of_a_conversion(by: Conversion):
    shares = {JPEG: 0.25, WEBP: 0.17, PHOTO_CD: 0.11}
    colours = np.random.default_rng(1).integers(40, 216, (20_000, 3)).astype(np.uint8)
    _, missing = by.undone(colours)
    assert 0.3 * shares[by] < 1 - missing.mean() < 1.1 * shares[by]


@given(values=st.lists(st.integers(0, 255), min_size=3, max_size=3), number=st.integers(0, 2))
def test_lifted_planes_come_back_and_the_colour_step_undoes_their_mixing(values, number):
    by = CONVERSIONS[number]
    planes = lifted(np.array([values], np.uint8), by)
    np.testing.assert_array_equal(settled(planes, by)[0], values)
    blue, green, red = planes[0].astype(int)
    co = red - blue
    t = blue + (co >> 1)
    cg = green - t
    np.testing.assert_array_equal(unmixed(np.array(t + (cg >> 1)), np.array(cg), np.array(co), by), values)


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(pixels_of(*SIZE), id="photograph"),
        pytest.param(np.random.default_rng(2).integers(0, 256, (*SIZE, 3)).astype(np.uint8), id="noise"),
        pytest.param(again(pixels_of(*SIZE), "JPEG")[::2, ::2] // 2 + 60, id="of other contrast"),
        pytest.param(grey_of(*SIZE).pixels, id="grey"),
        pytest.param(np.full((*SIZE, 3), (130, 121, 128), np.uint8), id="one colour"),
        pytest.param(again(pixels_of(*SIZE), "JPEG")[:5, :5], id="too small to tell"),
    ],
)
def test_other_pictures_are_left_as_they_are(pixels):
    assert found_in(pixels) is None


def marked(share: float) -> Pixels:
    """Out of a JPEG file, then drawn on with colours that are in none."""
    pixels = again(pixels_of(*SIZE), "JPEG", quality=90)
    count = int(share * pixels[..., 0].size)
    places = np.random.default_rng(3).choice(pixels[..., 0].size, count, replace=False)
    pixels = pixels.copy()
    pixels.reshape(-1, 3)[places] = (3, 200, 77)
    assert JPEG.undone(np.array([[3, 200, 77]], np.uint8))[1].all()
    return pixels


def test_a_few_other_pixels_are_listed(models):
    pixels = marked(0.01)
    found = found_in(pixels)
    assert found is not None
    assert found.exceptions
    np.testing.assert_array_equal(with_exceptions(JPEG.pixels(found.values), found.exceptions), pixels)
    stream = codec.encode(codec.Picture(pixels), models.default, LOSSLESS).stream
    np.testing.assert_array_equal(codec.decode(stream, models).picture.pixels, pixels)


def test_more_than_a_few_are_too_many():
    assert found_in(marked(0.03)) is None


@pytest.mark.parametrize("exceptions", [b"\0", bytes(8), b"\x05\0\0\0abc\x05\0\0\0abc", b"\xff\xff\0\0abc"])
def test_a_damaged_list_is_refused(exceptions):
    with pytest.raises(codec.CorruptStreamError):
        with_exceptions(np.zeros((4, 4, 3), np.uint8), exceptions)


@pytest.mark.parametrize(("made", "by"), MADE)
def test_streams_are_smaller_and_exact(made, by, models, monkeypatch):
    picture = codec.Picture(made(pixels_of(*SIZE)))
    stream = codec.encode(picture, models.default, LOSSLESS).stream
    assert codec.inspect(stream).conversion == by.name
    np.testing.assert_array_equal(codec.decode(stream, models).picture.pixels, picture.pixels)
    monkeypatch.setattr(writer, "found_in", lambda pixels: None)
    plain = codec.encode(picture, models.default, LOSSLESS).stream
    assert codec.inspect(plain).conversion is None
    assert len(stream) < 0.95 * len(plain)


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_small_scales_look_as_without(scale, models, monkeypatch):
    picture = codec.Picture(again(pixels_of(96, 128), "JPEG", quality=90))
    stream = codec.encode(picture, models.default, LOSSLESS).stream
    monkeypatch.setattr(writer, "found_in", lambda pixels: None)
    plain = codec.encode(picture, models.default, LOSSLESS).stream
    small, expected = (codec.decode(own, models, scale=scale).picture.pixels for own in (stream, plain))
    assert small.shape == expected.shape
    assert psnr_db(small, expected) > 30


def test_pictures_of_several_tiles_are_exact(models, monkeypatch):
    monkeypatch.setattr(lattice, "TILE", 512)
    pixels = again(pixels_of(540, 20), "JPEG", quality=90)
    stream = codec.encode(codec.Picture(pixels), models.default, LOSSLESS).stream
    assert codec.inspect(stream).tiles == 2
    assert codec.inspect(stream).conversion == "JPEG"
    np.testing.assert_array_equal(codec.decode(stream, models).picture.pixels, pixels)


def test_lossy_and_grey_streams_know_no_conversion(models):
    pixels = again(pixels_of(*SIZE), "JPEG", quality=90)
    lossy = codec.encode(codec.Picture(pixels), models.default, codec.Target(quality=50)).stream
    grey = codec.encode(grey_of(*SIZE), models.default, LOSSLESS).stream
    assert codec.inspect(lossy).conversion is codec.inspect(grey).conversion is None


def test_a_list_is_read_from_a_stream_before_its_parts(models):
    stream = codec.encode(codec.Picture(marked(0.01)), models.default, LOSSLESS).stream
    assert codec.inspect(stream).sections[0].kind == "exceptions"
    header, payloads = take_apart(stream)
    with pytest.raises(codec.CorruptStreamError, match="checksum"):
        codec.decode(put_together(header, [b"", *payloads[1:]]), models)
