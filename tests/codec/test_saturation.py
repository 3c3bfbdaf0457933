"""saturation: a decoded picture is found again though its overshoot was clipped; other pictures are left alone."""

import dataclasses

import numpy as np
import pytest

from service import codec
from service.codec import lattice, saturation
from service.codec.target import psnr_db
from service.codec.writer import CodedPicture

UNIT = lattice.LOSSY_UNIT


def bright_and_dark() -> codec.Picture:
    """A grainy slope with burnt highlights, drowned shadows and a saturated red; quantisation overshoots there."""
    rows, columns = np.mgrid[0:96, 0:128]
    slope = np.stack([40 + columns, 60 + rows, 150 - rows // 2], 2) + np.random.default_rng(5).integers(
        -9, 10, (96, 128, 3)
    )
    slope[16:34, 24:50] = 255
    slope[50:66, 84:110] = 0
    slope[70:84, 20:34] = (255, 0, 0)
    return codec.Picture(slope.astype(np.uint8))


@pytest.mark.parametrize("quality", [25, 50, 75, 90])
def test_quality_of_a_saturated_picture_stays_through_generations(models, quality):
    picture = bright_and_dark()
    decoded, levels_db = picture, []
    for _ in range(6):
        encoded = codec.encode(decoded, models.default, codec.Target(quality=quality))
        decoded = codec.decode(encoded.stream, models).picture
        levels_db.append(psnr_db(picture.pixels, decoded.pixels))
    assert min(levels_db) > levels_db[0] - 0.1


def coded(planes: np.ndarray, name: bytes = b"") -> CodedPicture:
    return CodedPicture(((name,),), lattice.to_pixels(planes, UNIT), planes)


def overshooting() -> tuple[np.ndarray, np.ndarray]:
    """Planes beyond 0 ... 255 in places, and the pixels they show."""
    planes = np.rint(np.random.default_rng(2).uniform(-140, 140, (1, 3, 8, 8))).astype(np.float32) * UNIT
    return planes, lattice.to_pixels(planes, UNIT)


@pytest.mark.parametrize("kind", [np.float32, np.int16], ids=["one tile", "several"])
def test_what_lies_beyond_a_saturated_pixel_is_taken_from_the_first_attempt(kind):
    planes, pixels = overshooting()
    almost = planes.copy()
    almost[0, 0, 0, 0] = 5 * UNIT  # one pixel differs: the rest is recognised
    asked = []

    def encode(given: np.ndarray) -> CodedPicture:
        asked.append(given)
        return coded(planes, b"found")

    first = dataclasses.replace(coded(almost), planes=almost.astype(kind))
    assert saturation.settle(first, pixels, UNIT, encode).parts == ((b"found",),)
    assert asked[0].dtype == kind
    saturated = (lattice.to_planes(pixels, UNIT) <= -128 * UNIT) | (lattice.to_planes(pixels, UNIT) >= 127 * UNIT)
    saturated[0, 0, 0, 0] = False
    np.testing.assert_array_equal(asked[0][saturated], planes[saturated])
    np.testing.assert_array_equal(asked[0][~saturated], lattice.to_planes(pixels, UNIT)[~saturated])


def test_a_picture_that_is_not_the_encoder_s_own_is_encoded_once():
    planes, pixels = overshooting()
    first = coded(planes + 9 * UNIT)
    assert saturation.settle(first, pixels, UNIT, lambda _: pytest.fail("encoded again")) is first


def test_a_picture_without_saturated_pixels_is_encoded_once():
    pixels = np.full((8, 8, 3), 99, np.uint8)
    first = coded(lattice.to_planes(pixels, UNIT))
    assert saturation.settle(first, pixels, UNIT, lambda _: pytest.fail("encoded again")) is first


def test_rounds_are_bounded_and_the_best_attempt_wins():
    planes, pixels = overshooting()
    attempts = []

    def encode(given: np.ndarray) -> CodedPicture:
        attempts.append(given)
        worse = planes.copy()
        worse[0, 0, 0, : 1 + len(attempts)] += 40 * UNIT
        return coded(worse, bytes([len(attempts)]))

    almost = planes.copy()
    almost[0, 0, 0, 0] += 40 * UNIT
    best = saturation.settle(coded(almost, b"first"), pixels, UNIT, encode)
    assert best.parts == ((b"first",),)
    assert len(attempts) <= saturation.ROUNDS


def test_a_white_page_with_other_print_is_not_taken_for_the_encoder_s_own():
    """Most pixels of a page come out as they went in; those that are not saturated tell."""
    pixels = np.full((16, 16, 3), 255, np.uint8)
    pixels[4:8, 4:12] = 90
    planes = lattice.to_planes(pixels, UNIT)
    planes[0, :, 4:8, 4:12] += 3 * UNIT
    first = coded(planes)
    assert saturation.settle(first, pixels, UNIT, lambda _: pytest.fail("encoded again")) is first
