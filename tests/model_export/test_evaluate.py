"""evaluate: figures are those of the files, an interrupted run continues, a wrong picture is never averaged."""

import json
import math
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_export import evaluate as module
from model_export.cache import Cache
from model_export.data import NoPicturesError
from model_export.evaluate import evaluate, main
from model_export.measure import BrokenPromiseError, NotLosslessError, measure_descent, measure_point
from model_export.metrics import ms_ssim, psnr
from model_export.peers import Codec, Coded, Pixels
from model_export.report import Evaluation
from model_export.samples import Sample, find_samples
from model_export.summarise import CurvePoint, UnknownAnchorError, compare, read_anchors

QUALITIES = (25.0, 50.0, 75.0, 100.0)
GENERATIONS = (1, 2, 5)


def step_of(quality: float) -> int:
    return 1 if quality == 100 else int(64 / quality * 10)


class Bins:
    """A codec of one line: pixels in bins of a width, deflated. Counts how often it encodes."""

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, pixels: Pixels, quality: float) -> Coded:
        self.encoded += 1
        step = step_of(quality)
        head = struct.pack("<HHB", *pixels.shape[:2], step)
        stream = head + zlib.compress((pixels // step).tobytes())
        return Coded(stream, psnr(pixels, self.decode(stream)))

    @staticmethod
    def decode(stream: bytes) -> Pixels:
        height, width, step = struct.unpack("<HHB", stream[:5])
        bins = np.frombuffer(zlib.decompress(stream[5:]), np.uint8).reshape(height, width, 3)
        return np.asarray(np.minimum(bins.astype(np.int64) * step + step // 2, 255), np.uint8)


def codec_of(bins: Bins, name: str = "bijou") -> Codec:
    return Codec(
        name, "test", bins.encode, bins.decode, QUALITIES, lossless_quality=100, generation_qualities=(25.0, 50.0)
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three small pictures of different sizes."""
    place = tmp_path / "pictures"
    place.mkdir()
    for index, (height, width) in enumerate([(24, 40), (33, 17), (12, 12)]):
        rows, columns = np.mgrid[0:height, 0:width]
        planes = np.stack([rows * 5, columns * 4, rows * columns // (3 + index)], -1)
        Image.fromarray((planes % 256).astype(np.uint8)).save(place / f"picture{index}.png")
    return place


@pytest.fixture
def samples(folder: Path) -> list[Sample]:
    return find_samples([folder])


@pytest.fixture
def run(samples: list[Sample]) -> Callable[..., Evaluation]:
    def measured(*codecs: Codec, cache: Path | None = None, jobs: int = 1) -> Evaluation:
        return evaluate(samples, codecs, Cache(cache), generations=GENERATIONS, jobs=jobs, timed=False)

    return measured


def test_means_are_over_pictures_of_figures_of_whole_files(
    run: Callable[..., Evaluation], samples: list[Sample]
) -> None:
    bins = Bins()
    found = run(codec_of(bins)).curves[1]
    coded = [(s.pixels(), bins.encode(s.pixels(), 50).stream) for s in samples]
    rates = [8 * len(stream) / (p.shape[0] * p.shape[1]) for p, stream in coded]
    assert (found.quality, found.pictures) == (50, 3)
    assert found.bits_per_pixel == pytest.approx(np.mean(rates))
    assert found.psnr_db == pytest.approx(np.mean([psnr(p, Bins.decode(stream)) for p, stream in coded]))
    assert found.ms_ssim == pytest.approx(np.mean([ms_ssim(p, Bins.decode(stream)) for p, stream in coded]))


def test_a_resumed_run_measures_nothing_twice_and_finds_the_same(
    run: Callable[..., Evaluation], tmp_path: Path
) -> None:
    first, second = Bins(), Bins()
    before = run(codec_of(first), cache=tmp_path / "cache")
    after = run(codec_of(second), cache=tmp_path / "cache")
    assert after == before == run(codec_of(Bins()))
    assert first.encoded > 0 == second.encoded


def test_a_line_cut_short_is_measured_again_and_the_next_one_survives(
    run: Callable[..., Evaluation], tmp_path: Path
) -> None:
    before = run(codec_of(Bins()), cache=tmp_path)
    file = tmp_path / "bijou.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    resumed, resumed_again = Bins(), Bins()
    assert run(codec_of(resumed), cache=tmp_path) == before
    assert run(codec_of(resumed_again), cache=tmp_path) == before
    assert resumed.encoded > 0 == resumed_again.encoded


@pytest.mark.parametrize("change", [{"setting": "other"}, {"name": "other"}])
def test_another_setting_or_name_is_another_figure(
    samples: list[Sample], tmp_path: Path, change: dict[str, str]
) -> None:
    bins = Bins()
    measure_point(codec_of(bins), 50, samples[0], Cache(tmp_path))
    measure_point(replace(codec_of(bins), **change), 50, samples[0], Cache(tmp_path))  # type: ignore[arg-type]
    assert bins.encoded == 2


def test_an_edited_picture_is_another_figure(folder: Path, tmp_path: Path) -> None:
    bins, name = Bins(), folder / "picture0.png"
    measure_point(codec_of(bins), 50, find_samples([name])[0], Cache(tmp_path))
    Image.new("RGB", (30, 20), "red").save(name)
    measure_point(codec_of(bins), 50, find_samples([name])[0], Cache(tmp_path))
    assert bins.encoded == 2


def test_several_jobs_find_the_same(run: Callable[..., Evaluation], tmp_path: Path) -> None:
    assert run(codec_of(Bins()), jobs=3, cache=tmp_path / "a") == run(codec_of(Bins()))
    assert run(codec_of(Bins()), cache=tmp_path / "a") == run(codec_of(Bins()))


def test_one_differing_pixel_is_not_lossless(run: Callable[..., Evaluation]) -> None:
    def decode(stream: bytes) -> Pixels:
        pixels = Bins.decode(stream).copy()
        if stream[4] == 1:
            pixels[3, 5, 1] ^= 1
        return pixels

    broken = replace(codec_of(Bins()), encode=lambda p, q: Coded(Bins().encode(p, q).stream), decode=decode)
    with pytest.raises(NotLosslessError, match="bijou at quality 100: 1 pixels differ"):
        run(broken)


@pytest.mark.parametrize("promised_db", [12.0, math.inf, math.nan])
def test_a_wrong_promise_is_refused(samples: list[Sample], promised_db: float) -> None:
    lying = replace(codec_of(Bins()), encode=lambda p, q: Coded(Bins().encode(p, q).stream, promised_db))
    with pytest.raises(BrokenPromiseError, match="encoder reported"):
        measure_point(lying, 25, samples[0], Cache(None))


def test_another_size_is_refused(samples: list[Sample]) -> None:
    cropping = replace(codec_of(Bins()), decode=lambda s: Bins.decode(s)[1:])
    with pytest.raises(BrokenPromiseError, match="came back as"):
        measure_point(cropping, 25, samples[0], Cache(None))


def test_a_broken_file_leaves_nothing_in_the_cache(samples: list[Sample], tmp_path: Path) -> None:
    cropping = replace(codec_of(Bins()), decode=lambda s: Bins.decode(s)[1:])
    with pytest.raises(BrokenPromiseError):
        measure_point(cropping, 25, samples[0], Cache(tmp_path))
    assert not list(tmp_path.glob("*.jsonl"))


def test_generations_stop_at_a_fixed_point_and_keep_their_figures(samples: list[Sample]) -> None:
    bins = Bins()
    descent = measure_descent(codec_of(bins), 25, samples[0], Cache(None), (1, 2, 50))
    assert descent.fixed_since == 1
    assert bins.encoded == 2
    assert len(set(descent.psnr_db)) == 1


def test_generations_follow_a_drift_to_the_end(samples: list[Sample]) -> None:
    shape = samples[0].pixels().shape

    def decode(stream: bytes) -> Pixels:
        return np.frombuffer(stream, np.uint8).reshape(shape)

    def first(pixels: Pixels, _: float) -> Coded:
        return Coded((pixels ^ np.uint8(1)).tobytes())

    def later(pixels: Pixels, _: float) -> Coded:
        return Coded((pixels ^ np.uint8(128)).tobytes())

    drifting = Codec("drift", "", first, decode, again=later)
    descent = measure_descent(drifting, 1, samples[0], Cache(None), (1, 2, 3))
    assert descent.fixed_since is None
    assert descent.psnr_db[0] == descent.psnr_db[2] > descent.psnr_db[1]


def test_a_changing_quality_goes_up_and_down_in_turn_to_the_last_generation(samples: list[Sample]) -> None:
    taken: list[float] = []

    def encode(pixels: Pixels, quality: float) -> Coded:
        taken.append(quality)
        return Bins().encode(pixels, quality)

    cache = Cache(None)
    descent = measure_descent(Codec("moving", "", encode, Bins.decode), 50, samples[0], cache, (1, 3, 7), swing=25)
    assert taken == [50, 75, 25, 50, 75, 25, 50]
    assert descent.fixed_since is None
    assert descent.psnr_db[0] > descent.psnr_db[1]


def test_later_generations_use_their_own_encoder(samples: list[Sample]) -> None:
    first, later = Bins(), Bins()
    measure_descent(replace(codec_of(first), again=later.encode), 25, samples[0], Cache(None), (1, 2))
    assert (first.encoded, later.encoded) == (1, 1)


def curve(name: str, factor: float) -> list[CurvePoint]:
    points = [(0.2, 28.0, 0.9), (0.5, 32.0, 0.95), (1.1, 36.5, 0.98), (9.0, math.inf, 1.0)]
    return [CurvePoint(name, 1, 1, rate * factor, db, similar, None, None) for rate, db, similar in points]


def test_a_comparison_leaves_lossless_points_out() -> None:
    row = compare("a", curve("a", 1.1), "b", curve("b", 1))
    assert row.psnr_pct == pytest.approx(10)
    assert row.ms_ssim_pct == pytest.approx(10)
    assert (row.low_db, row.high_db) == (28.0, 36.5)


def test_curves_without_a_shared_range_have_no_bd_rate() -> None:
    far = [replace(p, psnr_db=p.psnr_db + 50, ms_ssim=None) for p in curve("b", 1)]
    row = compare("a", curve("a", 1), "b", far)
    assert (row.psnr_pct, row.low_db, row.ms_ssim_pct) == (None, None, None)


@pytest.fixture
def anchors(tmp_path: Path) -> Path:
    path = tmp_path / "anchors.csv"
    lines = ["codec,metric_setting,quality,bpp,psnr_db,ms_ssim,enc_s,dec_s,source"]
    for codec, setting in (("old", "mse"), ("new", "mse"), ("new", "ms-ssim")):
        lines += [f"{codec},{setting},{q},{q / 2},{10 + 10 * q},,,,here" for q in (1, 2, 3)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_anchors_are_found_by_name_or_by_name_and_setting(anchors: Path) -> None:
    found = read_anchors(anchors, ["old", "new:ms-ssim"])
    assert list(found) == ["old", "new"]
    assert [(p.bits_per_pixel, p.psnr_db, p.ms_ssim) for p in found["old"]] == [
        (0.5, 20, None),
        (1.0, 30, None),
        (1.5, 40, None),
    ]


@pytest.mark.parametrize(("name", "choices"), [("new", "new:mse, new:ms-ssim"), ("newer", "old:mse")])
def test_an_unclear_anchor_names_the_choices(anchors: Path, name: str, choices: str) -> None:
    with pytest.raises(UnknownAnchorError, match=choices):
        read_anchors(anchors, [name])


def test_no_picture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(NoPicturesError):
        find_samples([tmp_path])


def test_the_command_writes_tables_figures_and_where_they_come_from(
    folder: Path, anchors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bins = Bins()
    table = {"bijou": codec_of(bins), "plain": replace(codec_of(bins, "plain"), generation_qualities=())}
    monkeypatch.setattr(module, "peers", lambda _: table)
    monkeypatch.setattr(module, "_bijou", lambda _: {})
    out = tmp_path / "out"
    code = main(
        f"{folder} --out {out} --anchors {anchors} --anchor old new:mse --cache {tmp_path / 'cache'} --no-times"
        " --generations 1 3 --generation-swings 0 20".split()
    )
    assert code == 0
    text = (out / "evaluation.md").read_text()
    assert "python -m model_export evaluate pictures --out out" in text
    assert str(tmp_path) not in text
    for word in (
        "commit",
        "machine",
        "versions",
        "date",
        "| bijou | old |",
        "exact",
        "generation_loss.png",
        "| bijou | 50 ± 20 |",
    ):
        assert word in text
    figures = json.loads((out / "evaluation.json").read_text())
    assert [p["psnr_db"] is None for p in figures["curves"]] == [False, False, False, True] * 2
    assert {p.name for p in out.glob("*.png")} == {"rate_psnr.png", "rate_ms_ssim.png", "generation_loss.png"}
    for path in out.glob("*.png"):
        with Image.open(path) as image:
            assert image.width > 500


def test_an_unknown_codec_names_the_choices(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no codec gif; there are avif"):
        main([str(folder), "--out", str(tmp_path), "--codecs", "gif"])
