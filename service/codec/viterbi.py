"""Bins chosen one by one -> bins nearby whose parities a trellis allows. Encoder only.

Source: G. D. Forney, "The Viterbi algorithm", Proceedings of the IEEE 61(3), 1973.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.codec.arrays import Integers
from service.codec.choice import Values, moves
from service.codec.trellis import REGISTER_BITS, TAPS, WIDTH, Trellis

IMPOSSIBLE = 2**28
"""A cost that no path has."""
STATES = 2**REGISTER_BITS


def tied(bins: Integers, values: Values, trellis: Trellis) -> tuple[Integers, int]:
    """Move bins by one where their trellis asks for it, so that what is lost and what is coded is least.

    Chains whose parities are right stay as they are.

    Args:
        bins: What `choose` gives, [C, H, W].
        values: What it was given.
        trellis: Of their scale indices.

    Returns:
        Bins, [C, H, W], and how many checks were wrong.
    """
    flat = bins.ravel()
    odd, known = trellis.odd(flat), trellis.places >= 0
    mistaken = (trellis.asked(odd) != odd[:, -1]) & known[:, -1]
    wrong = np.flatnonzero(mistaken.any(0))
    if not wrong.size:
        return bins, 0
    places, odd, known = trellis.places[:, :, wrong], odd[:, :, wrong], known[:, :, wrong]
    cost, step = moves(flat, values, places[known])
    stay, move = np.zeros(places.shape, np.int32), np.full(places.shape, IMPOSSIBLE, np.int32)
    move[known] = cost
    checks = known[:, -1]
    move[:, -1][~checks] = 0  # a group without a check is free
    own, now = places[:, -1][checks], odd[:, -1][checks]
    even_price, odd_price = values.tables.parity_costs(values.means.ravel()[own], values.scales.ravel()[own])
    stay[:, -1][checks] -= np.where(now, odd_price, even_price)
    move[:, -1][checks] -= np.where(now, even_price, odd_price)
    moved = (cheapest(np.where(odd, move, stay), np.where(odd, stay, move)) != odd)[known]
    result = flat.copy()
    result[places[known][moved]] += step[moved]
    return result.reshape(bins.shape), int(mistaken.sum())


def cheapest(even: Integers, odd: Integers) -> NDArray[np.bool_]:
    """Parities of least cost that leave every register even.

    Args:
        even: What it costs each bin of some chains to be even, [GROUPS, WIDTH, chains].
        odd: What it costs to be odd; IMPOSSIBLE where there is no bin.

    Returns:
        Which are odd, likewise.
    """
    groups, _, chains = even.shape
    columns, registers = np.arange(chains), np.arange(STATES)
    metric = np.full((STATES, chains), IMPOSSIBLE, np.int32)
    metric[0] = 0
    taken = np.zeros((groups, WIDTH, STATES, chains), np.bool_)
    used = [int(np.flatnonzero((own < IMPOSSIBLE).any(0)).max(initial=-1)) + 1 for own in odd.swapaxes(0, 1)]
    for group in range(groups):
        for place, active in enumerate(used):  # long groups come first
            stays = metric[:, :active] + even[group, place, :active]
            turns = metric[registers ^ TAPS[place], :active] + odd[group, place, :active]
            np.less(turns, stays, out=taken[group, place, :, :active])
            np.minimum(stays, turns, out=metric[:, :active])
        metric[: STATES // 2], metric[STATES // 2 :] = metric[::2].copy(), IMPOSSIBLE
    register, found = metric.argmin(0), np.empty(even.shape, np.bool_)
    for group in reversed(range(groups)):
        register = 2 * register
        for place in reversed(range(WIDTH)):
            found[group, place] = taken[group, place, register, columns]
            register = register ^ found[group, place] * TAPS[place]
    return found
