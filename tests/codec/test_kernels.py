"""kernels: the trial passes with exact sums and fails with sums cut off at 16 bits."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from service.codec import kernels


class Output(NamedTuple):
    """Of a graph."""

    name: str


class Session:
    """Computes the trial as a processor would, adding neighbouring products first.

    Args:
        layers: What these are cut off at when a layer of bytes adds them up.
        products: Likewise of sums of products; None: an older trial, without any.
    """

    def __init__(self, layers: int, products: int | None) -> None:
        self.limits = {"y": layers} | ({} if products is None else {"z": products})

    def get_outputs(self):
        return [Output(name) for name in self.limits]

    def run(self, outputs, feeds):
        x, weights = feeds["x"].astype(np.int64), kernels.weights()
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
        found = []
        for name in outputs:
            limit, places = self.limits[name], [(1, 1)] if name == "z" else [(r, c) for r in range(3) for c in range(3)]
            sums = np.zeros_like(windows[..., 0, 0]) if name == "z" else kernels.biases()[:, None, None]
            for channel in range(0, kernels.CHANNELS, 2):
                for row, column in places:
                    pair = sum(
                        windows[:, None, c, :, :, row, column] * weights[None, :, c, row, column, None, None]
                        for c in (channel, channel + 1)
                    )
                    sums = sums + np.clip(pair, -limit - 1, limit)
            found.append(
                sums.astype(np.int32)
                if name == "z"
                else np.clip(np.rint(sums / 2.0**kernels.SHIFT), 0, 255).astype(np.uint8)
            )
        return found


EXACT, CUT_OFF = 2**31 - 1, 2**15 - 1


@pytest.mark.parametrize("products", [EXACT, None])
def test_exact_sums_pass(products):
    assert kernels.adds_up(Session(EXACT, products))


@pytest.mark.parametrize(("layers", "products"), [(CUT_OFF, EXACT), (EXACT, CUT_OFF), (CUT_OFF, None)])
def test_sums_cut_off_at_16_bits_fail(layers, products):
    assert not kernels.adds_up(Session(layers, products))


@pytest.mark.parametrize("number", [0, 1])
def test_the_trial_tells_in_most_of_its_outputs(number):
    given = {"x": kernels.inputs()[number]}
    right, wrong = (Session(limit, limit).run(["y", "z"], given) for limit in (EXACT, CUT_OFF))
    assert ((right[0] > 0) & (right[0] < 255)).mean() > 0.2
    for own, other in zip(right, wrong, strict=True):
        assert (own != other).mean() > 0.4
