"""entropy: what goes in comes out, escapes too; the rate is what the tables promise; damage is a typed error."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service import codec
from service.codec.coder_tables import (
    COST_UNIT,
    ESCAPE_COST,
    PRECISION_BITS,
    Tables,
    alike,
    make_table_sets,
    make_tables,
    part_of,
    symbols_of,
)
from service.codec.container import LAST_CODE
from service.codec.entropy import BIN_LIMIT, Decoder, Encoder, shortest
from service.codec.trellis import Trellis

SCALES = 2
HALVES = (2, 2, 40)
PARITY_PRICES = np.array([[100, 600], [200, 400], [256, 256]], np.int16)


def small_tables() -> Tables:
    """Two tables by fraction at scale 0, one at scale 1."""
    frequencies: list[int] = []
    starts = [0]
    for half in HALVES:
        row = [2 ** max(0, 16 - abs(residual)) for residual in range(-half, half + 1)] + [1]
        row[half] += 2**PRECISION_BITS - sum(row)
        frequencies += row
        starts.append(len(frequencies))
    choice = np.array([[0, 1, 1, 1, 1], [2] * 5], np.int16)
    prices = np.rint((PRECISION_BITS - np.log2(frequencies)) * COST_UNIT).astype(np.int16)
    return make_tables(np.array(frequencies, np.uint32), np.array(starts, np.int64), choice, prices, PARITY_PRICES)


TABLES = small_tables()


def there_and_back(
    bins: NDArray[np.int32], means: NDArray[np.int16], scales: NDArray[np.int16], tables: Tables
) -> bytes:
    encoder = Encoder(tables)
    encoder.add(symbols_of(bins, means, scales, tables))
    words = encoder.words()
    np.testing.assert_array_equal(Decoder(words, tables).take(means, scales), bins)
    return words


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.tuples(
            st.one_of(st.integers(-3, 3), st.integers(-BIN_LIMIT, BIN_LIMIT)),
            st.integers(-1016, 1016),
            st.integers(0, SCALES - 1),
        ),
        max_size=40,
    )
)
def test_bins_come_back_whatever_they_are(rows):
    bins, means, scales = (np.array([row[i] for row in rows]) for i in range(3))
    there_and_back(bins.astype(np.int32), means.astype(np.int16), scales.astype(np.int16), TABLES)


@pytest.mark.parametrize("value", [3, -3, 41, -41, BIN_LIMIT, -BIN_LIMIT])
def test_values_beyond_a_table_escape(value):
    zeros = np.zeros(1, np.int16)
    there_and_back(np.array([value], np.int32), zeros, zeros, TABLES)


def test_passes_follow_one_another_in_one_section():
    encoder = Encoder(TABLES)
    rng = np.random.default_rng(0)
    passes = [
        (rng.integers(-4, 5, n).astype(np.int32), rng.integers(-20, 20, n).astype(np.int16), np.ones(n, np.int16))
        for n in (3, 0, 17)
    ]
    for bins, means, scales in passes:
        encoder.add(symbols_of(bins, means, scales, TABLES))
    decoder = Decoder(encoder.words(), TABLES)
    for bins, means, scales in passes:
        np.testing.assert_array_equal(decoder.take(means, scales), bins)


@pytest.mark.parametrize("mean", range(-16, 17))
def test_a_mean_is_a_whole_part_and_a_fraction_of_at_most_half(mean):
    means, scales = np.array([mean], np.int16), np.zeros(1, np.int16)
    symbols = symbols_of(np.zeros(1, np.int32), means, scales, TABLES)
    whole = (mean + 4) // 8
    fraction = mean - 8 * whole
    assert -4 <= fraction < 4
    assert symbols.residuals.tolist() == [whole if fraction < 0 else -whole]
    assert symbols.tables.tolist() == [0 if fraction == 0 else 1]


def test_the_rate_is_the_cross_entropy_of_the_shipped_tables(models: codec.ModelSet):
    with np.load(models.default.folder / "tables.npz") as shipped:
        frequencies, starts = shipped["frequencies"].astype(np.float64), shipped["starts"]
    tables = models.default.tables.entropy_of(None)
    rng = np.random.default_rng(3)
    count, bits = 20_000, 0.0
    encoder = Encoder(tables)
    for scale in range(0, tables.choice.shape[0], 7):
        table = int(tables.choice[scale, 0])
        mass = frequencies[starts[table] : starts[table + 1]] / 2**PRECISION_BITS
        assert mass.sum() == 1
        index = rng.choice(len(mass) - 1, count, p=mass[:-1] / mass[:-1].sum())
        bits -= float(np.log2(mass[index]).sum())
        means = np.zeros(count, np.int16)
        bins = (index - tables.whole.halves[table]).astype(np.int32)
        encoder.add(symbols_of(bins, means, np.full(count, scale, np.int16), tables))
    assert len(encoder.words()) * 8 == pytest.approx(bits, rel=0.002)


@settings(deadline=None, max_examples=100)
@given(words=st.binary(max_size=64), count=st.integers(0, 60), scale=st.integers(0, SCALES - 1))
def test_words_nobody_wrote_give_bins_or_a_typed_error(words, count, scale):
    means = np.zeros(count, np.int16)
    try:
        bins = Decoder(words, TABLES).take(means, np.full(count, scale, np.int16))
    except codec.CorruptStreamError:
        return
    assert bins.shape == (count,)
    assert np.abs(bins).max(initial=0) <= 16 * BIN_LIMIT


@given(st.integers(0, 2**64 - 1), st.integers(2**32, 2**64 - 1))
def test_no_fewer_bytes_say_a_number_in_the_range(lower, extent):
    tail = shortest(lower, extent)
    if tail is None:
        assert lower + extent > 2**64
        return
    assert lower <= int.from_bytes(tail.ljust(8, b"\0"), "big") < lower + extent
    for kept in range(len(tail)):
        first = -(-lower >> 64 - 8 * kept) << 64 - 8 * kept
        assert first >= lower + extent


@settings(deadline=None, max_examples=300)
@given(st.lists(st.integers(-3, 3), max_size=80))
def test_the_last_word_is_cut_short_and_nothing_is_lost(values):
    bins, zeros = np.array(values, np.int32), np.zeros(len(values), np.int16)
    encoder = Encoder(TABLES)
    encoder.add(symbols_of(bins, zeros, zeros, TABLES))
    words = encoder.words()
    assert not words.endswith(b"\0")
    assert len(words) <= 4 * len(encoder._coder.get_compressed())
    np.testing.assert_array_equal(Decoder(words, TABLES).take(zeros, zeros), bins)
    assert encoder.words() == words


def test_most_streams_are_shorter_than_their_words():
    rng, saved = np.random.default_rng(8), []
    for length in range(1, 200):
        zeros = np.zeros(length, np.int16)
        encoder = Encoder(TABLES)
        encoder.add(symbols_of(rng.integers(-2, 3, length).astype(np.int32), zeros, zeros, TABLES))
        saved.append(4 * len(encoder._coder.get_compressed()) - len(encoder.words()))
    assert np.mean(saved) > 1.2


def test_words_the_coder_cannot_have_written_are_damage():
    with pytest.raises(codec.CorruptStreamError, match="invalid"):
        Decoder(b"\xff" * 16, TABLES).take(np.zeros(50, np.int16), np.zeros(50, np.int16))


def test_an_endless_escape_is_damage(monkeypatch):
    decoder = Decoder(b"", TABLES)
    monkeypatch.setattr(decoder, "_bit", lambda: 0)
    with pytest.raises(codec.CorruptStreamError, match="escape is too long"):
        decoder._escaped(2, 1)


def test_costs_are_what_coding_takes():
    rng = np.random.default_rng(3)
    bins = rng.integers(-2, 3, 20_000).astype(np.int32)
    means, scales = (np.zeros(bins.size, np.int16) for _ in range(2))
    words = there_and_back(bins, means, scales, TABLES)
    assert TABLES.costs(bins, means, scales).sum() / COST_UNIT == pytest.approx(8 * len(words), rel=0.01)


def test_a_bin_outside_its_table_costs_the_escape_and_more():
    bins, nothing = np.array([2, 3, -3], np.int32), np.zeros(3, np.int16)
    inside, above, below = TABLES.costs(bins, nothing, nothing)
    assert above == below == PRECISION_BITS * COST_UNIT + ESCAPE_COST > inside


def test_the_part_of_a_table_keeps_its_proportions_and_its_sum():
    frequencies = np.array([1, 3, 100, 2**23, 50, 3, 1, 7])
    frequencies[3] += 2**PRECISION_BITS - frequencies.sum()
    odd, even = part_of(frequencies, 1), part_of(frequencies, 0)
    assert odd.sum() == even.sum() == 2**PRECISION_BITS
    # Residuals -3 ... 3 and the escape: -3, -1, 1, 3 are odd.
    expected = np.array([1, 100, 50, 1, 7]) / 159
    np.testing.assert_allclose(odd / 2**PRECISION_BITS, expected, atol=1e-6)
    assert even.argmax() == 1
    assert (even >= 1).all()


@given(seed=st.integers(0, 20), count=st.integers(0, 300))
def test_checks_come_back_from_the_others_parities(seed, count):
    """Residuals beyond the tables as well: escapes of checks say only what their parity leaves open."""
    rng = np.random.default_rng(seed)
    scales = rng.integers(0, SCALES, count).astype(np.int16)
    trellis = Trellis.of(rng.integers(0, 40, count).astype(np.int16))
    means = rng.integers(-40, 41, count).astype(np.int16)
    bins = np.rint(rng.standard_cauchy(count) * 9).clip(-BIN_LIMIT, BIN_LIMIT).astype(np.int32)
    bins[trellis.checks] += (bins[trellis.checks] ^ trellis.parities(bins)) & 1
    encoder = Encoder(TABLES)
    encoder.add(symbols_of(bins, means, scales, TABLES), trellis.checks)
    decoder = Decoder(encoder.words(), TABLES)
    np.testing.assert_array_equal(decoder.take(means, scales, trellis), bins)


def test_a_check_saves_what_its_parity_would_have_cost():
    count = 4000
    means, scales = np.zeros(count, np.int16), np.ones(count, np.int16)
    trellis = Trellis.of(np.full(count, 40, np.int16))
    bins = np.random.default_rng(1).integers(-30, 31, count).astype(np.int32)
    bins[trellis.checks] += (bins[trellis.checks] ^ trellis.parities(bins)) & 1
    sizes = []
    for checks in (trellis.checks, trellis.checks[:0]):
        encoder = Encoder(TABLES)
        encoder.add(symbols_of(bins, means, scales, TABLES), checks)
        sizes.append(8 * len(encoder.words()))
    odd = sum(2 ** max(0, 16 - abs(r)) for r in range(-39, 40, 2)) / 2**PRECISION_BITS
    saved = -np.log2(np.where(bins[trellis.checks] & 1, odd, 1 - odd)).sum()
    assert sizes[1] - sizes[0] == pytest.approx(saved, rel=0.01)


def test_parities_cost_what_the_table_and_the_whole_mean_say():
    means, scales = np.array([0, 8, -8, 16, 2], np.int16), np.zeros(5, np.int16)
    even, odd = TABLES.parity_costs(means, scales)
    assert even.tolist() == [100, 600, 600, 100, 200]
    assert odd.tolist() == [600, 100, 100, 600, 400]


def test_sets_share_models_and_differ_in_their_choice():
    starts = np.cumsum([0] + [2 * half + 2 for half in HALVES]).astype(np.int64)
    frequencies = np.concatenate([np.full(2 * half + 2, 2**PRECISION_BITS // (2 * half + 2)) for half in HALVES])
    for first, last in pairwise(starts):
        frequencies[first] += 2**PRECISION_BITS - frequencies[first:last].sum()
    choices = np.stack([TABLES.choice, TABLES.choice[::-1]])
    one, other = make_table_sets(
        frequencies.astype(np.uint32), starts, choices, np.zeros(starts[-1], np.int16), PARITY_PRICES
    )
    assert one.whole is other.whole
    bins, means = np.array([1, -30, 0], np.int32), np.zeros(3, np.int16)
    for tables, scale in ((one, 1), (other, 0)):
        scales = np.full(3, scale, np.int16)
        assert (symbols_of(bins, means, scales, tables).tables == 2).all()
        there_and_back(bins, means, scales, tables)


def test_every_quality_has_a_set_and_lossless_streams_have_one(models):
    tables = models.default.tables
    assert tables.table_sets.shape == (LAST_CODE + 2,)
    assert set(tables.table_sets.tolist()) == set(range(len(tables.entropy)))
    assert tables.entropy_of(0) is tables.entropy[0]
    assert tables.entropy_of(None) is tables.entropy[int(tables.table_sets[-1])]


def test_numbers_without_a_prior_have_means_of_zero_and_one_scale():
    means, scales = alike(3, 34)
    assert means.tolist() == [0, 0, 0]
    assert scales.tolist() == [34] * 3
