"""Pixels -> stream at one quality code.

pixels -> lattice -> tile (a picture of one tile), mosaic (of several) -> container -> bytes
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from service.codec import container, lattice, saturation
from service.codec.arrays import Bytes8, Floats, Planes, Shorts
from service.codec.choice import choices
from service.codec.container import ALPHA, EXIF, GREY, ICC, LOSSLESS, TIED, Header, crc32c
from service.codec.forms import Converted, found_in
from service.codec.images import Picture
from service.codec.lattice import Area
from service.codec.mosaic import PictureLatent, analyse_picture, draft_picture, encode_picture
from service.codec.quantise import STEP_UNIT
from service.codec.steps import Analyse, Draft, Encode, Run
from service.codec.tile_rows import Grid
from service.codec.walk import DETAILS, Latent, Walk, integers

DECODED_SHARE = 0.8
"""A picture was decoded at this quality if the encoder, holding what decoders may have put where it lies, has a choice
for less than this share of the values it would have a choice for if they lay anywhere in their bins. Photographs: 1.1
and more; decoded ones 0.4 at most, 0.7 where much is clipped; 0.7 if decoded at a quality near by, which are taken for
it."""


@dataclass(frozen=True)
class Source:
    """What an encode starts from.

    Attributes:
        picture: The picture.
        latent: The picture after the forward flow: a Latent if it is one tile.
        alpha: The coded alpha.
        of_stream: Whether the latent comes from a stream and not from the picture's pixels.
        elsewhere: What bins cost elsewhere at a quality code, as in `Values`, of each level, finest first, [9, h, w];
            None: not known.
        converted: The luma and chroma that the latent is of; None: it is of the pixels.
    """

    picture: Picture
    latent: Callable[[], Latent | PictureLatent]
    alpha: bytes | None
    of_stream: bool = False
    elsewhere: Callable[[int], tuple[Shorts, ...]] | None = None
    converted: Converted | None = None


@dataclass(frozen=True)
class CodedPicture:
    """The parts of each tile, and of a lossy picture what the decoder will show and the planes behind it.

    Attributes:
        parts: Of each tile, coarse to fine.
        pixels: [H, W, 3]; None if lossless.
        planes: [1, 3, H, W]; None where they were not asked for.
        tied: Whether parities of bins are those of a trellis.
        wrong: How many of them had to be made right.
    """

    parts: tuple[tuple[bytes, ...], ...]
    pixels: Bytes8 | None
    planes: Planes | None
    tied: bool
    wrong: int

    def differences_from(self, pixels: Bytes8) -> int:
        """Squared differences between what the decoder will show and some pixels, added up."""
        assert self.pixels is not None
        rows = zip(self.pixels, pixels, strict=True)
        return sum(int(np.square(own.astype(np.int32) - other).sum()) for own, other in rows)


def source_of(picture: Picture, unit: int, run: Run, alpha: bytes | None, keep: bool = False) -> Source:
    """The forward flow of a picture, run when it is asked for; keep: remember it, for several qualities."""
    read, converted, chroma = reader(picture.pixels, unit, run), None, None
    if unit == lattice.LOSSLESS_UNIT and not picture.grey:
        with run.clock.room("image"):
            converted = found_in(picture.pixels)
            if converted is not None:
                read, chroma = _reader_of(converted, run), converted.chroma()
    latent = functools.partial(_analyse, read, picture.pixels.shape[:2], unit, run, chroma)
    return Source(picture, functools.cache(latent) if keep else latent, alpha, converted=converted)


def _reader_of(converted: Converted, run: Run) -> Callable[[Area], Floats]:
    def read(area: Area) -> Floats:
        with run.clock.room("image"):
            return converted.planes(area)

    return read


def reader(pixels: Bytes8, unit: int, run: Run) -> Callable[[Area], Floats]:
    """Area -> its planes, [1, 3, h, w], on the lattice of `unit`."""

    def read(area: Area) -> Floats:
        with run.clock.room("image"):
            return lattice.to_planes(pixels[area.top : area.bottom, area.left : area.right], unit)

    return read


def _analyse(
    read: Callable[[Area], Floats], size: tuple[int, int], unit: int, run: Run, chroma: Floats | None = None
) -> Latent | PictureLatent:
    if len(lattice.tiles_of(*size)) > 1:
        return analyse_picture(read, size, unit, run, chroma)
    return run.step(Analyse(run.model, read(Area(0, 0, *size)), unit, chroma))


def write_stream(source: Source, code: int | None, run: Run) -> tuple[bytes, Bytes8]:
    """Code a picture at one quality code (None: lossless) -> stream and the pixels it decodes to."""
    picture, latent = source.picture, source.latent()
    pixels, size = picture.pixels, latent.size
    if code is None:
        return _written(source, code, _coded(latent, code, picture.grey, run, keep=False, tied=False), run)
    decoded = _is_decoded(latent, code, run)
    # Overshoot matters where the picture is saturated; what an encoder met before comes from pixels.
    clipped = decoded and not source.of_stream and bool(saturation.saturated(pixels).any())
    if source.elsewhere is not None and not decoded and code <= saturation.LAST_CODE:
        latent = _informed(latent, source.elsewhere(code))
    coded = _lossy(latent, code, picture, run, keep=clipped, held=decoded)
    if clipped and (planes := _recovered(coded, pixels, code, latent.unit, picture.grey, run)) is not None:
        coded = _lossy(_analyse(_part_of(planes), size, latent.unit, run), code, picture, run, keep=False, held=True)
    return _written(source, code, coded, run)


def _informed(latent: Latent | PictureLatent, elsewhere: tuple[Shorts, ...]) -> Latent | PictureLatent:
    """A latent and what its bins cost elsewhere, of each level of the picture, finest first, [9, h, w]."""
    if isinstance(latent, Latent):
        return replace(latent, elsewhere=tuple(level[None] for level in elsewhere))
    return replace(latent, elsewhere=lambda level, tile: tile.area(level + 1).of(elsewhere[level])[None])


def _lossy(
    latent: Latent | PictureLatent, code: int, picture: Picture, run: Run, keep: bool, held: bool
) -> CodedPicture:
    """Code a picture, tied unless that changes more of what was decoded before.

    One that a decoder had, but for a bin here and there, is to keep the others. Where making a parity right does not
    put right what was wrong, networks read it, and bins change all around. Above quality 90 bins do not survive the
    rounding of pixels in any case.

    Args:
        latent: What is coded.
        code: Quality code.
        picture: What it should look like.
        run: What runs.
        keep: As in `_coded`.
        held: Whether a decoder may have had it.
    """
    if code > saturation.LAST_CODE:
        return _coded(latent, code, picture.grey, run, keep, tied=False)
    tied = _coded(latent, code, picture.grey, run, keep, tied=True, held=held)
    if not tied.wrong or not held:
        return tied
    free = _coded(latent, code, picture.grey, run, keep, tied=False)
    return min(tied, free, key=lambda coded: coded.differences_from(picture.pixels))


def _is_decoded(latent: Latent | PictureLatent, code: int, run: Run) -> bool:
    """Whether nearly all values lie where a decoder would have put them at this quality.

    Above quality 90 that cannot be told and is not asked: `_lossy` holds every picture's values there.
    """
    if code > saturation.LAST_CODE:
        return False
    choice = expected_64 = 0
    walk = Walk(run.model, [code], 1, lattice.levels_of(*latent.size), latent.unit, run.clock)
    for level, details in _all_details(latent):
        found = choices(integers(details[0]), walk.steps(level)[0].channels(DETAILS))
        choice, expected_64 = choice + found[0], expected_64 + found[1]
    return 64 * choice < DECODED_SHARE * expected_64


def _all_details(latent: Latent | PictureLatent) -> Iterator[tuple[int, Floats]]:
    """Each level but the finest, if there are several, and its details, [1, 9, h, w], of a tile at a time."""
    if isinstance(latent, Latent):
        yield from list(enumerate(latent.details))[1 if len(latent.details) > 1 else 0 :]
        return
    grid = Grid(latent.size)
    for level in range(1, grid.levels):
        for tile in grid.tiles:
            yield level, latent.details(level, tile)


def _recovered(coded: CodedPicture, pixels: Bytes8, code: int, unit: int, grey: bool, run: Run) -> Planes | None:
    """The planes that some pixels were decoded from, if they were; `coded` is what they give as they are."""

    def draft(planes: Shorts) -> Planes:
        return _drafted(_analyse(_part_of(planes), pixels.shape[:2], unit, run), code, run)

    assert coded.planes is not None
    bin_width = int(run.model.tables.steps[code, 0, DETAILS].min()) // STEP_UNIT
    shown = functools.partial(_shown, unit=unit, grey=grey, run=run)
    return saturation.recover(coded.planes, pixels, unit, bin_width, shown, draft)


def write_as_is(source: Source, read: Callable[[Area], Floats], code: int, run: Run) -> tuple[bytes, Bytes8, Planes]:
    """Code planes in a source's place, lossy; no value is taken for a bound.

    Args:
        source: What they should look like, and what else is written.
        read: Planes of an area, [1, 3, h, w], on the lossy lattice.
        code: Quality code.
        run: What runs.

    Returns:
        The stream, the pixels it decodes to and the planes behind them.
    """
    latent = _analyse(read, source.picture.pixels.shape[:2], lattice.LOSSY_UNIT, run)
    coded = _lossy(latent, code, source.picture, run, keep=True, held=_is_decoded(latent, code, run))
    assert coded.planes is not None
    return *_written(source, code, coded, run), coded.planes


def _written(source: Source, code: int | None, coded: CodedPicture, run: Run) -> tuple[bytes, Bytes8]:
    picture, converted = source.picture, source.converted
    pixels = picture.pixels if coded.pixels is None else coded.pixels
    with run.clock.room("image"):
        crc = crc32c(pixels.data)
    number = (converted.form.number if converted else 0) if code is None else code
    header = Header(_flags(picture, code, coded.tied), run.model.id, pixels.shape[1], pixels.shape[0], number, crc)
    extras = {"icc": picture.icc, "exif": picture.exif, "alpha": source.alpha}
    extras["lists"] = converted.lists if converted else None
    sections = container.layout(header)
    payloads = [coded.parts[s.tile][s.part] if s.kind == "part" else extras[s.kind] or b"" for s in sections]
    return container.write(header, payloads), pixels


def _coded(
    latent: Latent | PictureLatent, code: int | None, grey: bool, run: Run, keep: bool, tied: bool, held: bool = True
) -> CodedPicture:
    """Code a picture; keep: with its planes, those of several tiles in 16 bits; tied, held: as in `encode_tiles`."""
    shown = functools.partial(_shown, unit=latent.unit, grey=grey, run=run)
    if isinstance(latent, Latent):
        tile = run.step(Encode(run.model, latent, code, tied, held))
        pixels = None if tile.planes is None else shown(tile.planes)
        return CodedPicture((tile.parts,), pixels, tile.planes, tied, tile.wrong)
    pixels = np.empty((*latent.size, 3), np.uint8)
    planes = np.empty((1, 3, *latent.size), np.int16) if keep else None

    def show(top: int, rows: Floats) -> None:
        bottom = top + rows.shape[2]
        pixels[top:bottom] = shown(rows)
        if planes is not None:
            planes[:, :, top:bottom] = saturation.shorts(rows)

    parts, wrong = encode_picture(latent, code, run, show, tied, held)
    return CodedPicture(parts, None if code is None else pixels, planes, tied, wrong)


def _drafted(latent: Latent | PictureLatent, code: int, run: Run) -> Planes:
    """What a decoder would have of a picture if nothing were priced."""
    if isinstance(latent, Latent):
        return run.step(Draft(run.model, latent, code))
    planes = np.empty((1, 3, *latent.size), np.int16)

    def show(top: int, rows: Floats) -> None:
        planes[:, :, top : top + rows.shape[2]] = saturation.shorts(rows)

    draft_picture(latent, code, run, show)
    return planes


def _shown(planes: Planes, unit: int, grey: bool, run: Run) -> Bytes8:
    with run.clock.room("image"):
        pixels = lattice.to_pixels(planes, unit)
        return lattice.greyed(pixels) if grey else pixels


def _part_of(planes: Planes) -> Callable[[Area], Floats]:
    return lambda area: area.of(planes).astype(np.float32)


def _flags(picture: Picture, code: int | None, tied: bool) -> int:
    flags = (LOSSLESS if code is None else 0) | (GREY if picture.grey else 0) | (TIED if tied else 0)
    flags |= (ICC if picture.icc else 0) | (EXIF if picture.exif else 0)
    return flags | (ALPHA if picture.alpha is not None else 0)


def encode_alpha(picture: Picture, run: Run) -> bytes | None:
    """A picture's opacity as a lossless grey stream of its own; None if it has none."""
    if picture.alpha is None:
        return None
    plane = Picture(np.repeat(picture.alpha[:, :, None], 3, axis=2), grey=True)
    return write_stream(source_of(plane, lattice.LOSSLESS_UNIT, run, None), None, run)[0]
