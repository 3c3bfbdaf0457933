"""The service against its own API description: real images and streams, and what a client may get wrong.

schemathesis makes the requests from the description; bodies come from strategies of ours, because no schema can say
"a PNG". Every answer has to be one the description names, with the headers and the schema it promises, and none a 500.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis import BaseSchema, GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from service import codec
from service.codec.images import FORMATS
from tests.service.wire import listen

EXAMPLES = 40
MODES = ("RGB", "L", "RGBA", "P")
WORK = ("/encode", "/decode", "/re-encode", "/inspect")
FACTS = ("/models", "/info", "/metrics", "/healthz/live", "/healthz/ready", "/healthz/startup")
# A description cannot say which bytes are an image, so a body of the right type may well be refused.
NOT_CHECKED: list[Any] = [positive_data_acceptance]


def file_of(fmt: str, size: tuple[int, int], mode: str, seed: int) -> bytes:
    """An image file of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode if fmt in {"PNG", "TIFF"} else "RGB").save(file, fmt)
    return file.getvalue()


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """A file cut short, with a byte changed, or with bytes behind it."""
    data = draw(whole)
    place = draw(st.integers(0, len(data) - 1))
    changed = data[:place] + bytes([draw(st.integers(0, 255))]) + data[place + 1 :]
    return draw(st.sampled_from([data[:place], changed, data + b"\0"]))


@pytest.fixture(scope="module")
def description(models: codec.ModelSet) -> Iterator[BaseSchema]:
    """The description as a live server gives it, with strategies for the bodies it can only call binary."""
    sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
    images = st.builds(file_of, st.sampled_from(FORMATS), sizes, st.sampled_from(MODES), st.integers(0, 9))
    made = [
        codec.encode(codec.read_image(file_of("PNG", size, mode, 5), codec.Limits()), models.default, target).stream
        for size, mode in (((9, 13), "RGB"), ((33, 20), "RGBA"), ((1, 1), "L"))
        for target in (codec.Target(quality=40), codec.Target(quality=100))
    ]
    streams = st.sampled_from(made)
    images = st.one_of(images, images, damaged(images))
    streams = st.one_of(streams, streams, damaged(streams))
    schemathesis.openapi.media_type("image/*", images)
    schemathesis.openapi.media_type("image/vnd.bijou", streams)
    schemathesis.openapi.media_type("application/octet-stream", images | streams | st.binary(max_size=64))
    schemathesis.openapi.format("binary", images | streams | st.binary(max_size=64))
    with listen(models) as live:
        yield schemathesis.openapi.from_url(f"http://127.0.0.1:{live.port}/openapi.json")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["valid", "invalid"])
@pytest.mark.parametrize("path", WORK)
def test_work(description: BaseSchema, path: str, mode: GenerationMode):
    seen: Counter[int] = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=description[path]["POST"].as_strategy(generation_mode=mode))
    def holds(case: schemathesis.Case[Any]) -> None:
        seen[case.call_and_validate(excluded_checks=NOT_CHECKED).status_code] += 1

    holds()
    if mode is GenerationMode.POSITIVE:
        assert seen[200] >= EXAMPLES // 20, f"too few requests are good ones to show anything: {seen}"
    assert not any(status >= 500 for status in seen)


@pytest.mark.parametrize("path", FACTS)
def test_facts_and_probes(description: BaseSchema, path: str):
    answer = description[path]["GET"].Case().call_and_validate()
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/encode", "/re-encode"])
def test_the_effort_is_described_with_its_bounds(description: BaseSchema, path: str):
    options = {option["name"]: option for option in description.raw_schema["paths"][path]["post"]["parameters"]}
    described = options["effort"]["schema"]
    assert {name: described[name] for name in ("type", "minimum", "maximum", "default")} == {
        "type": "integer",
        "minimum": 0,
        "maximum": 2,
        "default": 0,
    }


def test_both_prefixes_are_described_alike(description: BaseSchema):
    paths = description.raw_schema["paths"]
    assert set(paths) == {prefix + path for prefix in ("", "/v1") for path in (*WORK, *FACTS)}
    for path in WORK:
        plain, versioned = paths[path]["post"], paths[f"/v1{path}"]["post"]
        assert {**plain, "operationId": ""} == {**versioned, "operationId": ""}
