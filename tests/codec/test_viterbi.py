"""viterbi: parities come out right at the least cost, and what has them right already stays as it is."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from service import codec
from service.codec.choice import MOVE_LIMIT, Values, choose, moves
from service.codec.coder_tables import Tables
from service.codec.quantise import STEP_UNIT, Steps, dequantise, quantise
from service.codec.trellis import GROUPS, WIDTH, Trellis
from service.codec.viterbi import IMPOSSIBLE, cheapest, tied
from tests.codec.samples import centroids_of

WIDTH_OF_BIN = 400 * STEP_UNIT
SHAPE = (2, 40, 40)


@pytest.fixture(scope="module")
def tables(models: codec.ModelSet) -> Tables:
    return models.default.tables.entropy_of(392)


def steps_of(outward: int = 4) -> Steps:
    columns = [np.full(SHAPE[0], value, np.int32) for value in (WIDTH_OF_BIN, 4, 0, 70)]
    return Steps(columns[0], outward, *columns[1:])


def values_of(latent: np.ndarray, scales: np.ndarray, tables: Tables) -> Values:
    nothing = np.zeros(latent.shape, np.int32)
    return Values(latent, nothing, steps_of(), nothing.astype(np.int16), scales, tables, centroids_of(3), held=True)


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Latent values and the scale indices they are drawn with."""
    rng = np.random.default_rng(seed)
    scales = rng.integers(8, 34, SHAPE).astype(np.int16)
    return np.rint(rng.logistic(0, 400 * 2.0 ** (-4.8 + 0.2 * scales))).astype(np.int32), scales


@pytest.mark.parametrize("seed", range(4))
def test_parities_come_out_right_and_no_bin_moves_by_more_than_one(tables: Tables, seed: int):
    latent, scales = drawn(seed)
    values, trellis = values_of(latent, scales, tables), Trellis.of(scales.ravel())
    before = choose(values)
    after, wrong = tied(before, values, trellis)
    assert 0.4 * trellis.checks.size < wrong < 0.6 * trellis.checks.size
    assert (after.ravel()[trellis.checks] & 1).tolist() == trellis.parities(after.ravel()).tolist()
    assert np.abs(after - before).max() == 1
    free = np.setdiff1d(np.arange(before.size), trellis.places)
    assert (after.ravel()[free] == before.ravel()[free]).all()


def test_what_was_decoded_stays_whatever_it_costs(tables: Tables):
    latent, scales = drawn(9)
    values, trellis = values_of(latent, scales, tables), Trellis.of(scales.ravel())
    bins, _ = tied(choose(values), values, trellis)
    offsets = np.random.default_rng(1).integers(-100, 101, SHAPE).astype(np.int16)
    decoded = values_of(dequantise(bins, offsets, values.steps), scales, tables)
    again, wrong = tied(choose(decoded), decoded, trellis)
    assert wrong == 0
    np.testing.assert_array_equal(again, bins)


def test_one_wrong_bin_is_put_right_at_the_price_of_at_most_one_move(tables: Tables):
    """What a decoder gave, one value off by more than half a bin: correcting it is one way to right parities."""
    latent, scales = drawn(3)
    values, trellis = values_of(latent, scales, tables), Trellis.of(scales.ravel())
    bins, _ = tied(choose(values), values, trellis)
    decoded = dequantise(bins, np.zeros(SHAPE, np.int16), values.steps)
    negative = trellis.checks[bins.ravel()[trellis.checks] < -1]
    decoded[np.unravel_index(negative[len(negative) // 2], SHAPE)] += 220  # nearer to 0, where there is no choice
    disturbed = values_of(decoded, scales, tables)
    again, wrong = tied(choose(disturbed), disturbed, trellis)
    assert wrong
    assert np.count_nonzero(again != bins) <= 2


def every_way(even: np.ndarray, odd: np.ndarray) -> int:
    """The least cost of one chain, by trying all parities of its bins."""
    cells = [(g, p) for g, p in np.ndindex(GROUPS, WIDTH) if odd[g, p, 0] < IMPOSSIBLE]
    places = np.full((GROUPS, WIDTH, 1), -1)
    for number, (group, place) in enumerate(cells):
        places[group, place] = number
    trellis, least = Trellis(places), IMPOSSIBLE
    for parities in itertools.product((0, 1), repeat=len(cells)):
        bins = np.array(parities, np.int32)
        if (trellis.parities(bins) == bins[trellis.checks]).all():
            cost = sum(int((odd if p else even)[g, w, 0]) for (g, w), p in zip(cells, parities, strict=True))
            least = min(least, cost)
    return least


@pytest.mark.parametrize("seed", range(6))
def test_nothing_costs_less(seed: int):
    rng = np.random.default_rng(seed)
    even, odd = np.zeros((GROUPS, WIDTH, 1), np.int32), np.full((GROUPS, WIDTH, 1), IMPOSSIBLE, np.int32)
    odd[:, -1] = 0
    for group, size in enumerate((3, 4, 3)):
        used = [*range(size - 1), -1]
        even[group, used, 0], odd[group, used, 0] = rng.integers(-500, 500, (2, size))
    found = cheapest(even, odd)
    cost = int(np.where(found, odd, even)[:3].sum())
    kept = odd.copy()
    kept[3:, -1] = IMPOSSIBLE  # groups without a check
    assert cost == every_way(even, kept)


def test_moves_never_gain_where_there_is_no_choice_and_are_bounded(tables: Tables):
    latent = np.array([-900, -500, -430, -200, 0, 150, 199, 395, 405, 470, 5000], np.int32).reshape(1, 1, -1)
    scales = np.full(latent.shape, 20, np.int16)
    columns = [np.full(1, value, np.int32) for value in (WIDTH_OF_BIN, 4, 0, 70)]
    nothing = np.zeros(latent.shape, np.int32)
    steps = Steps(columns[0], 4, *columns[1:])
    values = Values(latent, nothing, steps, nothing.astype(np.int16), scales, tables, centroids_of(3), held=True)
    bins = choose(values).ravel()
    cost, step = moves(bins, values, np.arange(latent.size))
    assert (np.abs(step) == 1).all()
    nearest = np.abs(quantise(latent, steps).ravel())  # of 5000, half-way between two, the outer one: there is a choice
    settled = np.abs(latent.ravel()) * STEP_UNIT - nearest * WIDTH_OF_BIN >= -4 * WIDTH_OF_BIN // 64
    assert np.flatnonzero(~settled).tolist() == [3, 10]
    assert (cost[settled] >= 0).all()
    assert (np.abs(cost) <= MOVE_LIMIT).all()
    # What bins cost elsewhere changes nothing for a decoded picture.
    dear = replace(values, elsewhere=np.full(latent.shape, 20_000, np.int16))
    np.testing.assert_array_equal(moves(bins, dear, np.arange(latent.size)), (cost, step))
    # The cheaper neighbour of a value in a bin's upper half is the next one out.
    assert step[latent.ravel() == 470].tolist() == [1]


@pytest.mark.parametrize("elsewhere", [-3000, 3000])
def test_a_move_towards_zero_costs_what_it_does_elsewhere_and_one_outwards_saves_it(elsewhere: int, tables: Tables):
    latent, scales = drawn(5)
    plain = replace(values_of(latent, scales, tables), held=False)
    values = replace(plain, elsewhere=np.full(latent.shape, elsewhere, np.int16))
    bins = choose(plain).ravel()
    places = np.flatnonzero(bins)
    cost, step = moves(bins, values, places)
    outwards = step == np.sign(bins[places])
    assert outwards.any() if elsewhere > 0 else not outwards.all()
    before, own = moves(bins, plain, places)
    free = np.abs(latent.ravel()[places]) * STEP_UNIT < np.abs(bins[places]) * WIDTH_OF_BIN  # no matter what is known
    same = free & (own == step) & (np.abs(cost) < MOVE_LIMIT)
    assert same.any()
    np.testing.assert_array_equal((cost - before)[same], np.where(outwards, -elsewhere, elsewhere)[same])
