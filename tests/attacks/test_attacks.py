"""Streams made to hurt, one named case each, every checksum right. docs/bitstream.md says which rule stops which."""

from __future__ import annotations

import dataclasses
import io
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from PIL import Image

from service import codec
from service.codec import container
from service.codec.container import ALPHA, GREY, ICC, LOSSLESS, TIED, Header
from service.codec.forms import LAST_FORM
from service.codec.lowest import LOW_TABLES
from tests.codec.samples import LIMITS, picture_of, put_together, rich_of, take_apart

MEMORY_BYTES = 64 * 2**20
SECONDS = 5.0


@dataclass(frozen=True)
class Victim:
    """What cases are made from: headers and payloads of honest streams: plain, with alpha, and of halved chroma."""

    header: Header
    payloads: list[bytes]
    rich_header: Header
    rich_payloads: list[bytes]
    halved_header: Header
    halved_payloads: list[bytes]

    def with_lists(self, lists: bytes) -> bytes:
        return put_together(self.halved_header, [lists, *self.halved_payloads[1:]])

    def of_form(self, form: int) -> bytes:
        return put_together(dataclasses.replace(self.halved_header, code=form), self.halved_payloads)

    def resized(self, width: int, height: int) -> bytes:
        return put_together(dataclasses.replace(self.header, width=width, height=height), self.payloads)

    def with_first(self, payload: bytes) -> bytes:
        return put_together(self.header, [payload, *self.payloads[1:]])

    def with_alpha(self, change: Callable[[bytes], bytes]) -> bytes:
        """The alpha section is the last but one, before EXIF."""
        payloads = [*self.rich_payloads[:-2], change(self.rich_payloads[-2]), self.rich_payloads[-1]]
        return put_together(self.rich_header, payloads)


@pytest.fixture(scope="module")
def victim(models: codec.ModelSet) -> Victim:
    plain = codec.encode(picture_of(40, 33), models.default, codec.Target(quality=50)).stream
    rich = codec.encode(rich_of(20, 17), models.default, codec.Target(quality=50)).stream
    file = io.BytesIO()
    Image.fromarray(picture_of(40, 33).pixels).save(file, "JPEG")
    halved = codec.encode(codec.read_image(file.getvalue(), LIMITS), models.default, codec.Target(quality=100)).stream
    return Victim(*take_apart(plain), *take_apart(rich), *take_apart(halved))


def other_alpha(**change: object) -> Callable[[bytes], bytes]:
    """Change the header of the alpha section's stream."""

    def changed(stream: bytes) -> bytes:
        header, payloads = take_apart(stream)
        return put_together(dataclasses.replace(header, **change), payloads)  # type: ignore[arg-type]

    return changed


CASES: dict[str, tuple[Callable[[Victim], bytes], type[codec.BijouError]]] = {
    "a side of 16 GPixel": (lambda v: v.resized(2**34, 1), codec.LimitError),
    "400 MPixel of a few bytes": (lambda v: v.resized(20_000, 20_000), codec.LimitError),
    "a size beyond five bytes": (lambda v: v.resized(2**35 + 1, 1), codec.CorruptStreamError),
    "more tiles than sections": (lambda v: v.resized(3_000, 3_000), codec.StreamError),
    "fewer levels than sections": (lambda v: v.resized(5, 5), codec.StreamError),
    "a section that claims 4 GB": (
        lambda v: container.write(v.header, []) + container._varint(2**32),
        codec.LimitError,
    ),
    "a section that claims more than there is": (
        lambda v: container.write(v.header, []) + container._varint(2**20) + b"\x00" * 64,
        codec.CorruptStreamError,
    ),
    "a length in a longer form": (
        lambda v: container.write(v.header, []) + b"\x80\x00" + b"\x00" * 64,
        codec.CorruptStreamError,
    ),
    "a second stream behind the first": (
        lambda v: put_together(v.header, v.payloads) * 2,
        codec.CorruptStreamError,
    ),
    "undefined flags": (
        lambda v: put_together(dataclasses.replace(v.header, flags=0x40), v.payloads),
        codec.CorruptStreamError,
    ),
    "an undefined quality code": (
        lambda v: put_together(dataclasses.replace(v.header, code=785), v.payloads),
        codec.CorruptStreamError,
    ),
    "lossless in an undefined form": (
        lambda v: put_together(dataclasses.replace(v.header, flags=LOSSLESS, code=LAST_FORM + 1), v.payloads),
        codec.CorruptStreamError,
    ),
    "lossless bins that are tied": (
        lambda v: put_together(dataclasses.replace(v.header, flags=LOSSLESS | TIED, code=0), v.payloads),
        codec.CorruptStreamError,
    ),
    "tied bins called free": (
        lambda v: put_together(dataclasses.replace(v.header, flags=v.header.flags & ~TIED), v.payloads),
        codec.CorruptStreamError,
    ),
    "a flag without its section": (
        lambda v: put_together(dataclasses.replace(v.header, flags=ICC), v.payloads),
        codec.CorruptStreamError,
    ),
    "an empty first part": (lambda v: v.with_first(b""), codec.CorruptStreamError),
    "a table that does not exist": (
        lambda v: v.with_first(bytes([LOW_TABLES, 0, 0]) + v.payloads[0][3:]),
        codec.CorruptStreamError,
    ),
    "words cut in the middle": (lambda v: v.with_first(v.payloads[0][:-1]), codec.CorruptStreamError),
    "escapes without end": (
        lambda v: v.with_first(bytes([0, 0, 0]) + b"\xff\xff\xff\x7f" * 2_000),
        codec.CorruptStreamError,
    ),
    "a low-pass that adds up to huge numbers": (
        lambda v: v.with_first(bytes([LOW_TABLES - 1] * 3) + b"\x00" * 64),
        codec.CorruptStreamError,
    ),
    "words of another picture": (
        lambda v: v.with_first(v.payloads[0][:3] + v.payloads[-1]),
        codec.CorruptStreamError,
    ),
    "lossy words called lossless": (
        lambda v: put_together(dataclasses.replace(v.header, flags=LOSSLESS, code=0), v.payloads),
        codec.CorruptStreamError,
    ),
    "halved chroma of a picture too small for it": (
        lambda v: container.write(dataclasses.replace(v.halved_header, height=15), v.halved_payloads),
        codec.CorruptStreamError,
    ),
    "halved chroma called whole": (lambda v: v.of_form(1), codec.CorruptStreamError),
    "halved chroma turned": (lambda v: v.of_form(LAST_FORM), codec.CorruptStreamError),
    "a list that is longer than what is there": (
        lambda v: v.with_lists(((40 * 33) // 16).to_bytes(4, "little") + bytes(20)),
        codec.CorruptStreamError,
    ),
    "lists of more ones than can be counted": (
        lambda v: v.with_lists(bytes(12) + b"\xff" * 2**24),
        codec.CorruptStreamError,
    ),
    "a list of more than may be listed": (
        lambda v: v.with_lists(b"\xff" * 4 + bytes(64)),
        codec.CorruptStreamError,
    ),
    "lists that are cut": (lambda v: v.with_lists(bytes(12)), codec.CorruptStreamError),
    "alpha of another size": (lambda v: v.with_alpha(other_alpha(width=16)), codec.CorruptStreamError),
    "alpha that is lossy": (lambda v: v.with_alpha(other_alpha(flags=GREY)), codec.CorruptStreamError),
    "alpha inside alpha": (
        lambda v: v.with_alpha(lambda s: put_together(*_nested(s))),
        codec.CorruptStreamError,
    ),
    "alpha of an unknown model": (lambda v: v.with_alpha(other_alpha(model_id="00" * 8)), codec.CorruptStreamError),
    "alpha that is no stream": (lambda v: v.with_alpha(lambda s: b"\x00" * len(s)), codec.StreamError),
    "alpha that is cut short": (lambda v: v.with_alpha(lambda s: s[: len(s) // 2]), codec.CorruptStreamError),
    "alpha that is empty": (lambda v: v.with_alpha(lambda s: b""), codec.StreamError),
}


def _nested(stream: bytes) -> tuple[Header, list[bytes]]:
    header, payloads = take_apart(stream)
    return dataclasses.replace(header, flags=header.flags | ALPHA), [*payloads, stream]


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_quickly_and_without_much_memory(name, victim, models):
    make, error = CASES[name]
    data = make(victim)
    begun = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(error):
            codec.decode(data, models)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_BYTES
    assert time.monotonic() - begun < SECONDS


@pytest.mark.parametrize("name", CASES)
def test_no_other_door_lets_it_do_harm(name, victim, models):
    data = CASES[name][0](victim)
    for attempt in (
        lambda: codec.decode(data, models, scale=2),
        lambda: codec.decode(data, models, prefix=True),
        lambda: codec.re_encode(data, models, codec.Target(quality=10)),
        lambda: codec.inspect(data),
    ):
        try:
            attempt()
        except codec.BijouError:
            continue
