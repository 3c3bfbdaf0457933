"""The Pillow plugin, tried as Pillow tries its own formats."""

from __future__ import annotations

import io
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, ImageFile, UnidentifiedImageError

from service import codec, pillow_plugin
from service.codec.container import MAGIC
from tests.live_server import ROOT, environment

MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV")
KEPT_MODES = {"1": "L", "L": "L", "LA": "LA", "PA": "RGBA", "RGBA": "RGBA"}


@pytest.fixture(scope="module", autouse=True)
def one_thread(models: codec.ModelSet):
    """The plugin shares the tests' models."""
    pillow_plugin._opened[:] = [models]


@pytest.fixture
def image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels)


def in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "PA":
        return in_mode(image, "RGBA").convert("PA")
    converted = image.convert(mode)
    if mode in ("LA", "RGBA"):
        converted.putalpha(image.convert("L"))
    return converted


def saved(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "BIJOU", **options)
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def psnr_db(a: Image.Image, b: Image.Image) -> float:
    error = np.mean((np.asarray(a, np.float64) - np.asarray(b, np.float64)) ** 2)
    return float(10 * np.log10(255**2 / error))


class TestRegistration:
    def test_format_extension_and_media_type(self, image: Image.Image, tmp_path: Path):
        path = tmp_path / "x.bij"
        image.save(path, quality=60)
        with Image.open(path) as again:
            assert (again.format, again.format_description) == ("BIJOU", "Bijou")
            assert (again.size, again.mode) == (image.size, "RGB")
            assert again.get_format_mimetype() == "image/vnd.bijou"
            assert again.info["quality"] == 60
        assert Image.registered_extensions()[".bij"] == "BIJOU"
        assert pillow_plugin.MAGIC == MAGIC

    def test_the_bytes_are_those_of_the_codec(self, image: Image.Image, models: codec.ModelSet, pixels: np.ndarray):
        expected = codec.encode(codec.Picture(pixels), models.default, codec.Target(quality=60)).stream
        assert saved(image, quality=60) == expected
        decoded = codec.decode(expected, models).picture.pixels
        assert np.array_equal(np.asarray(opened(expected)), decoded)

    def test_importing_it_opens_no_model(self):
        code = (
            "import service.pillow_plugin as p; from PIL import Image; assert '.bij' in Image.registered_extensions()"
        )
        check = f"{code}; assert not p._opened"
        subprocess.run([sys.executable, "-c", check], cwd=ROOT, env=environment(), check=True, timeout=60)

    @pytest.mark.parametrize("data", [b"", b"\x8b", MAGIC, MAGIC + b"\x01", b"\x89PNG\r\n\x1a\n" + bytes(99)])
    def test_foreign_bytes_are_not_identified(self, data: bytes):
        with pytest.raises(UnidentifiedImageError):
            opened(data)


class TestModes:
    @pytest.mark.parametrize("mode", MODES)
    def test_lossless_in_every_mode(self, image: Image.Image, mode: str):
        given = in_mode(image, mode)
        again = opened(saved(given, lossless=True))
        expected = given.convert(KEPT_MODES.get(mode, "RGB"))
        assert again.mode == expected.mode
        assert again.tobytes() == expected.tobytes()

    @pytest.mark.parametrize("mode", ["I", "F", "I;16"])
    def test_deeper_modes_are_refused(self, mode: str, tmp_path: Path):
        path = tmp_path / "x.bij"
        with pytest.raises(OSError, match=f"cannot write mode {mode} as BIJOU"):
            Image.new(mode, (8, 8)).save(path)
        assert not path.exists()

    def test_a_transparent_palette_colour(self, image: Image.Image):
        given = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
        given.info["transparency"] = 3
        again = opened(saved(given, lossless=True))
        assert again.mode == "RGBA"
        assert again.tobytes() == given.convert("RGBA").tobytes()

    def test_an_opaque_alpha_costs_nothing(self, image: Image.Image):
        assert saved(image.convert("RGBA")) == saved(image)

    @pytest.mark.parametrize("size", [(1, 1), (1, 70), (70, 1), (2, 3), (16, 16), (65, 33), (300, 7)])
    def test_sizes(self, image: Image.Image, size: tuple[int, int]):
        given = image.resize(size)
        again = opened(saved(given, lossless=True))
        assert again.size == size
        assert again.tobytes() == given.tobytes()


class TestSaveOptions:
    def test_quality_orders_size_and_distortion(self, image: Image.Image):
        coarse, fine = saved(image, quality=10), saved(image, quality=90)
        assert len(coarse) < len(saved(image)) < len(fine)
        assert psnr_db(opened(coarse), image) < psnr_db(opened(fine), image)
        assert saved(image) == saved(image, quality=75)

    def test_targets(self, image: Image.Image):
        assert len(saved(image, max_bytes=700)) <= 700
        assert len(saved(image, target_bpp=2.0)) * 8 <= 2.0 * image.width * image.height
        assert psnr_db(opened(saved(image, target_psnr=35.0)), image) >= 35

    def test_lossless_wins_over_quality(self, image: Image.Image):
        stream = saved(image, lossless=True, quality=10)
        assert opened(stream).info["lossless"] is True
        assert stream == saved(image, quality=100)

    def test_stable_survives_generations(self, image: Image.Image):
        stream = saved(image, quality=30, stable=True)
        assert saved(opened(stream), quality=30) == stream

    @pytest.mark.parametrize("effort", [0, 1, 2])
    def test_effort_is_that_of_the_codec(
        self, image: Image.Image, models: codec.ModelSet, pixels: np.ndarray, effort: int
    ):
        target = codec.Target(quality=30)
        expected = codec.encode(codec.Picture(pixels), models.default, target, effort=effort).stream
        assert saved(image, quality=30, effort=effort) == expected

    @pytest.mark.parametrize(
        "options",
        [
            {"quality": 0},
            {"quality": 101},
            {"quality": "60"},
            {"quality": True},
            {"quality": 60, "max_bytes": 100},
            {"max_bytes": 1},
            {"target_psnr": -1.0},
            {"effort": 3},
            {"effort": -1},
            {"effort": 0.5},
            {"effort": "1"},
            {"effort": True},
            {"model": "nobody"},
        ],
    )
    def test_impossible_options(self, image: Image.Image, options: dict[str, object]):
        with pytest.raises(ValueError, match=r"\w"):
            saved(image, **options)

    def test_writing_over_the_opened_file(self, image: Image.Image, tmp_path: Path):
        path = tmp_path / "x.bij"
        image.save(path, lossless=True)
        with Image.open(path) as again:
            again.save(path, lossless=True)
        with Image.open(path) as third:
            assert third.tobytes() == image.tobytes()


class TestMetadata:
    def test_colour_profile(self, image: Image.Image):
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        stream = saved(image, icc_profile=profile)
        assert opened(stream).info["icc_profile"] == profile
        assert opened(saved(opened(stream))).info["icc_profile"] == profile
        assert "icc_profile" not in opened(saved(opened(stream), icc_profile=None)).info

    @pytest.mark.parametrize("as_bytes", [True, False])
    def test_exif(self, image: Image.Image, as_bytes: bool):
        exif = Image.Exif()
        exif[ExifTags.Base.Artist] = "somebody"
        again = opened(saved(image, exif=exif.tobytes() if as_bytes else exif))
        assert again.getexif()[ExifTags.Base.Artist] == "somebody"
        assert "exif" not in opened(saved(again)).info

    def test_orientation_is_applied_to_the_pixels(self, image: Image.Image):
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        exif[ExifTags.Base.Artist] = "somebody"
        again = opened(saved(image, lossless=True, exif=exif))
        assert again.tobytes() == image.transpose(Image.Transpose.ROTATE_270).tobytes()
        assert dict(again.getexif()) == {ExifTags.Base.Artist: "somebody"}


class TestDamage:
    def test_every_truncation_is_noticed(self, image: Image.Image):
        stream = saved(image, quality=50)
        for end in range(len(stream)):
            with pytest.raises((UnidentifiedImageError, OSError)), opened(stream[:end]) as cut:
                cut.load()

    def test_every_flipped_byte_is_noticed(self, image: Image.Image):
        stream = bytearray(saved(image, quality=20))
        for position in range(len(stream)):
            stream[position] ^= 0x10
            with pytest.raises((UnidentifiedImageError, OSError)), opened(bytes(stream)) as damaged:
                damaged.load()
            stream[position] ^= 0x10

    def test_truncated_files_can_be_shown(self, image: Image.Image, monkeypatch: pytest.MonkeyPatch):
        stream = saved(image, quality=80)
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        half = opened(stream[: len(stream) // 2])
        assert half.size == image.size
        assert 15 < psnr_db(half, image) < psnr_db(opened(stream), image)

    def test_verify(self, image: Image.Image, tmp_path: Path):
        path = tmp_path / "x.bij"
        image.save(path)
        with Image.open(path) as whole:
            whole.verify()
        path.write_bytes(path.read_bytes()[:-9])
        with Image.open(path) as cut, pytest.raises(OSError, match="truncated"):
            cut.verify()

    def test_a_bomb_is_refused_by_pillow(self, monkeypatch: pytest.MonkeyPatch, image: Image.Image):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
        with pytest.raises(Image.DecompressionBombError):
            opened(saved(image))


class TestDraft:
    @pytest.fixture
    def large(self, image: Image.Image) -> Image.Image:
        return image.resize((419, 301), Image.Resampling.BICUBIC)

    @pytest.mark.parametrize(
        ("asked", "scale"), [((419, 301), 1), ((210, 151), 1), ((209, 150), 2), ((60, 40), 4), ((26, 18), 16)]
    )
    def test_sizes(self, large: Image.Image, asked: tuple[int, int], scale: int):
        draft = opened(saved(large))
        assert draft.draft("RGB", asked) == ("RGB", (0, 0, 419 / scale, 301 / scale))
        assert draft.size == (-(-419 // scale), -(-301 // scale))
        draft.load()
        assert psnr_db(draft, large.resize(draft.size, Image.Resampling.BOX)) > 25

    def test_a_second_draft_starts_from_the_whole(self, large: Image.Image):
        draft = opened(saved(large))
        draft.draft(None, (26, 18))
        draft.draft(None, (209, 150))
        assert draft.size == (210, 151)

    def test_thumbnail_takes_it(self, large: Image.Image):
        thumbnail = opened(saved(large))
        thumbnail.thumbnail((50, 50))
        assert thumbnail.size == (50, 36)
        expected = large.copy()
        expected.thumbnail((50, 50))
        assert psnr_db(thumbnail, expected) > 28

    def test_small_pictures_stop_where_their_levels_end(self, image: Image.Image):
        draft = opened(saved(image))
        draft.draft(None, (1, 1))
        size = draft.size
        draft.load()
        assert draft.size == size

    def test_nothing_to_draft_once_loaded(self, large: Image.Image):
        loaded = opened(saved(large))
        loaded.load()
        assert loaded.draft("RGB", (10, 10)) is None
        assert loaded.size == large.size


class TestObjects:
    def test_the_file_is_closed_after_loading(self, image: Image.Image, tmp_path: Path):
        path = tmp_path / "x.bij"
        image.save(path)
        with path.open("rb") as file, Image.open(file) as given:
            given.load()
            assert not file.closed  # it is the caller's
        with Image.open(path) as own:
            held = own.fp
            own.load()
            assert held is not None
            assert held.closed

    def test_copy_crop_and_pickle(self, image: Image.Image):
        stream = saved(image, lossless=True)
        assert opened(stream).copy().tobytes() == image.tobytes()
        assert opened(stream).crop((3, 4, 30, 20)).tobytes() == image.crop((3, 4, 30, 20)).tobytes()
        assert pickle.loads(pickle.dumps(opened(stream))).tobytes() == image.tobytes()

    def test_threads(self, image: Image.Image):
        stream = saved(image, quality=40)
        with ThreadPoolExecutor(4) as pool:
            pictures = list(pool.map(lambda _: opened(stream).convert("RGB").tobytes(), range(8)))
        assert len(set(pictures)) == 1
