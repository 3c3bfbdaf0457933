"""subsampling: chroma that was interpolated is told from other chroma, and what it was made of is found."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from service.codec.conversion import CONVERSIONS, JPEG, PHOTO_CD, WEBP
from service.codec.subsampling import ORIENTATIONS, SMALLEST, Interpolation, orientation_of, turned, turned_back
from tests.codec.samples import pixels_of

KINDS = [pytest.param(by.interpolation, id=by.name) for by in CONVERSIONS]
SIZES = [(96, 128), (97, 128), (96, 131), (37, 51), (16, 17), (1100, 20)]


def kept_of(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Smooth samples with some noise."""
    height, width = ((side + 1) // 2 for side in size)
    return np.ascontiguousarray(pixels_of(height, width, seed)[..., 0])


def everywhere(plane: np.ndarray) -> np.ndarray:
    return np.ones(plane.shape, np.bool_)


def test_interpolation_is_libjpegs():
    """A JPEG file's chroma before it is interpolated is not to be had from Pillow; a flat block's is."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, :16], pixels[:, 16:] = (200, 60, 60), (60, 60, 200)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=100, subsampling=2)
    image = Image.open(file)
    image.draft("YCbCr", None)
    plane = np.asarray(image)[..., 1]
    kept = np.ascontiguousarray(plane[::2, ::2])
    kept[:, 7], kept[:, 8] = plane[0, 14 - 2], plane[0, 17 + 2]
    np.testing.assert_array_equal(JPEG.interpolation.whole(kept, (32, 32)), plane)


def test_weights_add_up_everywhere():
    for interpolation in (by.interpolation for by in CONVERSIONS):
        for size in SIZES:
            flat = np.full(tuple((side + 1) // 2 for side in size), 77, np.uint8)
            np.testing.assert_array_equal(interpolation.whole(flat, size), 77)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("interpolation", KINDS)
def test_kept_samples_are_found(interpolation: Interpolation, size):
    kept = kept_of(size)
    plane = interpolation.whole(kept, size)
    found = interpolation.kept(plane, everywhere(plane))
    assert np.mean(found != kept) < 0.1
    assert np.mean(interpolation.whole(found, size) != plane) < 0.03


def test_samples_that_were_kept_as_they_were_are_found_exactly():
    kept = kept_of((96, 128))
    plane = PHOTO_CD.interpolation.whole(kept, (96, 128))
    np.testing.assert_array_equal(PHOTO_CD.interpolation.kept(plane, everywhere(plane)), kept)


def test_bands_of_rows_make_no_difference():
    """Where rows are worked on together ends, samples are the same as in a plane that ends elsewhere."""
    kept = kept_of((1100, 24))
    plane = WEBP.interpolation.whole(kept, (1100, 24))
    np.testing.assert_array_equal(plane[200:400], WEBP.interpolation.whole(kept[90:210], (240, 24))[20:220])
    np.testing.assert_array_equal(plane[450:650], WEBP.interpolation.whole(kept[215:335], (240, 24))[20:220])


def test_samples_that_are_not_sure_are_found_from_those_around():
    kept = kept_of((96, 128))
    plane = PHOTO_CD.interpolation.whole(kept, (96, 128))
    sure = everywhere(plane)
    wrong = plane.copy()
    places = np.random.default_rng(0).integers(4, 44, (40, 2)) * 2
    wrong[places[:, 0], places[:, 1]] += 1
    sure[places[:, 0], places[:, 1]] = False
    found = PHOTO_CD.interpolation.kept(wrong, sure)
    assert np.count_nonzero(found != kept) < 0.2 * len(np.unique(places, axis=0))


@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_turned_planes_come_back(orientation):
    plane = kept_of((34, 66))
    np.testing.assert_array_equal(turned_back(turned(plane, orientation), orientation), plane)


def test_no_two_orientations_are_the_same():
    plane = kept_of((34, 34))
    assert len({turned(plane, orientation).tobytes() for orientation in range(ORIENTATIONS)}) == ORIENTATIONS


@pytest.mark.parametrize("orientation", range(ORIENTATIONS))
def test_orientations_are_told_apart_where_sides_are_odd(orientation):
    plane = turned_back(JPEG.interpolation.whole(kept_of((97, 131)), (97, 131)), orientation)
    found = orientation_of(plane, everywhere(plane), JPEG.interpolation)
    assert found is not None
    again = turned(plane, found)
    made = JPEG.interpolation.whole(JPEG.interpolation.kept(again, everywhere(again)), (again.shape[0], again.shape[1]))
    assert np.mean(made != again) < 0.05


@pytest.mark.parametrize("interpolation", KINDS)
def test_other_planes_are_not_taken_for_interpolated_ones(interpolation):
    noise = np.random.default_rng(1).integers(0, 256, (96, 128)).astype(np.uint8)
    full = np.ascontiguousarray(pixels_of(96, 128)[..., 1])
    small = interpolation.whole(kept_of((SMALLEST - 1, 64)), (SMALLEST - 1, 64))
    for plane in (noise, full, small):
        assert orientation_of(plane, everywhere(plane), interpolation) is None
