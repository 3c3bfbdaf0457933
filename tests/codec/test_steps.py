"""steps: tiles in company give what each gives alone, to the byte; only steps that can run together share a key."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from service import codec
from service.codec import lattice
from service.codec.clock import Clock
from service.codec.container import LAST_CODE, parts_of
from service.codec.steps import DIRECT, Analyse, Decode, Draft, Encode, Run
from service.codec.walk import Latent
from tests.codec.samples import pixels_of

SIZES = [(1, 1), (13, 5), (33, 47), (70, 64)]
CODES = [0, LAST_CODE, 300, 301, 1, 555, 77, 300]
LOSSLESS = [None] * len(CODES)


def unit_of(codes: list[int] | list[None]) -> int:
    return lattice.LOSSLESS_UNIT if codes[0] is None else lattice.LOSSY_UNIT


def analyses(size: tuple[int, int], unit: int, model: codec.Model) -> list[Analyse]:
    return [Analyse(model, lattice.to_planes(pixels_of(*size, seed), unit), unit) for seed in range(len(CODES))]


def assert_same_latent(one: Latent, other: Latent) -> None:
    assert (one.size, one.unit, len(one.details)) == (other.size, other.unit, len(other.details))
    for mine, theirs in zip((one.low, *one.details, *one.lows), (other.low, *other.details, *other.lows), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("codes", [CODES, LOSSLESS], ids=["lossy", "lossless"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_eight_tiles_together_are_each_alone(size, codes, models):
    model, unit, run = models.default, unit_of(codes), Run(models.default, DIRECT, Clock())
    analysing = analyses(size, unit, model)
    latents = [run.step(step) for step in analysing]
    for together, alone in zip(Analyse.together(analysing, Clock()), latents, strict=True):
        assert_same_latent(together, alone)

    encoding = [Encode(model, latent, code) for latent, code in zip(latents, codes, strict=True)]
    coded = [run.step(step) for step in encoding]
    assert len({own.parts for own in coded}) > 1 or size == (1, 1)
    for in_company, own in zip(Encode.together(encoding, Clock()), coded, strict=True):
        assert in_company.parts == own.parts
        assert (in_company.planes is None) == (own.planes is None) == (unit == lattice.LOSSLESS_UNIT)
        if in_company.planes is not None and own.planes is not None:
            np.testing.assert_array_equal(in_company.planes, own.planes)

    for stop in range(lattice.levels_of(*size) + 1):
        needed = sum(1 for p, part in enumerate(parts_of(lattice.levels_of(*size))) if p == 0 or max(part) >= stop)
        decoding = [
            Decode(model, own.parts[:needed], code, size, unit, stop) for own, code in zip(coded, codes, strict=True)
        ]
        for index, (planes, latent) in enumerate(Decode.together(decoding, Clock())):
            one_planes, one_latent = run.step(decoding[index])
            np.testing.assert_array_equal(planes, one_planes)
            assert_same_latent(latent, one_latent)
            if stop == 0:
                expected = analysing[index].planes if codes[index] is None else coded[index].planes
                np.testing.assert_array_equal(planes, expected)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_eight_drafts_together_are_each_alone(size, models):
    run, model = Run(models.default, DIRECT, Clock()), models.default
    drafting = [
        Draft(model, run.step(step), code)
        for step, code in zip(analyses(size, lattice.LOSSY_UNIT, model), CODES, strict=True)
    ]
    for together, step in zip(Draft.together(drafting, Clock()), drafting, strict=True):
        np.testing.assert_array_equal(together, run.step(step))


@pytest.mark.parametrize("code", CODES[:5])
def test_planes_of_a_decoder_come_out_of_a_draft_as_they_were(code, models):
    run, model = Run(models.default, DIRECT, Clock()), models.default
    (step, *_) = analyses((64, 128), lattice.LOSSY_UNIT, model)
    planes = run.step(Encode(model, run.step(step), code)).planes
    assert planes is not None
    drafted = run.step(Draft(model, run.step(dataclasses.replace(step, planes=planes)), code))
    np.testing.assert_array_equal(drafted, planes)


def test_tiles_whose_bins_cost_something_elsewhere_run_together_too(models):
    run, model, rng = Run(models.default, DIRECT, Clock()), models.default, np.random.default_rng(0)
    encoding = []
    for step, code in zip(analyses((64, 128), lattice.LOSSY_UNIT, model)[:3], CODES, strict=False):
        latent = run.step(step)
        costs = tuple(rng.integers(-2000, 2000, own.shape).astype(np.int16) for own in latent.details)
        encoding.append(Encode(model, dataclasses.replace(latent, elsewhere=costs), code, held=False))
        assert run.step(encoding[-1]).parts != run.step(Encode(model, latent, code, held=False)).parts
    for together, alone in zip(Encode.together(encoding, Clock()), encoding, strict=True):
        assert together.parts == run.step(alone).parts


def test_a_damaged_tile_is_refused_in_company_too(models):
    model, run = models.default, Run(models.default, DIRECT, Clock())
    step = analyses((20, 20), lattice.LOSSY_UNIT, model)[0]
    parts = run.step(Encode(model, run.step(step), 400)).parts
    good = Decode(model, parts, 400, (20, 20), lattice.LOSSY_UNIT, 0)
    bad = dataclasses.replace(good, parts=(b"\xff" * len(parts[0]), *parts[1:]))
    with pytest.raises(codec.CorruptStreamError):
        Decode.together([good, bad], Clock())


def test_a_code_is_no_part_of_a_key_but_all_that_shapes_the_graphs_is(models):
    model = models.default
    lossy, lossless = (analyses((9, 8), unit, model)[0] for unit in (lattice.LOSSY_UNIT, lattice.LOSSLESS_UNIT))
    wide = analyses((8, 9), lattice.LOSSY_UNIT, model)[0]
    latents = [DIRECT.run(step, Clock()) for step in (lossy, lossless, wide)]
    assert Encode(model, latents[0], 5).key == Encode(model, latents[0], 700).key
    parts = (b"", b"")
    decodes = [
        Decode(model, parts, 5, (9, 8), lattice.LOSSY_UNIT, 0),
        Decode(model, parts, None, (9, 8), lattice.LOSSLESS_UNIT, 0),
        Decode(model, parts, 5, (8, 9), lattice.LOSSY_UNIT, 0),
        Decode(model, parts, 5, (9, 8), lattice.LOSSY_UNIT, 1),
    ]
    assert dataclasses.replace(decodes[0], code=6).key == decodes[0].key
    informed = dataclasses.replace(latents[0], elsewhere=tuple(own.astype(np.int16) for own in latents[0].details))
    encodes = [Encode(model, latents[0], 5), Encode(model, latents[1], None), Encode(model, latents[2], 5)]
    encodes.append(Encode(model, informed, 5))
    drafts = [Draft(model, latents[0], 5), Draft(model, latents[2], 5)]
    assert dataclasses.replace(drafts[0], code=6).key == drafts[0].key
    steps: list[codec.Step[Any]] = [lossy, lossless, wide, *encodes, *drafts, *decodes]
    assert len({step.key for step in steps}) == len(steps)


def test_pixels_are_those_worked_on(models):
    model = models.default
    step = analyses((33, 47), lattice.LOSSY_UNIT, model)[0]
    latent = DIRECT.run(step, Clock())
    assert step.pixels == Encode(model, latent, 5).pixels == Draft(model, latent, 5).pixels == 33 * 47
    assert Decode(model, (b"",), 5, (33, 47), lattice.LOSSY_UNIT, 1).pixels == 17 * 24
