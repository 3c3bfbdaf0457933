"""tables: what residuals and their parities cost, and what is counted to fit them."""

import numpy as np
import pytest

from model_export.tables import CountingEncoder, parametric, parity_prices, prices, table_layout
from service import codec
from service.codec.coder_tables import COST_UNIT, PRECISION_BITS, alike, symbols_of


@pytest.mark.parametrize("half", [4, 5])
def test_a_parity_costs_what_its_residuals_and_the_escape_cost_together(half: int):
    frequencies = np.random.default_rng(half).integers(1, 2**16, 2 * half + 2)
    frequencies[half] += 2**PRECISION_BITS - frequencies.sum()
    residuals = np.arange(-half, half + 1)
    for parity, price in enumerate(parity_prices(frequencies)):
        mass = frequencies[:-1][residuals % 2 == parity].sum() + frequencies[-1]
        assert price == round(-np.log2(mass / 2**PRECISION_BITS) * COST_UNIT)


def test_wide_tables_charge_a_bit_for_a_parity_and_narrow_ones_for_odd_residuals_alone():
    wide, narrow = parametric(table_layout())[150], parametric(table_layout())[0]
    assert parity_prices(wide).tolist() == pytest.approx([COST_UNIT, COST_UNIT], abs=1)
    even, odd = parity_prices(narrow).tolist()
    assert even == 0
    assert odd > 10 * COST_UNIT
    assert prices(narrow).min() == 0


def test_checks_are_not_counted(models: codec.ModelSet):
    """Their parities are others' doing."""
    tables = models.default.tables.entropy[0]
    counted = [np.zeros(2 * half + 2, np.int64) for half in tables.whole.halves]
    encoder = type("Counter", (CountingEncoder,), {"counts": counted})(tables)
    bins = np.array([0, 1, -1, 0, 2], np.int32)
    encoder.add(symbols_of(bins, *alike(5, 30), tables), np.array([1, 4]))
    table = int(tables.choice[30, 0])
    half = tables.whole.halves[table]
    assert sum(own.sum() for own in counted) == 3
    assert counted[table][half - 1 : half + 3].tolist() == [1, 2, 0, 0]
