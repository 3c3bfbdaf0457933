"""What the generated API description cannot see: binary bodies, response headers, problems."""

from __future__ import annotations

from typing import Any

from service.admission import FORM_FIELD
from service.operations import IMAGE_MEDIA_TYPES, STREAM_MEDIA_TYPE
from service.problems import MEDIA_TYPE
from service.responses import HEADERS
from service.schemas import HealthReport, Problem, StreamReport

BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
PROBLEMS = {
    400: "The body is empty or not the form it says it is.",
    409: "The named model is not served; `served` lists those that are.",
    413: "The body is longer than the limit.",
    415: "Not an accepted image or stream, by its first bytes; or a Content-Encoding.",
    422: "Corrupt input, over a limit, or a bad option; `errors` lists the options.",
    500: "Internal error.",
    503: "Full, starting or draining; send the same request again after Retry-After.",
    504: "The deadline has passed.",
}
TEXT: dict[int | str, Any] = {200: {"description": "Metrics.", "content": {"text/plain": {}}}}
UNREADY: dict[int | str, Any] = {503: {"description": "Not ready.", "model": HealthReport}}


def image_to_stream(summary: str) -> dict[str, Any]:
    """Route arguments of image -> stream."""
    return _route(summary, ["image/*"], [STREAM_MEDIA_TYPE])


def any_to_stream(summary: str) -> dict[str, Any]:
    """Route arguments of stream or image -> stream."""
    return _route(summary, [STREAM_MEDIA_TYPE, "image/*"], [STREAM_MEDIA_TYPE])


def stream_to_image(summary: str) -> dict[str, Any]:
    """Route arguments of stream -> image."""
    route = _route(summary, [STREAM_MEDIA_TYPE], list(IMAGE_MEDIA_TYPES.values()))
    route["responses"][406] = _problem("No accepted format can be written.")
    return route


def stream_to_report(summary: str) -> dict[str, Any]:
    """Route arguments of stream -> JSON."""
    route = _route(summary, [STREAM_MEDIA_TYPE], [])
    route["responses"][200] = {"description": "The report.", "model": StreamReport}
    return route


def _route(summary: str, takes: list[str], gives: list[str]) -> dict[str, Any]:
    form = {
        "schema": {"type": "object", "properties": {FORM_FIELD: BINARY["schema"]}, "required": [FORM_FIELD]},
    }
    raw = dict.fromkeys((*takes, "application/octet-stream"), BINARY)
    headers = {name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()}
    good = {"description": "The result.", "content": dict.fromkeys(gives, BINARY), "headers": headers}
    return {
        "summary": summary,
        "responses": {200: good, **{status: _problem(text) for status, text in PROBLEMS.items()}},
        "openapi_extra": {"requestBody": {"required": True, "content": {**raw, "multipart/form-data": form}}},
    }


def _problem(text: str) -> dict[str, Any]:
    return {"description": text, "content": {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}}
