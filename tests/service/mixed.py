"""Many different requests on tiny pictures: through a device at once, and through the library one by one."""

from __future__ import annotations

import functools
import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

from service import codec
from service.batcher import Bounds
from service.cancellation import Cancellation
from service.drivers import Device
from tests.codec.samples import picture_of, put_together, rich_of, take_apart

SIZES = ((8, 8), (16, 16), (16, 16), (9, 13))
QUALITIES = (1.0, 33.125, 60.0, 75.0, 99.0, 100.0)


@dataclass(frozen=True)
class Request:
    """One request; equal requests have equal answers."""

    kind: Literal["encode", "rich", "effort", "stable", "max_bytes", "decode", "small", "re_encode", "damaged"]
    size: tuple[int, int]
    quality: float
    seed: int


def requests(count: int, seed: int = 0) -> list[Request]:
    """Encodes, decodes and re-encodes of several sizes and qualities, lossless and not, searches, damaged streams."""
    draw = random.Random(seed)
    kinds: Sequence[Request] = [
        Request(kind, size, quality, number)
        for kind in ("encode", "encode", "decode", "decode", "re_encode", "rich", "effort", "small", "damaged")
        for size in SIZES
        for quality in QUALITIES
        for number in range(2)
    ]
    searches = [Request(kind, size, 75.0, 0) for kind in ("stable", "max_bytes") for size in SIZES[:2]]
    return [draw.choice(searches if draw.random() < 0.02 else kinds) for _ in range(count)]


class Answers:
    """Gives the answer to a request by any runner: bytes, or the name of the error."""

    def __init__(self, models: codec.ModelSet) -> None:
        self._models = models
        self._stream = functools.cache(self._encoded)
        self.alone = functools.cache(functools.partial(self.by, runner=codec.DIRECT))

    def _encoded(self, size: tuple[int, int], quality: float, seed: int) -> bytes:
        return codec.encode(picture_of(*size, seed), self._models.default, codec.Target(quality=quality)).stream

    def prepare(self, given: Sequence[Request]) -> None:
        """Make the streams the requests bring, so that this is no part of their work."""
        for r in given:
            self._stream(r.size, r.quality, r.seed)

    def by(self, r: Request, runner: codec.TileRunner) -> bytes:
        """The answer to a request."""
        try:
            return self._answer(r, runner)
        except codec.BijouError as error:
            return type(error).__name__.encode()

    def _answer(self, r: Request, runner: codec.TileRunner) -> bytes:
        picture, model = picture_of(*r.size, r.seed), self._models.default
        target, stream = codec.Target(quality=r.quality), self._stream(r.size, r.quality, r.seed)
        match r.kind:
            case "encode":
                return codec.encode(picture, model, target, runner=runner).stream
            case "rich":
                return codec.encode(rich_of(*r.size), model, target, runner=runner).stream
            case "effort":
                return codec.encode(picture, model, target, runner=runner, effort=1).stream
            case "stable":
                return codec.encode(picture, model, target, stable=True, runner=runner).stream
            case "max_bytes":
                return codec.encode(picture, model, codec.Target(max_bytes=len(stream)), runner=runner).stream
            case "decode" | "small":
                scale = 1 if r.kind == "decode" else 4
                return codec.decode(stream, self._models, scale=scale, runner=runner).picture.pixels.tobytes()
            case "re_encode":
                return codec.re_encode(stream, self._models, codec.Target(quality=20), runner=runner).stream
            case "damaged":
                header, payloads = take_apart(stream)
                payloads[0] = bytes([*payloads[0][:3], payloads[0][3] ^ 128, *payloads[0][4:]])
                hurt = put_together(header, payloads)
                return codec.decode(hurt, self._models, runner=runner).picture.pixels.tobytes()


def wrong_answers(models: codec.ModelSet, count: int, threads: int) -> tuple[list[Request], Counter[int]]:
    """Send requests from many threads at once.

    Returns:
        Those whose answer is not the library's, and how many batches had how many items.
    """
    sizes: Counter[int] = Counter()
    bounds = Bounds(items=8, pixels=8 * 64 * 64, delay_s=0.005, slots=1, drivers=2, waiting=threads)
    device = Device(bounds, observe=lambda op, reason, items, pixels: sizes.update([items]))
    answers, given = Answers(models), requests(count)
    answers.prepare(given)
    with ThreadPoolExecutor(threads) as pool:
        through_device = list(pool.map(lambda r: answers.by(r, device.runner(Cancellation())), given))
    device.close()
    return [r for r, got in zip(given, through_device, strict=True) if got != answers.alone(r)], sizes
