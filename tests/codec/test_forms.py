"""forms, conversion: pictures that were luma and chroma are told by their colours, and come back to the byte."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from service import codec
from service.codec import lattice, writer
from service.codec.arrays import Floats
from service.codec.container import read_header
from service.codec.conversion import CONVERSIONS, JPEG, PHOTO_CD, WEBP, Conversion
from service.codec.forms import (
    LAST_FORM,
    LIST_WIDTHS,
    Converted,
    Form,
    converted_of,
    found_in,
    lifted,
    settled,
    shown,
)
from service.codec.lattice import Area
from service.codec.listed import unpacked
from tests.codec.samples import LIMITS, Pixels, grey_of, pixels_of, psnr_db, put_together, take_apart

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
    """With so much contrast that much of it is clipped: too much for chroma to be found as it was kept."""
    result: Pixels = np.clip((pixels.astype(int) - 128) * 3 + 128, 0, 255).astype(np.uint8)
    return result


def photo_cd_halved(pixels: Pixels) -> Pixels:
    values = PHOTO_CD.estimated(pixels)
    for channel in (1, 2):
        kept = np.ascontiguousarray(values[::2, ::2, channel])
        values[..., channel] = PHOTO_CD.interpolation.whole(kept, (pixels.shape[0], pixels.shape[1]))
    return PHOTO_CD.pixels(values)


def back(found: Converted) -> Pixels:
    """What a decoder would show."""
    height, width = found.values.shape[:2]
    chroma = found.chroma()
    planes: Floats = found.planes(Area(0, 0, height, width))[0]
    return shown(planes.astype(np.int16), None if chroma is None else chroma[0], found.lists, found.form)


MADE = [
    pytest.param(lambda p: again(p, "JPEG", quality=75), JPEG, True, id="JPEG"),
    pytest.param(lambda p: np.rot90(again(p, "JPEG", quality=75)), JPEG, True, id="turned JPEG"),
    pytest.param(lambda p: again(p, "JPEG", quality=97, subsampling=0), JPEG, False, id="JPEG 4:4:4"),
    pytest.param(lambda p: again(p, "JPEG", quality=90, progressive=True, subsampling=1), JPEG, False, id="JPEG 4:2:2"),
    pytest.param(lambda p: again(clipped(p), "JPEG", quality=90), JPEG, False, id="clipped JPEG"),
    pytest.param(lambda p: again(p, "WEBP", quality=85), WEBP, True, id="WebP"),
    pytest.param(lambda p: again(clipped(p), "WEBP", quality=50), WEBP, False, id="clipped WebP"),
    pytest.param(photo_cd, PHOTO_CD, False, id="Photo CD"),
    pytest.param(photo_cd_halved, PHOTO_CD, True, id="Photo CD, chroma interpolated"),
    pytest.param(lambda p: photo_cd_halved(p)[::-1], PHOTO_CD, True, id="turned Photo CD"),
]


@pytest.mark.parametrize(("made", "by", "halved"), MADE)
def test_what_a_conversion_made_is_told_by_its_colours(made, by, halved):
    pixels = np.ascontiguousarray(made(pixels_of(*SIZE)))
    found = found_in(pixels)
    assert found is not None
    assert (found.form.conversion, found.form.orientation is not None) == (by, halved)
    assert not len(unpacked(found.lists, LIST_WIDTHS, pixels[..., 0].size)[2][0])
    np.testing.assert_array_equal(back(found), pixels)


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
    np.testing.assert_array_equal(settled(planes.T[:, :, None], by)[0, 0], values)
    blue, green, red = planes[0].astype(int)
    co = red - blue
    t = blue + (co >> 1)
    cg = green - t
    np.testing.assert_array_equal(converted_of(np.array(t + (cg >> 1)), np.array(cg), np.array(co), by), values)


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
    assert len(unpacked(found.lists, LIST_WIDTHS, pixels[..., 0].size)[2][0]) == int(0.01 * pixels[..., 0].size)
    np.testing.assert_array_equal(back(found), pixels)
    stream = codec.encode(codec.Picture(pixels), models.default, LOSSLESS).stream
    np.testing.assert_array_equal(codec.decode(stream, models).picture.pixels, pixels)


def test_more_than_a_few_are_too_many():
    assert found_in(marked(0.03)) is None


def test_every_form_has_a_number():
    forms = [Form.of(number) for number in range(LAST_FORM + 1)]
    assert forms[0] is None
    assert [form.number for form in forms if form is not None] == [*range(1, LAST_FORM + 1)]


@pytest.mark.parametrize(("made", "by", "halved"), MADE)
def test_streams_are_smaller_and_exact(made, by, halved, models, monkeypatch):
    picture = codec.Picture(np.ascontiguousarray(made(pixels_of(*SIZE))))
    stream = codec.encode(picture, models.default, LOSSLESS).stream
    assert codec.inspect(stream).conversion == by.name
    form = read_header(stream, LIMITS)[0].form
    assert form is not None
    assert (form.orientation is not None) == halved
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
    assert codec.inspect(stream).sections[0].kind == "lists"
    header, payloads = take_apart(stream)
    with pytest.raises(codec.CorruptStreamError, match="checksum"):
        codec.decode(put_together(header, [b"", *payloads[1:]]), models)
