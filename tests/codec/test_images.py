"""images: every mode becomes RGB and alpha, what cannot is refused, metadata is kept or dropped as asked."""

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from service import codec
from service.codec.images import OUTPUT_FORMATS
from tests.codec.samples import LIMITS, Pixels, alpha_of, grey_of, picture_of, pixels_of

ORIENTATION, MAKER, PROFILE = 0x0112, 0x010F, b"a colour profile " * 8


def file_of(image: Image.Image, fmt: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def read(data: bytes, **options: Any) -> codec.Picture:
    return codec.read_image(data, LIMITS, **options)


def colour(mode: str) -> Image.Image:
    image = Image.fromarray(pixels_of(11, 17))
    if mode in ("LA", "RGBA"):
        image = image.convert(mode)
        image.putalpha(Image.fromarray(alpha_of(11, 17)))
        return image
    return image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "fmt", "grey", "alpha"),
    [
        ("1", "PNG", True, False),
        ("L", "PNG", True, False),
        ("LA", "PNG", True, True),
        ("P", "PNG", False, False),
        ("P", "GIF", False, False),
        ("RGB", "PNG", False, False),
        ("RGB", "BMP", False, False),
        ("RGB", "TIFF", False, False),
        ("RGBA", "PNG", False, True),
        ("RGBA", "TIFF", False, True),
        ("CMYK", "TIFF", False, False),
        ("CMYK", "JPEG", False, False),
        ("YCbCr", "TIFF", False, False),
    ],
)
def test_every_mode_becomes_rgb_and_alpha(mode, fmt, grey, alpha):
    image = colour(mode)
    picture = read(file_of(image, fmt, **({"quality": 100} if fmt == "JPEG" else {})))
    assert picture.pixels.shape == (11, 17, 3)
    assert picture.pixels.dtype == np.uint8
    assert picture.grey == grey
    assert (picture.alpha is not None) == alpha
    expected = np.asarray(image.convert("RGB"))
    difference = np.abs(picture.pixels.astype(int) - expected).max()
    assert difference <= (12 if fmt == "JPEG" else 0)
    if alpha:
        np.testing.assert_array_equal(picture.alpha, alpha_of(11, 17))


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_becomes_alpha(mode):
    image = colour(mode)
    clear = np.asarray(image)[0, 0]
    picture = read(file_of(image, "PNG", transparency=tuple(clear.tolist()) if mode == "RGB" else int(clear)))
    matches = np.asarray(image) == clear
    np.testing.assert_array_equal(picture.alpha == 0, matches.all(axis=2) if mode == "RGB" else matches)
    assert picture.grey == (mode == "L")


def test_alpha_that_is_opaque_throughout_is_dropped():
    image = colour("RGB")
    image.putalpha(255)
    assert read(file_of(image)).alpha is None


@pytest.mark.parametrize("fmt", ["WEBP", "JPEG", "AVIF", "GIF", "BMP", "TIFF"])
def test_every_format_is_read(fmt):
    assert read(file_of(colour("RGB"), fmt)).pixels.shape == (11, 17, 3)


def deep_png(colour_type: int) -> bytes:
    """A 16-bit PNG of 2 x 2, written by hand: Pillow writes none with colour."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    rows = (b"\x00" + b"\x12\x34" * 2 * samples) * 2
    head = struct.pack(">IIBBBBB", 2, 2, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("colour_type", [0, 2, 4, 6])
def test_sixteen_bits_a_channel_are_refused(colour_type):
    with pytest.raises(codec.UnsupportedImageError, match="8 bits"):
        read(deep_png(colour_type))


@pytest.mark.parametrize("mode", ["F", "I", "I;16"])
def test_wide_tiff_modes_are_refused(mode):
    kind = {"F": np.float32, "I": np.int32, "I;16": np.uint16}[mode]
    with pytest.raises(codec.UnsupportedImageError, match="8 bits"):
        read(file_of(Image.fromarray(np.ones((3, 4), kind)), "TIFF"))


@pytest.mark.parametrize("fmt", ["GIF", "PNG", "WEBP", "TIFF"])
def test_several_frames_are_refused(fmt):
    frames = [Image.fromarray(pixels_of(8, 8, seed)) for seed in range(2)]
    with pytest.raises(codec.UnsupportedImageError, match="frames"):
        read(file_of(frames[0], fmt, save_all=True, append_images=frames[1:]))


@pytest.mark.parametrize("foreign", [b"", b"plain text", b"%PDF-1.7", b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_what_is_no_image_is_refused(foreign):
    with pytest.raises(codec.UnsupportedImageError):
        read(foreign)


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_a_truncated_image_is_refused(fmt):
    data = file_of(colour("RGB"), fmt)
    with pytest.raises((codec.InvalidImageError, codec.UnsupportedImageError)):
        read(data[: len(data) * 2 // 3])


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (codec.Limits(pixels=186), "pixels"),
        (codec.Limits(side=16), "side_pixels"),
        (codec.Limits(body_bytes=50), "body_bytes"),
    ],
)
def test_limits_come_before_pixels(limits, limit, monkeypatch):
    data = file_of(colour("RGB"))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were decoded"))
    with pytest.raises(codec.LimitError) as caught:
        codec.read_image(data, limits)
    assert caught.value.limit == limit
    assert caught.value.value > caught.value.maximum


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_to_the_pixels_and_taken_out(orientation):
    exif = Image.Exif()
    exif[ORIENTATION], exif[MAKER] = orientation, "maker"
    picture = read(file_of(colour("RGB"), exif=exif), metadata="all")
    pixels = pixels_of(11, 17)
    turned: dict[int, Pixels] = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: pixels.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(pixels, 1),
    }
    np.testing.assert_array_equal(picture.pixels, turned[orientation])
    kept = Image.Exif()
    assert picture.exif is not None
    kept.load(b"Exif\x00\x00" + picture.exif)
    assert ORIENTATION not in kept
    assert kept[MAKER] == "maker"


@pytest.mark.parametrize(
    ("metadata", "icc", "exif"), [("none", False, False), ("icc", True, False), ("all", True, True)]
)
def test_metadata_is_kept_or_dropped_as_asked(metadata, icc, exif):
    tags = Image.Exif()
    tags[MAKER] = "maker"
    picture = read(file_of(colour("RGB"), icc_profile=PROFILE, exif=tags), metadata=metadata)
    assert (picture.icc == PROFILE) if icc else (picture.icc is None)
    assert (picture.exif is not None) == exif


def test_a_profile_of_another_colour_space_is_dropped():
    assert read(file_of(colour("CMYK"), "JPEG", icc_profile=PROFILE)).icc is None


@pytest.mark.parametrize("fmt", ["png", "webp", "tiff"])
@pytest.mark.parametrize("kind", ["colour", "grey", "alpha", "grey and alpha"])
def test_lossless_formats_give_every_pixel_back(fmt, kind):
    base = grey_of(11, 17) if kind.startswith("grey") else picture_of(11, 17)
    alpha = alpha_of(11, 17) if kind.endswith("alpha") else None
    picture = codec.Picture(base.pixels, alpha, base.grey)
    back = read(codec.write_image(picture, fmt))
    np.testing.assert_array_equal(back.pixels, picture.pixels)
    if alpha is None:
        assert back.alpha is None
    else:
        np.testing.assert_array_equal(back.alpha, alpha)


@pytest.mark.parametrize("fmt", OUTPUT_FORMATS)
@pytest.mark.parametrize("alpha", [False, True])
def test_every_output_format_carries_metadata(fmt, alpha):
    tags = Image.Exif()
    tags[MAKER] = "maker"
    exif = tags.tobytes().removeprefix(b"Exif\x00\x00")
    picture = codec.Picture(pixels_of(11, 17), alpha_of(11, 17) if alpha else None, icc=PROFILE, exif=exif)
    with Image.open(io.BytesIO(codec.write_image(picture, fmt))) as image:
        assert image.format == fmt.upper()
        assert image.size == (17, 11)
        assert image.info["icc_profile"] == PROFILE
        assert image.getexif()[MAKER] == "maker"
        assert image.has_transparency_data == (alpha and fmt != "jpeg")


def test_jpeg_lays_alpha_over_white():
    clear = codec.Picture(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8))
    with Image.open(io.BytesIO(codec.write_image(clear, "jpeg"))) as image:
        assert image.getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("options", [{"fmt": "gif"}, {"fmt": "png", "quality": 0}, {"fmt": "jpeg", "quality": 101}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(codec.OptionError):
        codec.write_image(picture_of(4, 4), **options)


def test_a_phones_jpeg_with_a_preview_is_read_as_its_first_frame():
    first, preview = Image.new("RGB", (20, 12), "red"), Image.new("RGB", (10, 6), "blue")
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[preview])
    picture = codec.read_image(buffer.getvalue(), codec.Limits())
    assert picture.pixels.shape == (12, 20, 3)
    assert picture.pixels[0, 0, 0] > 200
