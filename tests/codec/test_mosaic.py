"""mosaic: tiles are coded as each would be alone, and the flow knows nothing of their borders."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from service import codec
from service.codec import flow, lattice
from service.codec.arrays import Floats
from service.codec.clock import Clock
from service.codec.entropy import Decoder, Encoder
from service.codec.lattice import Area
from service.codec.level_steps import DecodeLevel, DraftLevel, EncodeLevel, Forward, Inverse, Place
from service.codec.mosaic import analyse_picture, decode_picture, draft_picture, encode_picture
from service.codec.passes import write_level
from service.codec.steps import DIRECT, Encode, Run
from service.codec.tile import analyse
from service.codec.tile_rows import HALO
from service.page import FOLDER
from tests.codec.samples import pixels_of, psnr_db

TILE = 512
"""Of these tests: the smallest whose coarsest low-pass still has as many rows as the flow needs around it."""
SIZES = [(513, 530), (540, 20), (576, 576)]
UNITS = [lattice.LOSSY_UNIT, lattice.LOSSLESS_UNIT]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(lattice, "TILE", TILE)


@pytest.fixture
def run(models) -> Run:
    return Run(models.default, DIRECT, Clock())


def reader_of(pixels: np.ndarray, unit: int):
    return lambda area: lattice.to_planes(pixels[area.top : area.bottom, area.left : area.right], unit)


def noise_of(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3)).astype(np.uint8)


def test_a_tile_has_the_rows_its_neighbours_need():
    assert TILE >> lattice.LEVELS >= HALO


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_flow_is_that_of_the_whole_picture(size, unit, run):
    """On noise, where a sample too few would show at once."""
    pixels = noise_of(*size)
    latent = analyse_picture(reader_of(pixels, unit), size, unit, run)
    low = lattice.to_planes(pixels, unit)
    for level in range(lattice.LEVELS):
        low, details = flow.forward(low, run.model, level, unit)
        for tile in lattice.tiles_of(*size):
            np.testing.assert_array_equal(latent.details(level, tile), tile.area(level + 1).of(details))
    np.testing.assert_array_equal(latent.low, low)


@pytest.mark.parametrize("code", [None, 300])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_decoder_has_what_the_encoder_foresaw(size, code, run):
    pixels, unit = noise_of(*size), lattice.LOSSLESS_UNIT if code is None else lattice.LOSSY_UNIT
    latent = analyse_picture(reader_of(pixels, unit), size, unit, run)
    shown: dict[int, Floats] = {}
    decoded: dict[int, Floats] = {}
    parts, _ = encode_picture(latent, code, run, shown.__setitem__)
    kept = decode_picture(parts, code, size, unit, 0, run, decoded.__setitem__, keep=True)
    assert kept is not None
    planes = np.concatenate(list(decoded.values()), 2)
    if code is None:
        assert shown == {}
        np.testing.assert_array_equal(planes, lattice.to_planes(pixels, unit))
    else:
        np.testing.assert_array_equal(planes, np.concatenate(list(shown.values()), 2))
        again = analyse_picture(lambda area: area.of(planes), size, unit, run)
        for level in range(lattice.LEVELS):
            for tile in lattice.tiles_of(*size):
                np.testing.assert_array_equal(again.details(level, tile), kept.details(level, tile))


@pytest.mark.parametrize("code", [None, 200])
def test_a_picture_of_one_tile_has_the_same_parts_either_way(code, run):
    pixels, unit = pixels_of(300, 211), lattice.LOSSLESS_UNIT if code is None else lattice.LOSSY_UNIT
    latent = analyse_picture(reader_of(pixels, unit), (300, 211), unit, run)
    (parts,), _ = encode_picture(latent, code, run, lambda top, rows: None)
    alone = analyse(lattice.to_planes(pixels, unit), run.model, unit, Clock())
    assert parts == run.step(Encode(run.model, alone, code)).parts


def test_planes_of_a_decoder_come_out_of_a_draft_as_they_were(run):
    size, code, unit = (64, TILE + 64), 300, lattice.LOSSY_UNIT
    shown: dict[int, Floats] = {}
    drafted: dict[int, Floats] = {}
    encode_picture(analyse_picture(reader_of(noise_of(*size), unit), size, unit, run), code, run, shown.__setitem__)
    (planes,) = shown.values()
    draft_picture(analyse_picture(lambda area: area.of(planes), size, unit, run), code, run, drafted.__setitem__)
    np.testing.assert_array_equal(drafted[0], planes)


@pytest.mark.parametrize("quality", [5, 10, 20])
def test_no_border_shows(quality, models):
    """The error of a smooth picture, none of whose own steps lies on a border, changes across borders as elsewhere."""
    rows, columns = np.mgrid[0:700, 0:640]
    slopes = np.stack([60 + columns // 6, 90 + rows // 9, 200 - (rows + columns) // 10], 2)
    waves = 12 * np.sin(rows / 37)[..., None] * np.cos(columns / 29)[..., None]
    picture = codec.Picture(np.clip(slopes + waves, 0, 255).astype(np.uint8))
    encoded = codec.encode(picture, models.default, codec.Target(quality=quality))
    decoded = codec.decode(encoded.stream, models).picture.pixels
    error = decoded.astype(float) - picture.pixels
    for axis in (0, 1):
        jumps = np.abs(np.diff(error, axis=axis)).mean((1 - axis, 2))
        assert jumps[TILE - 1] <= 1.6 * np.median(jumps)


@pytest.mark.parametrize("quality", [5, 10, 15])
def test_no_border_shows_in_soft_petals(quality, models):
    """Where dequantisers have much to foretell, a border they do not see beyond changes the error by a third."""
    file = FOLDER / "samples" / "petals.png"
    petals = np.asarray(Image.open(file).convert("RGB").resize((640, 640), Image.Resampling.LANCZOS))
    encoded = codec.encode(codec.Picture(petals), models.default, codec.Target(quality=quality))
    error = codec.decode(encoded.stream, models).picture.pixels.astype(float) - petals
    for axis in (0, 1):
        jumps = np.abs(np.diff(error, axis=axis)).mean((1 - axis, 2))
        assert jumps[TILE - 1] <= 1.12 * jumps[TILE - 32 : TILE + 32].mean()


def test_re_encoding_a_lossy_stream_needs_no_pixels(models):
    picture = codec.Picture(pixels_of(540, 530))
    lossy = codec.encode(picture, models.default, codec.Target(quality=85)).stream
    again = codec.re_encode(lossy, models, codec.Target(quality=40))
    decoded = codec.decode(again.stream, models).picture.pixels
    assert (
        psnr_db(picture.pixels, decoded) > codec.encode(picture, models.default, codec.Target(quality=40)).psnr_db - 0.7
    )


def test_a_saturated_picture_keeps_its_quality_through_generations(models):
    rows, columns = np.mgrid[0:530, 0:520]
    slope = np.stack([40 + columns // 4, 60 + rows // 4, 150 - rows // 8], 2)
    slope = slope + np.random.default_rng(5).integers(-9, 10, slope.shape)
    slope[500:524, 496:520] = 255
    slope[100:150, 480:519] = 0
    decoded = picture = codec.Picture(np.clip(slope, 0, 255).astype(np.uint8))
    levels_db = []
    for _ in range(3):
        encoded = codec.encode(decoded, models.default, codec.Target(quality=50))
        decoded = codec.decode(encoded.stream, models).picture
        levels_db.append(psnr_db(picture.pixels, decoded.pixels))
    assert min(levels_db) > levels_db[0] - 0.1


class Counting:
    def __init__(self) -> None:
        self.ops: Counter[str] = Counter()

    def run(self, step, clock):
        self.ops[step.op] += 1
        return codec.DIRECT.run(step, clock)


def test_every_step_goes_through_the_runner(models):
    counting = Counting()
    picture = codec.Picture(pixels_of(20, TILE + 3))
    stream = codec.encode(picture, models.default, codec.Target(quality=50), runner=counting).stream
    # The finest level of each tile is analysed once more when it is coded.
    assert counting.ops == {"analyse": 14, "encode": 12, "synthesise": 12}
    codec.decode(stream, models, scale=4, runner=counting)
    assert counting.ops == {"analyse": 14, "encode": 12, "synthesise": 20, "decode": 8}


def test_a_damaged_tile_is_refused(models):
    stream = bytearray(codec.encode(codec.Picture(pixels_of(20, TILE + 3)), models.default).stream)
    section = codec.inspect(bytes(stream)).sections[-1]
    stream[section.offset + 4] ^= 1
    with pytest.raises(codec.CorruptStreamError):
        codec.decode(bytes(stream), models)


def places(run: Run, code: int | None, level: int) -> list[tuple[Place, np.ndarray]]:
    """Two tiles alike in size, and their details."""
    unit = lattice.LOSSLESS_UNIT if code is None else lattice.LOSSY_UNIT
    made = []
    for seed in range(2):
        low = lattice.to_planes(pixels_of(24, 31, seed), unit) * 2
        details = np.rint(np.random.default_rng(seed).laplace(0, 300, (1, 9, 24, 31))).astype(np.float32)
        parent = np.random.default_rng(seed).integers(0, 256, (1, run.model.parent(level), 12, 16)).astype(np.uint8)
        inner = seed > 0, False, seed % 2 > 0, True
        own_code = None if code is None else code + 90 * seed
        made.append((Place(run.model, level, low, parent, own_code, unit, inner, (48, 61)), details))
    return made


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("code", [None, 250])
def test_levels_together_are_each_alone_and_leave_what_they_are_given(code, level, run):
    encoding = [EncodeLevel(place, details) for place, details in places(run, code, level)]
    alone = [run.step(step) for step in encoding]
    for (details, handed_on, said), own in zip(EncodeLevel.together(encoding, Clock()), alone, strict=True):
        np.testing.assert_array_equal(details, own[0])
        np.testing.assert_array_equal(handed_on, own[1])
        assert (handed_on is None) == (level == 0)
        for pass_, other in zip(said, own[2], strict=True):
            for mine, theirs in zip(pass_, other, strict=True):
                np.testing.assert_array_equal(mine, theirs)

    if code is not None:
        drafting = [DraftLevel(step.place, step.details) for step in encoding]
        for in_company, step in zip(DraftLevel.together(drafting, Clock()), drafting, strict=True):
            drafted = run.step(step)
            np.testing.assert_array_equal(in_company[0], drafted[0])
            np.testing.assert_array_equal(in_company[1], drafted[1])

    inverse = [
        Inverse(run.model, s.place.low, own[0], level, s.place.unit, (47, 62))
        for s, own in zip(encoding, alone, strict=True)
    ]
    planes = [run.step(step) for step in inverse]
    for together, own_planes in zip(Inverse.together(inverse, Clock()), planes, strict=True):
        np.testing.assert_array_equal(together, own_planes)
    forward = [Forward(run.model, state, level, step.unit) for step, state in zip(inverse, planes, strict=True)]
    for pair, own_pair in zip(Forward.together(forward, Clock()), [run.step(step) for step in forward], strict=True):
        for mine, theirs in zip(pair, own_pair, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_a_decoder_can_read_a_level_again(run):
    """A batch that failed is run again, item by item."""
    ((place, details), _) = places(run, 392, 0)
    tables = run.model.tables.entropy_of(392)
    coded, _, said = run.step(EncodeLevel(place, details))
    encoder = Encoder(tables)
    write_level(encoder, said, tables)
    step = DecodeLevel(place, Decoder(encoder.words(), tables))
    for _ in range(2):
        np.testing.assert_array_equal(run.step(step)[0], coded)


def test_areas_grow_to_the_border_and_no_further():
    area = lattice.Tile(512, 512, 20, 512).area(2)
    assert area == Area(128, 128, 133, 256)
    assert area.grown(8, (133, 300)) == Area(120, 120, 133, 264)
    assert area.doubled((265, 512)) == Area(256, 256, 265, 512)
    assert area.within(area.grown(8, (133, 300))) == Area(8, 8, 13, 136)
