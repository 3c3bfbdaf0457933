"""Settings + models -> the ASGI application.

Observe -> Admission -> FastAPI (problems, body limit) -> routes -> workers -> operations -> service.codec
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI

from service import __version__, codec, problems, routes
from service.admission import Admission
from service.health import Health, check_models
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
    """
    service = Service(
        settings,
        Codec(models, settings.limits()),
        CodecWorkers(settings.codec_workers, settings.max_requests),
        health or Health(),
        Metrics(),
    )
    service.metrics.describe(models)
    app = FastAPI(
        title="Bijou",
        version=__version__,
        summary=SUMMARY,
        lifespan=_lifespan,
        redirect_slashes=False,
        redoc_url=None,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    app.state.service = service
    for prefix in ("", "/v1"):
        for router in (routes.work, routes.facts, routes.probes):
            app.include_router(router, prefix=prefix)
    app.state.paths = frozenset({*app.openapi()["paths"], "/docs", "/openapi.json"})
    problems.install(app)
    app.add_middleware(
        Admission, max_body_bytes=settings.max_body_bytes, health=service.health, metrics=service.metrics
    )
    app.add_middleware(Observe, metrics=service.metrics)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    check = asyncio.create_task(_golden_check(service))
    yield
    service.health.drain()
    check.cancel()
    service.workers.close()


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
    log.info("ready", models=[m.id for m in service.tools.models], device=service.tools.models.default.device)
