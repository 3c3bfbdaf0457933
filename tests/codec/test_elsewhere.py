"""elsewhere, adjoint, weigh: costs are of the right kind, the same everywhere, and make ordinary files smaller."""

from __future__ import annotations

import numpy as np
import pytest

from service import codec
from service.codec import adjoint, flow, lattice
from service.codec.clock import Clock
from service.codec.container import code_of
from service.codec.elsewhere import COST_LIMIT, costs_elsewhere
from service.codec.lattice import LOSSY_UNIT
from service.codec.quantise import quantise
from service.codec.steps import DIRECT, Run
from service.codec.tile import analyse
from service.codec.walk import DETAILS, Walk, integers
from service.codec.weigh import PATCH, Weigh, weighed
from tests.codec.samples import Pixels, pixels_of

CODE = code_of(30)


def calm(height: int, width: int, seed: int = 0) -> Pixels:
    """A picture without white and black, which Bijou would clip."""
    return (40 + pixels_of(height, width, seed).astype(np.int32) * 170 // 255).astype(np.uint8)


def planes_of(*pixels: Pixels) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.concatenate([lattice.to_planes(own, LOSSY_UNIT) for own in pixels])


def encoded(pixels: Pixels, models: codec.ModelSet, quality: float, effort: int) -> codec.Encoded:
    return codec.encode(codec.Picture(pixels), models.default, codec.Target(quality=quality), effort=effort)


def test_shifting_rounds_halves_up():
    assert adjoint.shifted(np.array([5, -5, 6, -6, 7], np.int64), 2).tolist() == [1, -1, 2, -1, 2]
    assert adjoint.shifted(np.array([3, -3], np.int64), 0).tolist() == [3, -3]


def test_shifting_by_as_much_as_each_tile_asks_for():
    values = np.full((2, 1, 1, 1), 12, np.int64)
    assert adjoint.shifted(values, np.array([1, 3])).ravel().tolist() == [6, 2]


@pytest.mark.parametrize("level", [0, 1, 4])
@pytest.mark.parametrize("size", [(40, 56), (39, 55)])
def test_the_flow_backwards_is_its_adjoint(level, size, models):
    """What a state is worth changes with details by what `flow_back` says of them; far enough from borders."""
    model, rng = models.default, np.random.default_rng(level)
    worth = np.zeros((1, 3, *size), np.int64)
    worth[:, :, 12:28, 12:40] = rng.integers(-900, 900, (1, 3, 16, 28))
    by_low, by_details = adjoint.flow_back(adjoint.colours_back(worth) if level == 0 else worth, model, level)
    half = by_details.shape[2:]
    low = rng.integers(-4000, 4000, (1, 3, *half)).astype(np.float32)
    details = rng.integers(-500, 500, (1, 9, *half)).astype(np.float32)
    direction = np.sign(by_details).astype(np.float32) * 1000 * flow.present(size)
    states = [flow.inverse(low, details + move, model, level, LOSSY_UNIT, size) for move in (-direction, direction)]
    change = (worth * (states[1] - states[0]).astype(np.float64)).sum() / 2
    # The coupling step is left out: it moves the low-pass by what details tell of it.
    assert change == pytest.approx((by_details * direction).sum() / 2**adjoint.SYNTHESIS_BITS, rel=0.05)
    step = np.sign(by_low).astype(np.float32) * 1000
    states = [flow.inverse(low + move, details, model, level, LOSSY_UNIT, size) for move in (-step, step)]
    change = (worth * (states[1] - states[0]).astype(np.float64)).sum() / 2
    assert change == pytest.approx(2 * (by_low * step).sum(), rel=0.05)


def test_sums_of_the_flow_backwards_are_exact(models):
    """No sum of a kernel and a state within its limit reaches what a float cannot hold."""
    for model in models:
        largest = np.abs(model.tables.synthesis.astype(np.int64)).sum((-1, -2, -3)).max()
        assert 0 < largest * adjoint.STATE_LIMIT < 2**24


def test_what_heads_say_costs_what_tables_say(models):
    model, rng = models.default, np.random.default_rng(0)
    tables = model.tables.entropy_of(CODE)
    bins = rng.integers(-2, 3, (9, 6, 5)).astype(np.int32)
    means, scales = (
        rng.integers(-20, 20, bins.shape).astype(np.int16),
        rng.integers(20, 40, bins.shape).astype(np.int16),
    )
    by_mean = adjoint.said_back(bins, means, scales, tables)[:3]
    for band, (k, y, x) in ((0, (0, 3, 2)), (3, (1, 0, 0)), (6, (2, 5, 4))):
        at = [np.array([own[band, y, x]]) for own in (bins, means, scales)]
        costs = [int(tables.costs(at[0], at[1] + np.int16(step), at[2])[0]) for step in (-1, 1)]
        per_bin = (costs[1] - costs[0]) * 4 / 256
        assert by_mean[k, y, x] == np.clip(np.floor(per_bin * 2**adjoint.SAID_BITS), -adjoint.LIMIT, adjoint.LIMIT)


@pytest.mark.parametrize("size", [(72, 88), (51, 37)])
def test_costs_are_of_bins_that_are_not_0(size, models):
    planes = planes_of(pixels_of(*size))
    latent = analyse(planes, models.default, LOSSY_UNIT, Clock())
    costs = costs_elsewhere(planes, models.default, [CODE], Clock())
    walk = Walk(models.default, [CODE], 1, len(costs), LOSSY_UNIT, Clock())
    assert [own.shape for own in costs] == [own.shape for own in latent.details]
    for level, (own, details) in enumerate(zip(costs, latent.details, strict=True)):
        zero = quantise(integers(details[0]), walk.steps(level)[0].channels(DETAILS)) == 0
        assert not own[0][zero].any()
        assert np.abs(own).max() <= COST_LIMIT
    assert all(np.count_nonzero(own) for own in costs[:3])


def test_company_and_kernels_change_no_cost(models):
    both, codes = planes_of(pixels_of(70, 50, 1), pixels_of(70, 50, 2)), [CODE, code_of(70)]
    together = costs_elsewhere(both, models.default, codes, Clock())
    again = costs_elsewhere(both, models.default, codes, Clock(), together)
    options = codec.RuntimeOptions(device="cpu", threads=2, optimisation="basic", kernels="float")
    other = codec.open_model(models.default.folder, options)
    for index in range(2):
        alone = costs_elsewhere(both[index : index + 1], other, codes[index : index + 1], Clock())
        known = [own[index : index + 1] for own in together]
        more = costs_elsewhere(both[index : index + 1], other, codes[index : index + 1], Clock(), known)
        for level in range(len(together)):
            np.testing.assert_array_equal(together[level][index : index + 1], alone[level])
            np.testing.assert_array_equal(again[level][index : index + 1], more[level])


def test_steps_of_one_key_run_together(models):
    pictures = [pixels_of(40, 33, seed) for seed in (3, 4)]
    first = [Weigh(models.default, planes_of(own), CODE + 9 * i, None) for i, own in enumerate(pictures)]
    costs = Weigh.together(first, Clock())
    second = [Weigh(s.model, s.planes, s.code, own) for s, own in zip(first, costs, strict=True)]
    assert first[0].key == first[1].key != second[0].key == second[1].key
    assert [s.pixels for s in first] == [40 * 33] * 2
    together = [*costs, *Weigh.together(second, Clock())]
    for step, own in zip([*first, *second], together, strict=True):
        for level, alone in zip(own, Weigh.together([step], Clock())[0], strict=True):
            np.testing.assert_array_equal(level, alone)


def test_patches_are_weighed_as_pictures_of_their_own(models):
    pixels = calm(72, 820)
    run = Run(models.default, DIRECT, Clock())
    whole = weighed(pixels, CODE, run, 1)
    assert [own.shape[1:] for own in whole] == lattice.sizes_of(72, 820)[1:]
    corner = weighed(np.ascontiguousarray(pixels[:, PATCH:]), CODE, run, 1)
    for level, own in enumerate(corner):
        np.testing.assert_array_equal(whole[level][:, :, PATCH >> level + 1 :], own)


@pytest.mark.parametrize("size", [(136, 100), (96, 1056), (1, 1), (1, 9), (17, 3)])
def test_its_streams_decode_and_come_again_as_all_do(size, models):
    found = encoded(calm(*size), models, 20, 1)
    shown = codec.decode(found.stream, models).picture.pixels
    assert shown.shape[:2] == size
    for effort in (0, 1):
        assert encoded(shown, models, 20, effort).stream == found.stream


@pytest.mark.parametrize(("quality", "changes"), [(1, True), (90, True), (90.125, False), (100, False)])
def test_effort_is_for_lossy_pictures_up_to_90(quality, changes, models):
    pixels = pixels_of(80, 96)
    assert (encoded(pixels, models, quality, 1).stream != encoded(pixels, models, quality, 0).stream) is changes


@pytest.mark.parametrize("effort", [-1, 3])
def test_other_efforts_are_refused(effort, models):
    with pytest.raises(codec.OptionError, match="effort must be 0 to 2"):
        encoded(pixels_of(8, 8), models, 50, effort)
    stream = encoded(pixels_of(8, 8), models, 50, 0).stream
    with pytest.raises(codec.OptionError, match="effort must be 0 to 2"):
        codec.re_encode(stream, models, effort=effort)


def test_a_target_is_met_with_effort_too(models):
    found = codec.encode(codec.Picture(calm(96, 112)), models.default, codec.Target(max_bytes=900), effort=1)
    plain = codec.encode(codec.Picture(calm(96, 112)), models.default, codec.Target(max_bytes=900))
    assert len(found.stream) <= 900
    assert found.psnr_db > plain.psnr_db


def test_streams_of_another_quality_are_weighed(models):
    stream = encoded(calm(96, 112), models, 85, 0).stream
    found = [codec.re_encode(stream, models, codec.Target(quality=30), effort=effort) for effort in (0, 1)]
    assert found[0].stream != found[1].stream
    shown = [codec.decode(own.stream, models).picture.pixels for own in found]
    assert all(own.shape == (96, 112, 3) for own in shown)
