"""kernels: the trial passes with exact sums and fails with sums cut off at 16 bits."""

from __future__ import annotations

import numpy as np

from service.codec import kernels


class Session:
    """Computes the trial as a processor would, adding neighbouring products first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit

    def run(self, outputs, feeds):
        assert outputs == ["y"]
        x, weights = feeds["x"].astype(np.int64), kernels.weights()
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (2, 3))
        sums = kernels.biases()[:, None, None]
        for channel in range(0, kernels.CHANNELS, 2):
            for row in range(3):
                for column in range(3):
                    pair = sum(
                        windows[:, None, c, :, :, row, column] * weights[None, :, c, row, column, None, None]
                        for c in (channel, channel + 1)
                    )
                    sums = sums + np.clip(pair, -self.limit - 1, self.limit)
        return [np.clip(np.rint(sums / 2.0**kernels.SHIFT), 0, 255).astype(np.uint8)]


def test_exact_sums_pass():
    assert kernels.adds_up(Session(2**31 - 1))


def test_sums_cut_off_at_16_bits_fail():
    assert not kernels.adds_up(Session(2**15 - 1))


def test_the_trial_tells_in_most_of_its_outputs():
    given = {"x": kernels.inputs()}
    right, wrong = (Session(limit).run(["y"], given)[0].astype(int) for limit in (2**31 - 1, 2**15 - 1))
    assert ((right > 0) & (right < 255)).mean() > 0.2
    assert (right != wrong).mean() > 0.4
