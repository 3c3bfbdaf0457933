"""feedback: shifts are what the formula says, in every pass and size, and make the encoder's choices better ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from service import codec
from service.codec.container import code_of
from service.codec.feedback import ERROR_LIMIT, Feedback
from service.codec.lattice import LOSSY_UNIT
from service.codec.prior import PASSES, bands_of, phase_of, place, select
from service.codec.quantise import STEP_UNIT, WEIGHT_UNIT, Steps, expected, points
from tests.codec.samples import picture_of


def steps_of(width: int) -> Steps:
    nothing = np.zeros(9, np.int32)
    widths = (width + 16 * np.arange(9)) * STEP_UNIT
    return Steps(widths.astype(np.int32), 4, nothing + 4, nothing, nothing + 100)


def details_of(height: int, width: int, seed: int, scale: float) -> NDArray[np.int32]:
    return np.rint(np.random.default_rng(seed).laplace(0, scale, (1, 9, height, width))).astype(np.int32)


def by_formula(model: codec.Model, errors: NDArray[np.int64], level: int, exponent: int) -> NDArray[np.int64]:
    """Shifts of all details [9, H, W], of errors in lattice units."""
    unit = 1 << exponent
    read = np.clip((errors + unit // 2) // unit, -ERROR_LIMIT, ERROR_LIMIT)
    kernel = np.zeros((9, 9, *model.tables.feedback.shape[-2:]), np.int64)
    for colour in range(3):  # none moves another
        kernel[colour::3, colour::3] = model.tables.feedback[level, int(colour > 0)]
    reach = kernel.shape[-1] // 2
    padded = np.pad(read, [(0, 0), (reach, reach), (reach, reach)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[-2:], (1, 2))
    shifts: NDArray[np.int64] = (np.einsum("oiab,iyxab->oyx", kernel, windows) * unit + 128) // 256
    return shifts


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (6, 1), (2, 2), (9, 11), (10, 12)])
@pytest.mark.parametrize(("step", "level"), [(70, 0), (900, 1), (20_000, 3)])
def test_shifts_are_those_of_the_formula_before_and_after_each_pass(models, size, step, level):
    model, steps, details = models.default, steps_of(step), details_of(size[0], size[1], step, step / 2)
    feedback = Feedback(model, details, level, [steps])
    assert feedback.exponents == [{70: 0, 900: 0, 20_000: 4}[step]]
    widths = steps.width[:, None, None]
    bins = expected(details[0], widths)[None]
    rng = np.random.default_rng(1)
    for number in range(PASSES):
        row, column = phase_of(number)
        errors = (details - points(bins[0], widths, steps.outward)[None])[0].astype(np.int64)
        wanted = by_formula(model, errors, level, feedback.exponents[0])
        np.testing.assert_array_equal(feedback.shift(number)[0], wanted[list(bands_of(number)), row::2, column::2])
        chosen = select(bins, number) + rng.integers(-1, 2, select(bins, number).shape).astype(np.int32)
        feedback.learn(number, chosen)
        place(bins, number, chosen)


def test_tiles_together_are_each_alone(models):
    details = np.concatenate([details_of(9, 11, seed, 100.0 * (1 + 40 * seed)) for seed in range(3)])
    steps = [steps_of(width) for width in (90, 4000, 800)]
    together = Feedback(models.default, details, 1, steps)
    alone = [Feedback(models.default, details[i : i + 1], 1, [own]) for i, own in enumerate(steps)]
    for number in range(PASSES):
        for ours, single in zip(together.shift(number), alone, strict=True):
            np.testing.assert_array_equal(ours, single.shift(number)[0])
        widths = [own.width[:, None, None] for own in steps]
        bins = select(np.stack([expected(d, w) for d, w in zip(details, widths, strict=True)]), number)
        together.learn(number, bins)
        for i, single in enumerate(alone):
            single.learn(number, bins[i : i + 1])


def test_sums_stay_exact_in_float32(models):
    kernels = models.default.tables.feedback
    assert (np.abs(kernels).sum((3, 4, 5)) * ERROR_LIMIT < 2**24).all()
    assert (np.abs(kernels) <= ERROR_LIMIT).all()
    assert (kernels[:, :, range(3), range(3), 2, 2] == 0).all(), "a detail does nothing to itself"


@pytest.mark.parametrize(("quality", "count"), [(20, 24), (60, 3), (85, 3)])
def test_choices_are_better_for_it(quality, count, monkeypatch, models):
    """Less of what the encoder minimises than without feedback: with the same model, at the same quality.

    A picture gains 0.4 %, give or take 0.3 from quality 60 on and 0.6 at 20, where each has few bins: so more of them.
    """
    model, pictures, code = models.default, [picture_of(256, 256, seed) for seed in range(count)], code_of(quality)
    energy = 3.1  # squared norm in RGB of the finest luma details' basis functions
    step = int(model.tables.steps[code, 0, 3]) / STEP_UNIT / LOSSY_UNIT
    worth = int(model.tables.weights[code, 0, 3]) / WEIGHT_UNIT / (step**2 * energy)

    def loss_of(picture: codec.Picture) -> float:
        encoded = codec.encode(picture, model, codec.Target(quality=quality))
        decoded = codec.decode(encoded.stream, models).picture.pixels
        squared = np.square(decoded.astype(float) - picture.pixels).sum()
        return 8 * len(encoded.stream) + worth * float(squared)

    def loss() -> float:
        return sum(map(loss_of, pictures))

    with_feedback = loss()
    nothing = dataclasses.replace(model.tables, feedback=np.zeros_like(model.tables.feedback))
    monkeypatch.setattr(model, "tables", nothing)
    assert with_feedback < loss()
