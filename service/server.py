"""The application -> a listening process: uvicorn with the project's timeouts, and a drain that is seen at once."""

from __future__ import annotations

import signal
from types import FrameType

import uvicorn

from service import codec
from service.app import create_app
from service.health import Health
from service.observe import configure_logs
from service.settings import Settings


class Server(uvicorn.Server):
    """Turns readiness off in the signal handler, before uvicorn starts to wait for what is in flight."""

    def __init__(self, config: uvicorn.Config, health: Health) -> None:
        super().__init__(config)
        self._health = health

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Drain, then stop as uvicorn does."""
        self._health.drain()
        super().handle_exit(sig, frame)


def serve(settings: Settings) -> int:
    """Open the models and serve until SIGTERM or SIGINT.

    Returns:
        Exit status: 0 after a drain, 1 if the address cannot be listened on.

    Raises:
        ModelError: A model is missing or damaged, or the asked-for device is not available.
    """
    configure_logs(settings.log_level, settings.log_format)
    models = codec.shipped_models(settings.runtime())
    health = Health()
    config = uvicorn.Config(
        create_app(settings, models, health),
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.drain_s,
    )
    server = Server(config, health)
    # uvicorn raises the signal again once it has drained; a drain is a success, so let that be harmless.
    signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    except SystemExit:
        return 1
    return 0 if server.started else 1
