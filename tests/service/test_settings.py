"""BIJOU_ variables -> settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.settings import Settings, SettingsError, load_settings
from service.settings_table import table

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.upper().startswith("BIJOU_"):
            monkeypatch.delenv(name)


def test_defaults_are_those_of_the_contract():
    settings = load_settings()
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    limits = settings.limits()
    assert (limits.body_bytes, limits.pixels, limits.side) == (32 * 2**20, 50_000_000, 32_768)
    assert (settings.request_deadline_s, settings.max_requests, settings.keep_alive_s) == (30, 64, 75)


def test_values_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BIJOU_DEVICE", "cpu")
    monkeypatch.setenv("BIJOU_DEVICE_THREADS", "3")
    runtime = load_settings().runtime()
    assert (runtime.device, runtime.threads) == ("cpu", 3)


@pytest.mark.parametrize("name", ["BIJOU_PROT", "bijou_max_pixel"])
def test_an_unknown_variable_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str):
    monkeypatch.setenv(name, "1")
    with pytest.raises(SettingsError, match=name):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "65536"), ("PORT", "http"), ("DEVICE", "tpu"), ("MAX_REQUESTS", "0"), ("METRICS_PORT", "-1")],
)
def test_a_value_out_of_range_is_an_error(monkeypatch: pytest.MonkeyPatch, name: str, value: str):
    monkeypatch.setenv(f"BIJOU_{name}", value)
    with pytest.raises(SettingsError, match=f"BIJOU_{name}"):
        load_settings()


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]


def test_a_queue_that_no_picture_fits_in_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BIJOU_MAX_QUEUE_PIXELS", "1000")
    with pytest.raises(SettingsError, match="max_queue_pixels"):
        load_settings()


def test_lists_are_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BIJOU_CORS_ORIGINS", "https://a.example,https://b.example http://c.example:8080")
    assert load_settings().cors_origins == ("https://a.example", "https://b.example", "http://c.example:8080")


def test_the_documented_table_is_current():
    assert (DOCS / "settings.md").read_text() == table(), "python -m service.settings_table > docs/settings.md"


def test_every_setting_is_described():
    assert all(field.description for field in Settings.model_fields.values())
