"""Who may ask, and how often."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from service.keys import KeyRing
from service.problems import MissingKeyError, QuotaError, WrongKeyError
from service.settings import Settings, SettingsError, load_settings
from tests.service.conftest import Serving
from tests.service.test_problems import assert_problem

OLD, NEW, WRONG = "old-key-0123456789", "new-key-0123456789", "wrong-key-0123456789"


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_without_keys_everyone_may_ask():
    ring = KeyRing()
    assert ring.open
    assert ring.check(None) is None
    ring.spend(None)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", f"Basic {OLD}", OLD])
def test_a_missing_key(header: str | None):
    with pytest.raises(MissingKeyError):
        KeyRing(OLD).check(header)


@pytest.mark.parametrize("key", [WRONG, OLD[:-1], OLD + "0", OLD.upper(), f"{OLD} {NEW}", "ключ-0123456789abc"])
def test_a_wrong_key(key: str):
    with pytest.raises(WrongKeyError):
        KeyRing(f"{OLD},{NEW}").check(f"Bearer {key}")


def test_both_keys_of_a_rotation_work():
    ring = KeyRing(f"{OLD} {NEW}")
    assert ring.check(f"Bearer {OLD}") != ring.check(f"bearer {NEW}")


def test_keys_of_a_file_and_its_changes(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    file = tmp_path / "keys"
    file.write_text(f"# of the first year\n{OLD}  # alice\n\n")
    ring = KeyRing(file=file)
    ring.check(f"Bearer {OLD}")
    file.write_text(f"{OLD}\n{NEW} # second\n")
    ring.refresh()
    ring.check(f"Bearer {NEW}")
    file.write_text("short\n")
    ring.refresh()
    ring.check(f"Bearer {OLD}")
    file.unlink()
    ring.refresh()
    ring.check(f"Bearer {OLD}")
    file.write_text(f"{NEW}\n")
    ring.refresh()
    with pytest.raises(WrongKeyError):
        ring.check(f"Bearer {OLD}")


@pytest.mark.parametrize("text", ["", "# nothing\n", "short\n", b"\xff\xfe"])
def test_a_file_without_good_keys_stops_the_start(tmp_path: Path, text: str | bytes):
    file = tmp_path / "keys"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError):
        KeyRing(file=file)
    with pytest.raises(SettingsError):
        KeyRing(file=tmp_path / "missing")
    with pytest.raises(SettingsError):
        KeyRing("short")


def test_a_quota_is_each_keys_own_and_fills_up_again():
    now = 0.0
    ring = KeyRing(f"{OLD} {NEW}", requests_per_minute=6, clock=lambda: now)
    old, new = (ring.check(f"Bearer {key}") for key in (OLD, NEW))
    for _ in range(6):
        ring.spend(old)
    with pytest.raises(QuotaError) as refused:
        ring.spend(old)
    assert refused.value.retry_after_s == 10
    ring.spend(new)
    now = 9.9
    with pytest.raises(QuotaError):
        ring.spend(old)
    now = 10.1
    ring.spend(old)


def test_a_quota_without_keys_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BIJOU_KEY_REQUESTS_PER_MINUTE", "5")
    with pytest.raises(SettingsError, match="set api_keys"):
        load_settings()


def test_settings_do_not_show_keys():
    assert OLD not in repr(Settings.model_validate({"api_keys": OLD}))


@pytest.fixture(scope="module")
def guarded(serving: Serving):
    with serving(api_keys=f"{OLD} {NEW}", key_requests_per_minute=100) as client:
        yield client


def test_work_and_facts_ask_for_a_key(guarded: TestClient, png: bytes):
    missing = guarded.post("/v1/encode", content=png)
    assert_problem(missing, 401, "key-missing")
    assert missing.headers["www-authenticate"].startswith("Bearer")
    wrong = guarded.post("/encode", content=png, headers=bearer(WRONG))
    assert_problem(wrong, 403, "key-unknown")
    assert WRONG not in wrong.text
    for path in ("/models", "/info", "/v1/models", "/v1/info"):
        assert_problem(guarded.get(path), 401, "key-missing")
        assert guarded.get(path, headers=bearer(OLD)).status_code == 200
    for key in (OLD, NEW):
        assert guarded.post("/encode", content=png, headers=bearer(key)).status_code == 200
    assert guarded.get("/info", headers=bearer(OLD)).json()["api_key_needed"] is True


@pytest.mark.parametrize("path", ["/healthz/live", "/healthz/ready", "/metrics", "/docs", "/openapi.json"])
def test_probes_metrics_and_the_description_do_not(guarded: TestClient, path: str):
    assert guarded.get(path).status_code == 200


def test_the_key_comes_before_everything_else(serving: Serving):
    with serving(api_keys=OLD, max_body_bytes=10) as client:
        client.app.state.service.health.drain()  # type: ignore[attr-defined]
        assert_problem(client.post("/encode", content=b"x" * 20), 401, "key-missing")
        assert_problem(client.post("/encode", content=b"x" * 20, headers=bearer(OLD)), 503, "draining")


def test_a_used_up_quota_is_429(serving: Serving, stream: bytes):
    with serving(api_keys=f"{OLD},{NEW}", key_requests_per_minute=2) as client:
        codes = [client.post("/inspect", content=stream, headers=bearer(OLD)).status_code for _ in range(2)]
        refused = client.post("/inspect", content=stream, headers=bearer(OLD))
        assert codes == [200, 200]
        assert_problem(refused, 429, "quota-used-up")
        assert 1 <= int(refused.headers["retry-after"]) <= 30
        assert client.post("/inspect", content=stream, headers=bearer(NEW)).status_code == 200
        assert 'bijou_rejected_total{reason="quota"} 1.0' in client.get("/metrics").text
