"""The routes: read the body, hand it to a worker, answer with the result. Mounted at / and under /v1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.responses import JSONResponse

from service import codec, describe, operations, report
from service.batcher import Bounds
from service.cancellation import Cancellation
from service.flight import Flights
from service.health import Health, State
from service.metrics import Metrics
from service.negotiation import choose_format
from service.operations import Codec, Result
from service.responses import of_result
from service.schemas import (
    DecodeOptions,
    EncodeOptions,
    HealthReport,
    ModelReport,
    NoOptions,
    ReEncodeOptions,
    ServiceReport,
    StreamReport,
)
from service.settings import Settings


@dataclass(frozen=True)
class Service:
    """What the routes of one application share; `request.app.state.service`.

    Attributes:
        settings: As they were given.
        tools: Models and limits.
        flights: Takes requests in.
        health: What the probes answer.
        metrics: What is counted.
        keyed: Whether a key is asked for.
        bounds: Of batches, as they came out for the device.
    """

    settings: Settings
    tools: Codec
    flights: Flights
    health: Health
    metrics: Metrics
    keyed: bool
    bounds: Bounds


def each_once(request: Request) -> None:
    """Refuse an option that is given twice; OptionError."""
    names = [name for name, _ in request.query_params.multi_items()]
    if len(set(names)) != len(names):
        raise codec.OptionError("an option is given more than once; give each one once")


work = APIRouter(tags=["codec"], dependencies=[Depends(each_once)])
facts = APIRouter(tags=["service"])
probes = APIRouter(tags=["health"], prefix="/healthz")


@work.post("/encode", **describe.image_to_stream("Encode an image"))
async def encode(request: Request, options: Annotated[EncodeOptions, Query()]) -> Response:
    """Any accepted image -> `.bij`. The same input, options and model give the same bytes, so it may be retried."""
    return await _work(request, "encode", lambda d, tools, c: operations.encode(d, options, tools, cancel=c))


@work.post("/decode", **describe.stream_to_image("Decode a stream"))
async def decode(request: Request, options: Annotated[DecodeOptions, Query()]) -> Response:
    """`.bij` -> image, in the format of `?format=`, else of the Accept header, else PNG."""
    fmt = options.format or choose_format(request.headers.get("accept"))
    answer = await _work(request, "decode", lambda d, tools, c: operations.decode(d, options, fmt, tools, cancel=c))
    answer.headers["Vary"] = "Accept"
    return answer


@work.post("/re-encode", **describe.any_to_stream("Encode a stream again"))
async def re_encode(request: Request, options: Annotated[ReEncodeOptions, Query()]) -> Response:
    """`.bij` or image -> `.bij`. A stream without a quality or target comes back unchanged, after it was checked."""
    return await _work(request, "re-encode", lambda d, tools, c: operations.re_encode(d, options, tools, cancel=c))


@work.post("/inspect", response_model=StreamReport, **describe.stream_to_report("Describe a stream"))
async def inspect(request: Request, options: Annotated[NoOptions, Query()]) -> Response:
    """`.bij`, or its first bytes -> what it holds. No pixel is decoded."""
    service = _service(request)
    async with service.flights.take_off(request, "inspect") as flight:
        data = await flight.body(decodes=False)
        found = (await flight.run(partial(operations.inspect, data, service.tools.limits))).value
    service.metrics.work_done("inspect", len(data), 0, found.width * found.height, {})
    return JSONResponse(found.model_dump(mode="json"))


@facts.get("/models", responses=describe.facts())
async def models(request: Request) -> list[ModelReport]:
    """The models served; the default one is used where no model is named."""
    return report.models_of(_service(request).tools.models)


@facts.get("/info", responses=describe.facts())
async def info(request: Request) -> ServiceReport:
    """Versions, device and how it is run, limits and models."""
    service = _service(request)
    return report.service_of(service.settings, service.tools.models, service.bounds, service.keyed)


@facts.get("/metrics", response_class=Response, responses=describe.TEXT)
async def metrics(request: Request) -> Response:
    """Prometheus text format."""
    return Response(_service(request).metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@probes.get("/live", response_model=HealthReport)
async def live(request: Request) -> Response:
    """200 while the event loop turns."""
    return _probe(request, True)


@probes.get("/startup", response_model=HealthReport, responses=describe.UNREADY)
async def startup(request: Request) -> Response:
    """200 once the golden check has passed."""
    return _probe(request, _service(request).health.started)


@probes.get("/ready", response_model=HealthReport, responses=describe.UNREADY)
async def ready(request: Request) -> Response:
    """200 while new work is taken."""
    return _probe(request, _service(request).health.state is State.READY)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _probe(request: Request, good: bool) -> Response:
    state = _service(request).health.state
    return JSONResponse({"state": state}, 200 if good else 503, {"Cache-Control": "no-store"})


async def _work(request: Request, op: str, job: Callable[[bytes, Codec, Cancellation], Result]) -> Response:
    service = _service(request)
    async with service.flights.take_off(request, op) as flight:
        data = await flight.body()
        done = await flight.run(partial(job, data, service.tools, flight.token))
    result = done.value
    seconds = {**result.seconds, "queue": done.queue_s + result.seconds.get("queue", 0.0)}
    service.metrics.work_done(op, len(data), len(result.body), result.pixels, seconds)
    if result.bits_per_pixel is not None:
        service.metrics.bits_per_pixel.observe(result.bits_per_pixel)
    return of_result(result, seconds)
