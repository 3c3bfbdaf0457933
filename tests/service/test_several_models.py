"""Several models at once: encode takes the default or a named one, streams find theirs, others are 409."""

from __future__ import annotations

from collections.abc import Iterator

import onnxruntime
import pytest
from fastapi.testclient import TestClient

from service import codec
from service.app import create_app
from service.codec.artifact import Model
from service.server import open_models
from service.settings import Settings
from tests.service.conftest import wait_while_starting

SECOND_ID, SECOND_NAME = "00112233445566ff", "second"


@pytest.fixture(scope="module")
def pair(models: codec.ModelSet) -> codec.ModelSet:
    """The shipped model, and the same under another name and id."""
    first = models.default
    manifest = {**first.manifest, "name": SECOND_NAME}
    second = Model(SECOND_ID, first.folder, manifest, first.tables, first.sessions, first.device, first.kernels)
    return codec.ModelSet([first, second])


@pytest.fixture(scope="module")
def client(pair: codec.ModelSet) -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as patch:
        # The golden streams name the first model, so the second cannot reproduce them to the byte.
        patch.setattr(codec, "golden_check", lambda model: None)
        app = create_app(Settings.model_validate({"device": "cpu"}), pair)
        with TestClient(app, raise_server_exceptions=False) as client:
            wait_while_starting(client)
            yield client


def test_both_are_listed_and_one_is_the_default(client: TestClient, models: codec.ModelSet):
    served = client.get("/models").json()
    assert [(m["id"], m["default"]) for m in served] == [(models.default.id, True), (SECOND_ID, False)]
    text = client.get("/metrics").text
    assert all(f'bijou_model_info{{device="cpu",id="{m["id"]}",name="{m["name"]}"}} 1.0' in text for m in served)


@pytest.mark.parametrize("name", [SECOND_NAME, SECOND_ID])
def test_a_stream_finds_its_model(client: TestClient, png: bytes, models: codec.ModelSet, name: str):
    second = client.post("/encode", params={"model": name}, content=png)
    assert second.headers["bijou-model"] == SECOND_ID
    assert client.post("/inspect", content=second.content).json()["model_id"] == SECOND_ID
    assert client.post("/decode", content=second.content).headers["bijou-model"] == SECOND_ID
    same = client.post("/re-encode", content=second.content, params={"quality": 20})
    assert same.headers["bijou-model"] == SECOND_ID
    moved = client.post("/re-encode", content=second.content, params={"model": models.default.id})
    assert moved.headers["bijou-model"] == models.default.id
    assert client.post("/encode", content=png).headers["bijou-model"] == models.default.id


def test_a_model_not_served_is_409_and_those_served_are_named(client: TestClient, png: bytes, models: codec.ModelSet):
    stream = bytearray(client.post("/encode", content=png).content)
    answers = [client.post("/encode", params={"model": "third"}, content=png)]
    missing = codec.ModelSet([models.default])
    assert missing.default.id != SECOND_ID
    foreign = client.post("/encode", params={"model": SECOND_NAME}, content=png).content
    with TestClient(create_app(Settings.model_validate({"device": "cpu"}), missing)) as single:
        wait_while_starting(single)
        answers += [single.post(path, content=foreign) for path in ("/decode", "/re-encode", "/re-encode?quality=9")]
        assert single.post("/inspect", content=foreign).status_code == 200
        assert single.post("/decode", content=bytes(stream)).status_code == 200
    for answer in answers:
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:bijou:problem:unknown-model")
        assert models.default.id in answer.json()["served"]


def test_the_default_model_is_a_setting(models: codec.ModelSet):
    settings = Settings.model_validate({"device": "cpu", "default_model": models.default.id})
    assert open_models(settings).default.id == models.default.id
    with pytest.raises(codec.ModelError, match="default model"):
        open_models(Settings.model_validate({"device": "cpu", "default_model": "no-such-model"}))


def test_the_folder_of_models_is_a_setting(tmp_path):
    with pytest.raises(codec.ModelError):
        open_models(Settings.model_validate({"device": "cpu", "models_folder": tmp_path}))


def test_cuda_without_cuda_stops_the_start():
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    with pytest.raises(codec.DeviceError):
        open_models(Settings.model_validate({"device": "cuda"}))
