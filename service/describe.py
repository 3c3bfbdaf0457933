"""What the generated API description cannot see: binary bodies, response headers, problems with examples, keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI

from service.admission import FORM_FIELD
from service.operations import IMAGE_MEDIA_TYPES, STREAM_MEDIA_TYPE
from service.problems import MEDIA_TYPE, OTHERS, TABLE, problem
from service.responses import RE_ENCODE_HEADERS, RESULT_HEADERS, STREAM_HEADERS, HeaderText
from service.schemas import HealthReport, Problem, StreamReport

BINARY: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
PROBLEM_SCHEMA = {"$ref": "#/components/schemas/Problem"}
KEY_SCHEME = "key"
STATUSES: Mapping[int, str] = {
    400: "Malformed HTTP, an empty body, or a form without exactly one file named `file`.",
    401: "The service asks for a key and the request has none.",
    403: "The key is not known.",
    406: "No accepted format can be written.",
    408: "The headers took too long.",
    409: "The named model is not served; `served` lists those that are.",
    413: "The body is longer than the limit.",
    415: "Not an accepted image or stream, by its first bytes; or a Content-Encoding.",
    422: "Corrupt input, over a limit, or a bad option; `errors` lists the options.",
    429: "The key's quota is used up; send the same request again after Retry-After.",
    431: "The request line and headers are too long.",
    500: "Internal error.",
    503: "Full, starting or draining; send the same request again after Retry-After.",
    504: "The deadline has passed.",
}
WORK = (400, 401, 403, 408, 413, 415, 422, 429, 431, 500, 503, 504)
FACTS = (401, 403)
RETRY = {"Retry-After": HeaderText("Seconds to wait.", "3")}
PROBLEM_HEADERS: Mapping[int, Mapping[str, HeaderText]] = {
    401: {"WWW-Authenticate": HeaderText("How to send a key.", 'Bearer realm="bijou"')},
    429: RETRY,
    503: RETRY,
}
VARY = {"Vary": HeaderText("The answer depends on Accept.", "Accept")}
TEXT: dict[int | str, Any] = {
    200: {"description": "Metrics.", "content": {"text/plain": {"schema": {"type": "string"}}}}
}
UNREADY: dict[int | str, Any] = {503: {"description": "Not ready.", "model": HealthReport}}


def image_to_stream(summary: str) -> dict[str, Any]:
    """Route arguments of image -> stream."""
    return _route(summary, ["image/*"], [STREAM_MEDIA_TYPE], STREAM_HEADERS, [409])


def any_to_stream(summary: str) -> dict[str, Any]:
    """Route arguments of stream or image -> stream."""
    headers = {**STREAM_HEADERS, **RE_ENCODE_HEADERS}
    return _route(summary, [STREAM_MEDIA_TYPE, "image/*"], [STREAM_MEDIA_TYPE], headers, [409])


def stream_to_image(summary: str) -> dict[str, Any]:
    """Route arguments of stream -> image."""
    return _route(summary, [STREAM_MEDIA_TYPE], list(IMAGE_MEDIA_TYPES.values()), VARY, [406, 409])


def stream_to_report(summary: str) -> dict[str, Any]:
    """Route arguments of stream -> JSON."""
    route = _route(summary, [STREAM_MEDIA_TYPE], [], {}, [])
    route["responses"][200] = {"description": "The report.", "model": StreamReport}
    return route


def facts() -> dict[int | str, Any]:
    """Problems of the routes that ask for a key and take no body."""
    return {status: _problem(status) for status in FACTS}


def complete(app: FastAPI) -> Callable[[], dict[str, Any]]:
    """The application's `openapi` with what all routes share: the problem's schema and the key."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            description = generate()
            parts = description.setdefault("components", {})
            schemas = {**parts.get("schemas", {}), "Problem": Problem.model_json_schema()}
            parts["schemas"] = {name: s for name, s in schemas.items() if "ValidationError" not in name}
            parts["securitySchemes"] = {
                KEY_SCHEME: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Where the operator has set keys.",
                }
            }
        return app.openapi_schema or {}

    return openapi


def _route(
    summary: str, takes: list[str], gives: list[str], more_headers: Mapping[str, HeaderText], more: Iterable[int]
) -> dict[str, Any]:
    form = {"schema": {"type": "object", "properties": {FORM_FIELD: BINARY["schema"]}, "required": [FORM_FIELD]}}
    raw = dict.fromkeys((*takes, "application/octet-stream"), BINARY)
    good = {
        "description": "The result.",
        "content": dict.fromkeys(gives, BINARY),
        "headers": _headers({**RESULT_HEADERS, **more_headers}),
    }
    return {
        "summary": summary,
        "responses": {200: good, **{status: _problem(status) for status in sorted({*WORK, *more})}},
        "openapi_extra": {
            "requestBody": {"required": True, "content": {**raw, "multipart/form-data": form}},
            "security": [{}, {KEY_SCHEME: []}],
        },
    }


def _problem(status: int) -> dict[str, Any]:
    rows = sorted({*TABLE.values(), *OTHERS}, key=lambda row: row[1])
    examples = {
        slug: {"value": json.loads(bytes(problem(row_status, slug, title, STATUSES[status]).body))}
        for row_status, slug, title in rows
        if row_status == status
    }
    return {
        "description": f"{HTTPStatus(status).phrase}. {STATUSES[status]}",
        "content": {MEDIA_TYPE: {"schema": PROBLEM_SCHEMA, "examples": examples}},
        "headers": _headers(PROBLEM_HEADERS.get(status, {})),
    }


def _headers(headers: Mapping[str, HeaderText]) -> dict[str, Any]:
    return {
        name: {"description": h.text, "required": h.always, "schema": {"type": "string"}, "example": h.example}
        for name, h in headers.items()
    }
