"""The application -> a listening process: uvicorn with the project's protocol and timeouts, and a drain that is seen.

SIGTERM: readiness turns 503 at once while the listener stays open, so that balancers see it and late requests get
their 503; what is in flight finishes; then the listener closes and the process ends with 0.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import structlog
import uvicorn
from prometheus_client import start_http_server

from service import codec
from service.app import create_app
from service.observe import configure_logs
from service.protocol import protocol_class
from service.routes import Service
from service.settings import Settings

TICK_S = 0.05
WRITE_S = 5
"""Least time the last answers have to be written once all work has ended."""


class Server(uvicorn.Server):
    """uvicorn's server with the drain described above.

    Args:
        config: From `configure`.
        service: The application's own state.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._notice_s = service.settings.drain_notice_s

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Turn readiness off in the signal handler itself; someone at the keyboard waits for nothing but the work."""
        self._service.health.drain()
        if sig == signal.SIGINT:
            self._notice_s = 0.0
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        """Let the work in flight end before the listener closes, then shut down as uvicorn does."""
        log, begun = structlog.get_logger(__name__), time.monotonic()
        budget, drain_s = self._service.flights.budget, self._service.settings.drain_s
        log.info("draining", requests=budget.taken)
        while not self.force_exit:
            spent_s = time.monotonic() - begun
            if spent_s >= drain_s or (spent_s >= self._notice_s and not budget.taken):
                break
            await asyncio.sleep(TICK_S)
            await self.on_tick(0)
        if budget.taken:
            log.warning("the drain has ended; what is left is refused", requests=budget.taken)
            self._service.flights.cancel_all()
        # Only answers are left to be written now; slow readers have what is left of the drain.
        self.config.timeout_graceful_shutdown = max(WRITE_S, int(drain_s - (time.monotonic() - begun)))
        await super().shutdown()
        log.info("drained", seconds=round(time.monotonic() - begun, 2))


def configure(settings: Settings, service: Service, app: object) -> uvicorn.Config:
    """What uvicorn is told; nothing is left to its defaults that a client could notice."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        host=settings.host,
        port=settings.port,
        http=protocol_class(settings.max_header_bytes, settings.header_deadline_s, service.metrics.rejected),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_s,
    )


def open_models(settings: Settings) -> codec.ModelSet:
    """The models of the settings, the default one first.

    Raises:
        ModelError: A model is missing or damaged, or the asked-for device is not available.
    """
    folder = settings.models_folder
    models = codec.shipped_models(settings.runtime(), *([folder] if folder else []))
    if settings.default_model is None:
        return models
    try:
        default = models.by_name(settings.default_model)
    except codec.UnknownModelError as error:
        raise codec.ModelError(f"the default model cannot be used: {error}") from None
    return codec.ModelSet([default, *(model for model in models if model is not default)])


@contextmanager
def metrics_port(settings: Settings, service: Service) -> Iterator[None]:
    """Serve the metrics on a port of their own, from a thread of its own, where the settings ask for one."""
    if settings.metrics_port is None:
        yield
        return
    listener, thread = start_http_server(settings.metrics_port, settings.host, service.metrics.registry)
    structlog.get_logger(__name__).info("metrics", port=listener.server_port)
    try:
        yield
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


def serve(settings: Settings) -> int:
    """Open the models and serve until SIGTERM or SIGINT.

    Returns:
        Exit status: 0 after a drain, 1 if the address cannot be listened on.

    Raises:
        ModelError: A model is missing or damaged, or the asked-for device is not available.
        SettingsError: The API keys cannot be used.
    """
    configure_logs(settings.log_level, settings.log_format)
    app = create_app(settings, open_models(settings))
    service: Service = app.state.service
    server = Server(configure(settings, service, app), service)
    # uvicorn raises the signal again once it has drained; a drain is a success, so let that be harmless.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        with metrics_port(settings, service):
            server.run()
    except KeyboardInterrupt:
        pass
    except SystemExit:
        return 1
    except OSError as error:
        structlog.get_logger(__name__).error("the metrics port cannot be listened on", reason=error.strerror)
        return 1
    return 0 if server.started else 1
