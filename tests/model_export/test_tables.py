"""tables: what residuals and their parities cost."""

import numpy as np
import pytest

from model_export.tables import parametric, parity_prices, prices, table_layout
from service.codec.coder_tables import COST_UNIT, PRECISION_BITS


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
