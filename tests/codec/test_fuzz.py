"""Whatever bytes arrive: a picture or an error of our own tree, never anything else."""

import dataclasses

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service import codec
from service.codec.container import MAGIC
from tests.codec.samples import grey_of, picture_of, put_together, rich_of, take_apart

FUZZ = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
SMALL = codec.Limits(pixels=4096, side=256, body_bytes=2**16)


@pytest.fixture(scope="module")
def streams(models: codec.ModelSet) -> list[bytes]:
    pictures = [picture_of(33, 47), grey_of(12, 19), rich_of(21, 20), picture_of(1, 1)]
    return [codec.encode(p, models.default, codec.Target(quality=q)).stream for p in pictures for q in (3, 70, 100)]


def survive(data: bytes, models: codec.ModelSet) -> None:
    """Put bytes through every door that takes a stream."""
    for attempt in (
        lambda: codec.decode(data, models, SMALL),
        lambda: codec.decode(data, models, SMALL, scale=2, prefix=True),
        lambda: codec.re_encode(data, models, codec.Target(quality=20), SMALL),
        lambda: codec.inspect(data, SMALL),
    ):
        try:
            attempt()
        except codec.BijouError:
            continue


@FUZZ
@given(data=st.binary(max_size=300))
def test_random_bytes(data, models):
    survive(data, models)


@FUZZ
@given(data=st.binary(max_size=300))
def test_random_bytes_after_a_right_start(data, models):
    survive(MAGIC + b"\x01" + data, models)


@FUZZ
@given(data=st.data())
def test_flipped_inserted_and_removed_bytes(data, streams, models):
    stream = bytearray(data.draw(st.sampled_from(streams)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(0, len(stream) - 1)))
        stream[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    survive(bytes(stream), models)


@FUZZ
@given(data=st.data())
def test_damaged_payloads_with_right_checksums(data, streams, models):
    """The checksums stop accidents; this is what an attacker sends."""
    header, payloads = take_apart(data.draw(st.sampled_from(streams)))
    index = data.draw(st.integers(0, len(payloads) - 1))
    payload = bytearray(payloads[index])
    if data.draw(st.booleans()):
        payload[3 if index == 0 else 0 :] = data.draw(st.binary(max_size=200))
    else:
        place = data.draw(st.integers(0, max(0, len(payload) - 1)))
        payload[place : place + 1] = data.draw(st.binary(max_size=5))
    survive(put_together(header, [*payloads[:index], bytes(payload), *payloads[index + 1 :]]), models)


@FUZZ
@given(data=st.data())
def test_headers_of_another_picture_with_right_checksums(data, streams, models):
    header, payloads = take_apart(data.draw(st.sampled_from(streams)))
    changed = dataclasses.replace(
        header,
        flags=data.draw(st.integers(0, 31)),
        width=data.draw(st.integers(1, 80)),
        height=data.draw(st.integers(1, 80)),
        code=data.draw(st.integers(0, 784)),
    )
    survive(put_together(changed, payloads), models)


@FUZZ
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    quality=st.one_of(st.just(100.0), st.integers(8, 792).map(lambda eighths: eighths / 8)),
    shape=st.sampled_from(["noise", "flat", "photo"]),
)
def test_every_picture_comes_back(height, width, seed, quality, shape, models):
    rng = np.random.default_rng(seed)
    if shape == "photo":
        pixels = picture_of(height, width, seed % 100).pixels
    else:
        size = (height, width, 3) if shape == "noise" else (1, 1, 3)
        pixels = np.broadcast_to(rng.integers(0, 256, size, np.uint8), (height, width, 3)).copy()
    encoded = codec.encode(codec.Picture(pixels), models.default, codec.Target(quality=quality))
    decoded = codec.decode(encoded.stream, models).picture
    assert decoded.pixels.shape == pixels.shape
    if quality == 100:
        np.testing.assert_array_equal(decoded.pixels, pixels)
    again = codec.re_encode(encoded.stream, models, codec.Target(quality=10))
    codec.decode(again.stream, models)
