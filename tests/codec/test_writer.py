"""writer: lossy streams are tied, but for those of pictures that would lose by it what a decoder gave them."""

import numpy as np
import pytest

from service import codec
from service.codec import container, lattice, saturation, writer
from service.codec.clock import Clock
from service.codec.container import code_of
from service.codec.steps import DIRECT, Run
from tests.codec.samples import Pixels, pixels_of, psnr_db

TALL, WIDE = (160, 136), (96, 1056)


@pytest.fixture
def run(models: codec.ModelSet) -> Run:
    return Run(models.default, DIRECT, Clock())


def is_tied(stream: bytes) -> bool:
    return container.read_header(stream, codec.Limits())[0].tied


def written(pixels: Pixels, quality: float, run: Run) -> tuple[bytes, Pixels]:
    source = writer.source_of(codec.Picture(pixels), lattice.LOSSY_UNIT, run, None)
    return writer.write_stream(source, code_of(quality), run)


def soft(size: tuple[int, int]) -> Pixels:
    """A picture without saturated pixels."""
    pixels = (40 + pixels_of(*size).astype(np.int32) * 170 // 255).astype(np.uint8)
    assert not saturation.saturated(pixels).any()
    return pixels


@pytest.mark.parametrize(("quality", "tied"), [(1, True), (60, True), (90, True), (90.125, False), (99, False)])
def test_streams_are_tied_up_to_quality_90(quality, tied, run):
    assert is_tied(written(pixels_of(64, 48), quality, run)[0]) == tied


def test_lossless_streams_are_not_tied(models):
    assert not is_tied(codec.encode(codec.Picture(pixels_of(20, 30)), models.default, codec.Target(quality=100)).stream)


@pytest.mark.parametrize(("size", "quality"), [(TALL, 15), (TALL, 55), (TALL, 85), (WIDE, 15), (WIDE, 55)], ids=str)
def test_a_picture_decoded_from_a_free_stream_gives_it_again(size, quality, run, monkeypatch):
    pixels = soft(size)
    with monkeypatch.context() as patch:
        patch.setattr(saturation, "LAST_CODE", -1)
        stream, decoded = written(pixels, quality, run)
    assert not is_tied(stream)
    again, shown = written(decoded, quality, run)
    np.testing.assert_array_equal(shown, decoded)
    assert again == stream


@pytest.mark.parametrize("size", [TALL, WIDE], ids=["one tile", "two"])
def test_a_decoded_picture_that_was_touched_keeps_its_other_bins(size, run):
    """A spot painted over: networks read it, so tied bins would change all around."""
    _, decoded = written(soft(size), 60, run)
    touched = decoded.copy()
    touched[40:48, 40:48] = 90
    stream, shown = written(touched, 60, run)
    assert not is_tied(stream)
    latent = writer.source_of(codec.Picture(touched), lattice.LOSSY_UNIT, run, None).latent()
    tied = writer._coded(latent, code_of(60), False, run, keep=False, tied=True).pixels
    assert tied is not None
    assert psnr_db(shown, touched) > psnr_db(tied, touched) + 3
    _, again = written(shown, 60, run)
    assert psnr_db(again, shown) > 50


def test_other_pictures_are_not_taken_for_decoded_ones(run):
    for quality in (5, 30, 60, 90):
        for pixels in (soft(TALL), pixels_of(*TALL)):
            source = writer.source_of(codec.Picture(pixels), lattice.LOSSY_UNIT, run, None)
            assert not writer._is_decoded(source.latent(), code_of(quality), run)
            _, decoded = writer.write_stream(source, code_of(quality), run)
            again = writer.source_of(codec.Picture(decoded), lattice.LOSSY_UNIT, run, None)
            assert writer._is_decoded(again.latent(), code_of(quality), run)


def test_a_calm_picture_that_mostly_comes_back_as_it_was_is_not_taken_for_a_decoded_one(run, monkeypatch):
    """It is saturated as well, so a search for what was clipped would begin, find nothing and cost a third more."""
    rng = np.random.default_rng(4)
    pixels = np.full((*TALL, 3), 120, np.uint8)
    pixels[:64] = 255
    pixels[96:128, 32:96] = np.clip(120 + rng.normal(0, 12, (32, 64, 1)), 0, 255)
    monkeypatch.setattr(writer, "_recovered", None)  # calling it would fail
    _, shown = written(pixels, 90, run)
    clear = ~saturation.saturated(pixels)
    assert (shown == pixels).all(-1)[clear].mean() > saturation.RECOGNISED_SHARE


@pytest.mark.parametrize("size", [TALL, WIDE], ids=["one tile", "two"])
def test_only_pictures_that_a_decoder_may_have_made_are_held(size, run):
    def parts(pixels: Pixels, held: bool) -> tuple[tuple[bytes, ...], ...]:
        latent = writer.source_of(codec.Picture(pixels), lattice.LOSSY_UNIT, run, None).latent()
        return writer._coded(latent, code_of(80), False, run, keep=False, tied=True, held=held).parts

    def in_stream(stream: bytes, held: tuple[tuple[bytes, ...], ...]) -> bool:
        return all(part in stream for tile in held for part in tile)

    pixels = soft(size)
    stream, decoded = written(pixels, 80, run)
    assert in_stream(stream, parts(pixels, held=False))
    assert not in_stream(stream, parts(pixels, held=True))
    again, _ = written(decoded, 80, run)
    assert in_stream(again, parts(decoded, held=True))
    assert not in_stream(again, parts(decoded, held=False))


def test_tied_streams_are_smaller_at_equal_distortion(run, monkeypatch):
    """At the same quality they lose a little more and cost less; along the curve of free ones they gain."""
    pixels = soft((256, 256))
    with monkeypatch.context() as patch:
        patch.setattr(saturation, "LAST_CODE", -1)
        free = [written(pixels, quality, run) for quality in (66, 68, 70, 72)]
    stream, shown = written(pixels, 70, run)
    assert is_tied(stream)
    sizes, decibels = [len(own) for own, _ in free], [psnr_db(pixels, own) for _, own in free]
    assert len(stream) < 0.98 * np.interp(psnr_db(pixels, shown), decibels, sizes)
