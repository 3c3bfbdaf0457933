"""How a training run goes: its settings, and the parts of a model that can be trained alone."""

from __future__ import annotations

from dataclasses import dataclass

from service.codec.artifact import PRIORS

PARTS: dict[str, tuple[str, ...]] = {
    "all": ("",),
    "prior": (".priors.",),
    "dequantiser": (".dequantiser.",),
    "offsets": tuple(f".{i}.dequantiser.{own}." for i in range(1, len(PRIORS)) for own in ("refiner", "last")),
    "coarser": tuple(f".priors.{index}." for index in range(1, len(PRIORS))),
    "deep": tuple(f".priors.{index}." for index in range(2, len(PRIORS))),
    "finer": tuple(f".priors.{index}." for index in range(2)),
} | {name: (f".priors.{index}.",) for index, name in enumerate(PRIORS)}
"""Parts of a model that can be trained alone, and what occurs in the names of their parameters."""
FINEST = {name: index for index, name in enumerate(PRIORS)} | {"coarser": 1, "deep": 2}
"""Finest level that is coded while a part is trained; validation then says nothing about finer ones either."""


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Attributes:
        minutes: Time budget of the whole schedule.
        batch: Crops in a step.
        side: Side of a crop in pixels, a multiple of 2**(levels + 1).
        wide_share: Share of steps whose crops are twice as wide and a quarter as many.
        rate: Muon's step at the start.
        lossless_share: Share of batches that are lossless.
        part: What is trained: `all`; the `prior` without flow and steps; of it the `coarsest`, `coarse`, `middle` or
            `fine` part, `coarser`, which is all but the fine one, `deep`, which is all but that and the middle one,
            `finer`, which is these two, or the `dequantiser`; or what makes the `offsets` of all levels but the finest
            and nothing else.
        exact: Fine-tune with integer weights and activations.
        mixed: Run the prior's convolutions in bfloat16; not with `exact`.
        wake: Begin channels anew that never fire, when a run starts.
        seed: Of crops, qualities and noise.
        threads: CPU threads.
        workers: Processes that cut crops; 0: they are cut between steps.
        device: `cpu` or `cuda`.
        report_s: Seconds between reports and checkpoints.
        max_steps: Stop after this many steps (tests); 0: no limit.
    """

    minutes: float = 60.0
    batch: int = 8
    side: int = 128
    wide_share: float = 0.0
    rate: float = 0.02
    lossless_share: float = 0.2
    part: str = "all"
    exact: bool = False
    mixed: bool = False
    wake: bool = False
    seed: int = 0
    threads: int = 1
    workers: int = 0
    device: str = "cpu"
    report_s: float = 180.0
    max_steps: int = 0
