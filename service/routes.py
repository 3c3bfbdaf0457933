"""The routes: read the body, hand it to a worker, answer with the result. Mounted at / and under /v1."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, TypeVar

import onnxruntime
from fastapi import APIRouter, Query, Request, Response
from starlette.responses import JSONResponse

from service import __version__, codec, describe, operations
from service.admission import read_body
from service.codec.images import FORMATS
from service.health import Health, State
from service.metrics import Metrics
from service.negotiation import choose_format
from service.operations import IMAGE_MEDIA_TYPES, Codec, Result
from service.problems import DeadlineError, QueueFullError
from service.responses import of_result
from service.schemas import (
    DecodeOptions,
    EncodeOptions,
    HealthReport,
    LimitsReport,
    ModelReport,
    NoOptions,
    ReEncodeOptions,
    ServiceReport,
    StreamReport,
)
from service.settings import Settings
from service.workers import CodecWorkers, Timed

T = TypeVar("T")


@dataclass(frozen=True)
class Service:
    """What the routes of one application share; `request.app.state.service`."""

    settings: Settings
    tools: Codec
    workers: CodecWorkers
    health: Health
    metrics: Metrics


work = APIRouter(tags=["codec"])
facts = APIRouter(tags=["service"])
probes = APIRouter(tags=["health"], prefix="/healthz")


@work.post("/encode", **describe.image_to_stream("Encode an image"))
async def encode(request: Request, options: Annotated[EncodeOptions, Query()]) -> Response:
    """Any accepted image -> `.bij`. The same input, options and model give the same bytes, so it may be retried."""
    return await _work(request, "encode", lambda data, tools: operations.encode(data, options, tools))


@work.post("/decode", **describe.stream_to_image("Decode a stream"))
async def decode(request: Request, options: Annotated[DecodeOptions, Query()]) -> Response:
    """`.bij` -> image, in the format of `?format=`, else of the Accept header, else PNG."""
    fmt = options.format or choose_format(request.headers.get("accept"))
    answer = await _work(request, "decode", lambda data, tools: operations.decode(data, options, fmt, tools))
    answer.headers["Vary"] = "Accept"
    return answer


@work.post("/re-encode", **describe.any_to_stream("Encode a stream again"))
async def re_encode(request: Request, options: Annotated[ReEncodeOptions, Query()]) -> Response:
    """`.bij` or image -> `.bij`. A stream without a quality or target comes back unchanged, after it was checked."""
    return await _work(request, "re-encode", lambda data, tools: operations.re_encode(data, options, tools))


@work.post("/inspect", response_model=StreamReport, **describe.stream_to_report("Describe a stream"))
async def inspect(request: Request, options: Annotated[NoOptions, Query()]) -> Response:
    """`.bij`, or its first bytes -> what it holds. No pixel is decoded."""
    async with _admitted(request) as (service, run):
        data = await read_body(request)
        report = (await run(partial(operations.inspect, data, service.tools.limits))).value
    return JSONResponse(report.model_dump(mode="json"))


@facts.get("/models")
async def models(request: Request) -> list[ModelReport]:
    """The models served; the default one is used where no model is named."""
    return _models(_service(request).tools.models)


@facts.get("/info")
async def info(request: Request) -> ServiceReport:
    """Versions, device, limits and models."""
    service = _service(request)
    settings = service.settings
    return ServiceReport(
        version=__version__,
        python=platform.python_version(),
        onnxruntime=onnxruntime.__version__,
        device=service.tools.models.default.device,
        device_asked_for=settings.device,
        device_threads=settings.device_threads,
        codec_workers=settings.codec_workers,
        input_formats=[name.lower() for name in FORMATS],
        output_formats=list(IMAGE_MEDIA_TYPES),
        models=_models(service.tools.models),
        limits=LimitsReport(
            body_bytes=settings.max_body_bytes,
            pixels=settings.max_pixels,
            side_pixels=settings.max_side_pixels,
            requests=settings.max_requests,
            request_deadline_s=settings.request_deadline_s,
        ),
    )


@facts.get("/metrics", response_class=Response, responses=describe.TEXT)
async def metrics(request: Request) -> Response:
    """Prometheus text format."""
    service = _service(request)
    service.metrics.ready.set(service.health.state is State.READY)
    service.metrics.queue_requests.set(service.workers.taken)
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@probes.get("/live", response_model=HealthReport)
async def live(request: Request) -> Response:
    """200 while the event loop turns."""
    return _probe(request, frozenset(State))


@probes.get("/startup", response_model=HealthReport, responses=describe.UNREADY)
async def startup(request: Request) -> Response:
    """200 once the golden check has passed."""
    return _probe(request, frozenset({State.READY, State.DRAINING}))


@probes.get("/ready", response_model=HealthReport, responses=describe.UNREADY)
async def ready(request: Request) -> Response:
    """200 while new work is taken."""
    return _probe(request, frozenset({State.READY}))


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _models(served: codec.ModelSet) -> list[ModelReport]:
    return [ModelReport(id=m.id, name=m.name, device=m.device, default=m is served.default) for m in served]


def _probe(request: Request, good: frozenset[State]) -> Response:
    state = _service(request).health.state
    return JSONResponse(
        {"state": state}, status_code=200 if state in good else 503, headers={"Cache-Control": "no-store"}
    )


@asynccontextmanager
async def _admitted(request: Request) -> AsyncIterator[tuple[Service, Any]]:
    """Hold a queue slot under the request's deadline; yields the service and the slot's `run`.

    Raises:
        QueueFullError: There is no slot.
        DeadlineError: The block took too long.
    """
    service = _service(request)
    try:
        slot = service.workers.slot()
    except QueueFullError:
        service.metrics.rejected.labels("queue_full").inc()
        raise
    try:
        with slot:
            async with asyncio.timeout(service.settings.request_deadline_s):
                yield service, slot.run
    except TimeoutError:
        service.metrics.rejected.labels("deadline").inc()
        raise DeadlineError("the deadline has passed; send a smaller picture or try again later") from None
    except codec.CorruptStreamError:
        service.metrics.checksum_mismatches.inc()
        raise


async def _work(request: Request, op: str, job: Callable[[bytes, Codec], Result]) -> Response:
    async with _admitted(request) as (service, run):
        data = await read_body(request)
        done: Timed[Result] = await run(partial(job, data, service.tools))
    result, seconds = done.value, {"queue": done.queue_s, **done.value.seconds}
    service.metrics.work_done(op, len(data), len(result.body), result.pixels, seconds)
    if result.bits_per_pixel is not None:
        service.metrics.bits_per_pixel.observe(result.bits_per_pixel)
    return of_result(result, done.queue_s)
