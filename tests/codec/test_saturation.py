"""saturation: a decoded picture is found again though its overshoot was clipped; other pictures are left alone."""

import numpy as np
import pytest

from service import codec
from service.codec import lattice, saturation
from service.codec.tile import CodedTile

UNIT = lattice.LOSSY_UNIT


def hard_edges() -> codec.Picture:
    """Black, white and saturated red side by side: quantisation overshoots at every edge."""
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[16:80, 24:60] = 255
    pixels[30:60, 70:120] = (255, 0, 0)
    rng = np.random.default_rng(5)
    grain = rng.integers(-12, 13, (96, 64, 3))
    pixels[:, 64:] = np.clip(pixels[:, 64:].astype(int) + grain, 0, 255)
    return codec.Picture(pixels)


@pytest.mark.parametrize("quality", [10, 50, 75])
def test_quality_of_a_saturated_picture_stays_through_generations(models, quality):
    picture = hard_edges()
    decoded, levels_db = picture, []
    for _ in range(6):
        encoded = codec.encode(decoded, models.default, codec.Target(quality=quality))
        decoded = codec.decode(encoded.stream, models).picture
        levels_db.append(codec.psnr_db(picture.pixels, decoded.pixels))
    assert min(levels_db) > levels_db[0] - 0.1


def tile_of(planes: np.ndarray, name: bytes = b"") -> CodedTile:
    return CodedTile((name,), planes)


def decode(coded: CodedTile) -> np.ndarray:
    assert coded.planes is not None
    return lattice.to_pixels(coded.planes, UNIT)


def overshooting() -> tuple[np.ndarray, np.ndarray]:
    """Planes beyond 0 ... 255 in places, and the pixels they show."""
    planes = np.rint(np.random.default_rng(2).uniform(-150, 150, (1, 3, 8, 8))).astype(np.float32) * UNIT
    return planes, lattice.to_pixels(planes, UNIT)


def test_what_lies_beyond_a_saturated_pixel_is_taken_from_the_first_attempt():
    planes, pixels = overshooting()
    almost = planes.copy()
    almost[0, 0, 0, 0] = 5 * UNIT  # one pixel differs: the rest is recognised
    asked = []

    def encode(given: np.ndarray) -> CodedTile:
        asked.append(given)
        return tile_of(planes, b"found")

    found = saturation.settle(tile_of(almost), pixels, UNIT, encode, decode)
    assert found.parts == (b"found",)
    saturated = (lattice.to_planes(pixels, UNIT) <= -128 * UNIT) | (lattice.to_planes(pixels, UNIT) >= 127 * UNIT)
    saturated[0, 0, 0, 0] = False
    np.testing.assert_array_equal(asked[0][saturated], planes[saturated])
    np.testing.assert_array_equal(asked[0][~saturated], lattice.to_planes(pixels, UNIT)[~saturated])


def test_a_picture_that_is_not_the_encoder_s_own_is_encoded_once():
    planes, pixels = overshooting()
    first = tile_of(planes + 9 * UNIT)
    refuse = pytest.fail
    assert saturation.settle(first, pixels, UNIT, lambda _: refuse("encoded again"), decode) is first


def test_a_picture_without_saturated_pixels_is_encoded_once():
    pixels = np.full((8, 8, 3), 99, np.uint8)
    first = tile_of(lattice.to_planes(pixels, UNIT))
    refuse = pytest.fail
    assert saturation.settle(first, pixels, UNIT, lambda _: refuse("encoded again"), decode) is first


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
    best = saturation.settle(tile_of(almost, b"first"), pixels, UNIT, encode, decode)
    assert len(attempts) <= saturation.ROUNDS
    assert decode(best).shape == pixels.shape
