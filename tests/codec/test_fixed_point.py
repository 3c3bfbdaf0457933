"""fixed_point: rounds end at rest, cycles are left, saturated pixels are drawn inwards; nothing is claimed untried."""

import numpy as np
import pytest

from service import codec
from service.codec import fixed_point, lattice
from service.codec.fixed_point import UNIT, Margins, mixed, repeat
from service.codec.lattice import Area
from service.codec.target import Attempt, psnr_db
from tests.codec.test_saturation import bright_and_dark

SIDE = 64
WHOLE = Area(0, 0, 8, 8)
MIXTURE = [
    [1, 1, 0, 0, 1],
    [1, 1, 1, 0, 1],
    [1, 0, 1, 0, 0],
    [0, 1, 0, 0, 1],
    [1, 0, 1, 1, 0],
    [0, 1, 0, 1, 0],
    [1, 1, 0, 0, 1],
]
"""Of 7 by 5 blocks with seed 3."""


def attempt(name: str, level: int = 0) -> Attempt:
    return Attempt(0, name.encode(), np.full((SIDE, SIDE, 3), level, np.uint8))


@pytest.mark.parametrize("quality", [5, 75, 90])
@pytest.mark.parametrize("grey", [False, True])
def test_a_saturated_picture_comes_to_rest(quality, grey, models):
    picture = bright_and_dark()
    if grey:
        picture = codec.Picture(np.repeat(picture.pixels[..., 1:2], 3, 2), grey=True)
    target = codec.Target(quality=quality)
    plain = codec.encode(picture, models.default, target)
    encoded = codec.encode(picture, models.default, target, stable=True)
    assert encoded.stable
    decoded = codec.decode(encoded.stream, models).picture
    png = codec.read_image(codec.write_image(decoded, "png"), codec.Limits())
    assert codec.encode(png, models.default, target).stream == encoded.stream
    assert encoded.psnr_db == pytest.approx(psnr_db(picture.pixels, decoded.pixels))
    assert encoded.psnr_db > plain.psnr_db - 2


def test_every_stage_gives_streams_the_encoder_gives_too(models, monkeypatch):
    """Without the encoder's own rounds, and with few of the rest, the stages do the work."""
    monkeypatch.setattr(fixed_point, "OWN_ROUNDS", 0)
    monkeypatch.setattr(fixed_point, "ROUNDS", 0)
    picture, target = bright_and_dark(), codec.Target(quality=75)
    encoded = codec.encode(picture, models.default, target, stable=True)
    assert encoded.stable
    decoded = codec.decode(encoded.stream, models).picture
    assert codec.encode(decoded, models.default, target).stream == encoded.stream


def test_without_rest_the_first_stream_comes_back(models, monkeypatch):
    monkeypatch.setattr(fixed_point, "OWN_ROUNDS", 0)
    monkeypatch.setattr(fixed_point, "ROUNDS", 1)
    monkeypatch.setattr(fixed_point, "STAGES", ((1, 1),))
    picture, target = bright_and_dark(), codec.Target(quality=90)
    encoded = codec.encode(picture, models.default, target, stable=True)
    assert encoded.stable is False
    assert encoded.stream == codec.encode(picture, models.default, target).stream


def test_above_quality_90_only_the_encoder_s_own_rounds_are_tried(models, monkeypatch):
    monkeypatch.setattr(fixed_point, "write_as_is", lambda *_: pytest.fail("pixels taken as they are"))
    encoded = codec.encode(bright_and_dark(), models.default, codec.Target(quality=99), stable=True)
    assert encoded.stable is not None


def test_rounds_end_when_the_stream_stays():
    following = iter([attempt("b"), attempt("c"), attempt("c")])
    found, settled = repeat(attempt("a"), lambda _: next(following), 9)
    assert (found.stream, settled) == (b"c", True)
    assert next(following, None) is None


def test_rounds_are_bounded():
    numbers = iter(range(99))
    found, settled = repeat(attempt("a"), lambda _: attempt(f"{next(numbers)}"), 5)
    assert (found.stream, settled) == (b"4", False)


def test_a_cycle_is_left_through_a_mixture():
    one, other, rest = attempt("one", 1), attempt("other", 2), attempt("rest", 3)
    asked = []

    def encode(pixels: np.ndarray) -> Attempt:
        asked.append(pixels)
        if len(np.unique(pixels)) > 1:
            return rest
        return {1: other, 2: one, 3: rest}[int(pixels[0, 0, 0])]

    found, settled = repeat(one, encode, 9)
    assert (found.stream, settled) == (b"rest", True)
    assert [len(np.unique(pixels)) for pixels in asked] == [1, 1, 2, 1]


def test_a_mixture_that_gives_the_last_stream_again_is_not_taken_for_rest():
    one, other = attempt("one", 1), attempt("other", 2)

    def encode(pixels: np.ndarray) -> Attempt:
        return other if len(np.unique(pixels)) == 1 and pixels[0, 0, 0] == 1 else one

    assert repeat(one, encode, 9)[1] is False


def test_a_mixture_takes_blocks_of_both_and_is_the_same_everywhere():
    one, other = (np.full((100, 70, 3), level, np.uint8) for level in (0, 1))
    mixture = mixed(one, other, 3)
    assert mixture[::16, ::16, 0].tolist() == MIXTURE
    assert np.array_equal(mixture, np.kron(MIXTURE, np.ones((16, 16)))[:100, :70, None].repeat(3, 2))
    assert not np.array_equal(mixture, mixed(one, other, 4))


def test_margins_follow_what_overshoots_and_little_else():
    pixels = np.full((8, 8, 3), 128, np.uint8)
    margins = Margins(lambda area: area.of(lattice.to_planes(pixels, UNIT)), (8, 8))
    planes = np.zeros((1, 3, 8, 8), np.float32)
    planes[0, 0, 0, 0] = 127 * UNIT + fixed_point.TOLERATED
    assert not margins.grow(planes)
    assert not margins.read(WHOLE).any()
    planes[0, 1, 2, 3], planes[0, 2, 4, 5] = 130 * UNIT, -130 * UNIT
    assert margins.grow(planes.astype(np.int16))
    assert margins.grow(planes)
    drawn = margins.read(WHOLE)
    assert (drawn[0, 1, 2, 3], drawn[0, 2, 4, 5]) == (-6 * UNIT, 4 * UNIT)
    assert np.count_nonzero(drawn) == 2
    for _ in range(99):
        margins.grow(planes)
    assert np.abs(margins.read(WHOLE)).max() == fixed_point.FARTHEST
