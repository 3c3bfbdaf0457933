"""peers: one contract for every entry of the table."""

import numpy as np
import pytest

from model_export.metrics import psnr
from model_export.peers import Codec, Pixels, peers

TABLE = peers()
LOSSY = [c for c in TABLE.values() if c.qualities]
LOSSLESS = [c for c in TABLE.values() if c.lossless_quality is not None]


def by_name(codec: Codec) -> str:
    return codec.name


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    """96 x 64, no side a multiple of the other, colour with a soft texture."""
    rows, columns = np.mgrid[0:64, 0:96] / 12
    planes = np.stack([128 + 70 * np.sin(rows + k) * np.cos(columns * (1 + k / 2)) for k in range(3)], -1)
    return np.asarray(planes + np.random.default_rng(3).normal(0, 3, planes.shape)).clip(0, 255).astype(np.uint8)


def test_the_table_holds_what_reports_name() -> None:
    assert set(TABLE) >= {"avif", "webp", "jpeg", "jpeg2000", "webp-lossless", "png"}
    assert all(name == codec.name for name, codec in TABLE.items())


@pytest.mark.parametrize("codec", LOSSY, ids=by_name)
def test_better_qualities_cost_more_and_look_better(codec: Codec, pixels: Pixels) -> None:
    low, high = (codec.encode(pixels, q) for q in (codec.qualities[1], codec.qualities[-2]))
    reached_db = [psnr(pixels, codec.decode(coded.stream)) for coded in (low, high)]
    assert len(low.stream) < len(high.stream)
    assert 15 < reached_db[0] < reached_db[1]


@pytest.mark.parametrize("codec", TABLE.values(), ids=by_name)
def test_decoding_gives_rgb_of_the_same_size(codec: Codec, pixels: Pixels) -> None:
    quality = codec.qualities[0] if codec.qualities else 100
    decoded = codec.decode(codec.encode(pixels, quality).stream)
    assert decoded.shape == pixels.shape
    assert decoded.dtype == np.uint8


@pytest.mark.parametrize("codec", TABLE.values(), ids=by_name)
def test_encoding_repeats_to_the_byte(codec: Codec, pixels: Pixels) -> None:
    quality = codec.qualities[-1] if codec.qualities else 100
    assert codec.encode(pixels, quality) == codec.encode(pixels, quality)


@pytest.mark.parametrize("codec", LOSSLESS, ids=by_name)
def test_lossless_is_lossless(codec: Codec, pixels: Pixels) -> None:
    assert np.array_equal(codec.decode(codec.encode(pixels, 100).stream), pixels)


@pytest.mark.parametrize("codec", LOSSY, ids=by_name)
def test_generation_qualities_are_of_the_curve(codec: Codec) -> None:
    assert set(codec.generation_qualities) <= set(codec.qualities)
    assert len(codec.generation_qualities) in (0, 3)


def test_threads_change_no_byte(pixels: Pixels) -> None:
    for name, codec in peers(threads=2).items():
        quality = codec.qualities[1] if codec.qualities else 100
        assert codec.encode(pixels, quality) == TABLE[name].encode(pixels, quality), name


def test_jpeg_xl_is_left_out_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pillow_jxl", None)
    monkeypatch.setitem(__import__("sys").modules, "pillow_jxl.JpegXLImagePlugin", None)
    assert not {"jxl", "jxl-lossless"} & set(peers())
