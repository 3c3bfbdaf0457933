"""Options -> arguments of the codec, without a model."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from service import codec, operations
from service.codec.container import MAGIC
from service.schemas import EncodeOptions, ReEncodeOptions

ENCODED = codec.Encoded(
    stream=MAGIC,
    quality=60.0,
    bits_per_pixel=1.0,
    psnr_db=40.0,
    stable=None,
    changed=True,
    width=61,
    height=45,
    model_id="0" * 16,
    seconds={},
)
TOOLS = operations.Codec(cast("codec.ModelSet", SimpleNamespace(default=None)), codec.Limits())


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Keywords of each call of the codec."""
    calls: list[dict[str, Any]] = []

    def note(*_: object, **keywords: Any) -> codec.Encoded:
        calls.append(keywords)
        return ENCODED

    monkeypatch.setattr(codec, "encode", note)
    monkeypatch.setattr(codec, "re_encode", note)
    return calls


def test_effort_reaches_the_codec(given: list[dict[str, Any]], png: bytes):
    operations.encode(png, EncodeOptions(), TOOLS)
    operations.encode(png, EncodeOptions(effort=1), TOOLS)
    operations.re_encode(png, ReEncodeOptions(effort=2), TOOLS)
    operations.re_encode(ENCODED.stream, ReEncodeOptions(effort=2), TOOLS)
    assert [keywords["effort"] for keywords in given] == [0, 1, 2, 2]
