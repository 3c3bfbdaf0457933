"""Settings + models -> the ASGI application.

Observe -> CORS -> Admission -> Failsafe -> FastAPI (problems) -> routes -> flight -> workers -> operations -> codec
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import onnxruntime
import structlog
from fastapi import FastAPI

from service import __version__, codec, describe, page, problems, routes
from service.admission import Admission
from service.budget import Budget
from service.cors import Cors
from service.drivers import Device, bounds_of
from service.flight import Flights
from service.health import Health, State, check_models
from service.heartbeat import Heartbeat
from service.keys import KeyRing
from service.metrics import Metrics
from service.observe import Observe
from service.operations import Codec
from service.routes import Service
from service.settings import Settings
from service.workers import CodecWorkers

SUMMARY = "Image compression by a learned, exactly invertible flow."


def create_app(settings: Settings, models: codec.ModelSet, health: Health | None = None) -> FastAPI:
    """Build the application; it becomes ready by itself once the golden check has passed.

    Args:
        settings: Limits and sizes.
        models: Opened models.
        health: Give one to be able to drain from outside.

    Raises:
        SettingsError: The API keys cannot be used.
    """
    keys = KeyRing(settings.api_keys.get_secret_value(), settings.api_keys_file, settings.key_requests_per_minute)
    service = _service(settings, models, health or Health(), keyed=not keys.open)
    app = FastAPI(
        title="Bijou",
        version=__version__,
        summary=SUMMARY,
        lifespan=_lifespan,
        redirect_slashes=False,
        redoc_url=None,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    app.state.service, app.state.keys = service, keys
    for prefix in ("", "/v1"):
        for router in (routes.work, routes.facts, routes.probes):
            app.include_router(router, prefix=prefix)
    app.openapi = describe.complete(app)  # type: ignore[method-assign]
    page.mount(app)
    app.state.paths = frozenset({*app.openapi()["paths"], "/", "/docs", "/openapi.json"})
    problems.install(app)
    app.add_middleware(
        Admission, max_body_bytes=settings.max_body_bytes, health=service.health, keys=keys, metrics=service.metrics
    )
    if settings.cors_origins:
        app.add_middleware(Cors, origins=settings.cors_origins)
    app.add_middleware(Observe, metrics=service.metrics)
    return app


def _service(settings: Settings, models: codec.ModelSet, health: Health, keyed: bool) -> Service:
    metrics, limits = Metrics(), settings.limits()
    metrics.describe(models)
    bounds = bounds_of(
        device=models.default.device,
        batching=settings.batching,
        max_batch_items=settings.max_batch_items,
        max_batch_pixels=settings.max_batch_pixels,
        max_batch_delay_ms=settings.max_batch_delay_ms,
        device_drivers=settings.device_drivers,
        waiting=settings.codec_workers,
    )
    device = Device(bounds, observe=metrics.batch)
    health.follow(lambda: device.failure)
    budget = Budget(settings.max_requests, settings.max_queue_pixels, settings.codec_workers)
    workers = CodecWorkers(settings.codec_workers)
    flights = Flights(workers, budget, metrics, settings.request_deadline_s, limits)
    return Service(settings, Codec(models, limits, device), flights, health, metrics, keyed, bounds)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    heart = Heartbeat(app.state.keys.refresh)
    service.metrics.watch(service.flights.budget, lambda: service.health.state is State.READY, heart.worst_lag_s)
    tasks = [asyncio.create_task(heart.beat()), asyncio.create_task(_golden_check(service))]
    yield
    service.health.drain()
    for task in tasks:
        task.cancel()
    service.flights.cancel_all()
    service.flights.workers.close()
    if service.tools.device is not None:
        service.tools.device.close()


async def _golden_check(service: Service) -> None:
    log = structlog.get_logger(__name__)
    try:
        await asyncio.to_thread(check_models, service.tools.models)
    except Exception as error:  # noqa: BLE001  whatever went wrong, this replica must not serve
        service.metrics.golden_check_failures.inc()
        service.health.checked(passed=False)
        log.error("the golden check failed; this replica stays unready", reason=str(error))  # noqa: TRY400  one line
        return
    service.health.checked(passed=True)
    device, asked = service.tools.models.default.device, service.settings.device
    if asked == "auto" and device == "cpu" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        log.warning("CUDA is installed but does not work; the CPU does the work", device_asked_for=asked)
    log.info("ready", models=[m.id for m in service.tools.models], device=device, device_asked_for=asked)
