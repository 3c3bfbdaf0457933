"""saturation: a decoded picture is found again though its overshoot was clipped; other pictures are left alone."""

import numpy as np
import pytest

from service import codec
from service.codec import lattice, saturation
from service.codec.target import psnr_db
from service.codec.tile import CodedTile

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


def tile_of(planes: np.ndarray, name: bytes = b"") -> CodedTile:
    return CodedTile((name,), planes)


def decode(coded: CodedTile) -> np.ndarray:
    assert coded.planes is not None
    return lattice.to_pixels(coded.planes, UNIT)


def shown(coded: CodedTile) -> saturation.Shown:
    return coded, decode(coded)


def overshooting() -> tuple[np.ndarray, np.ndarray]:
    """Planes beyond 0 ... 255 in places, and the pixels they show."""
    planes = np.rint(np.random.default_rng(2).uniform(-140, 140, (1, 3, 8, 8))).astype(np.float32) * UNIT
    return planes, lattice.to_pixels(planes, UNIT)


def test_what_lies_beyond_a_saturated_pixel_is_taken_from_the_first_attempt():
    planes, pixels = overshooting()
    almost = planes.copy()
    almost[0, 0, 0, 0] = 5 * UNIT  # one pixel differs: the rest is recognised
    asked = []

    def encode(given: np.ndarray) -> CodedTile:
        asked.append(given)
        return tile_of(planes, b"found")

    found, _ = saturation.settle(shown(tile_of(almost)), pixels, UNIT, encode, decode)
    assert found.parts == (b"found",)
    saturated = (lattice.to_planes(pixels, UNIT) <= -128 * UNIT) | (lattice.to_planes(pixels, UNIT) >= 127 * UNIT)
    saturated[0, 0, 0, 0] = False
    np.testing.assert_array_equal(asked[0][saturated], planes[saturated])
    np.testing.assert_array_equal(asked[0][~saturated], lattice.to_planes(pixels, UNIT)[~saturated])


def test_a_picture_that_is_not_the_encoder_s_own_is_encoded_once():
    planes, pixels = overshooting()
    first = tile_of(planes + 9 * UNIT)
    refuse = pytest.fail
    assert saturation.settle(shown(first), pixels, UNIT, lambda _: refuse("encoded again"), decode)[0] is first


def test_a_picture_without_saturated_pixels_is_encoded_once():
    pixels = np.full((8, 8, 3), 99, np.uint8)
    first = tile_of(lattice.to_planes(pixels, UNIT))
    refuse = pytest.fail
    assert saturation.settle(shown(first), pixels, UNIT, lambda _: refuse("encoded again"), decode)[0] is first


def test_rounds_are_bounded_and_the_best_attempt_wins():
    planes, pixels = overshooting()
    attempts = []

    def encode(given: np.ndarray) -> CodedTile:
        attempts.append(given)
        worse = planes.copy()
        worse[0, 0, 0, : 1 + len(attempts)] += 40 * UNIT
        return tile_of(worse, bytes([len(attempts)]))

    almost = planes.copy()
    almost[0, 0, 0, 0] += 40 * UNIT
    best, _ = saturation.settle(shown(tile_of(almost, b"first")), pixels, UNIT, encode, decode)
    assert len(attempts) <= saturation.ROUNDS
    assert decode(best).shape == pixels.shape


def test_a_white_page_with_other_print_is_not_taken_for_the_encoder_s_own():
    """Most pixels of a page come out as they went in; those that are not saturated tell."""
    pixels = np.full((16, 16, 3), 255, np.uint8)
    pixels[4:8, 4:12] = 90
    planes = lattice.to_planes(pixels, UNIT)
    planes[0, :, 4:8, 4:12] += 3 * UNIT
    first = tile_of(planes)
    assert saturation.settle(shown(first), pixels, UNIT, lambda _: pytest.fail("encoded again"), decode)[0] is first
