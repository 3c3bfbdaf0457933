"""What Prometheus reads. Base units, prefix `bijou_`, and no user data in labels: routes are templates.

Each application has a registry of its own, so that tests can have many applications.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service import __version__, codec

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BITS_PER_PIXEL = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 24.0)


class Metrics:
    """Every metric of one application."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "bijou_http_requests", "Requests answered.", ["route", "method", "code"], registry=registry
        )
        self.request_seconds = Histogram(
            "bijou_http_request_duration_seconds",
            "From the first header to the last byte.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "bijou_stage_duration_seconds", "Time in a stage.", ["op", "stage"], buckets=SECONDS, registry=registry
        )
        self.rejected = Counter("bijou_rejected", "Requests refused before any work.", ["reason"], registry=registry)
        self.queue_requests = Gauge("bijou_queue_requests", "Requests working or waiting.", registry=registry)
        self.input_bytes = Counter("bijou_input_bytes", "Bytes of bodies worked on.", registry=registry)
        self.output_bytes = Counter("bijou_output_bytes", "Bytes of results.", registry=registry)
        self.pixels = Counter("bijou_pixels", "Pixels worked on.", ["op"], registry=registry)
        self.bits_per_pixel = Histogram(
            "bijou_bits_per_pixel", "Rate of streams written.", buckets=BITS_PER_PIXEL, registry=registry
        )
        self.checksum_mismatches = Counter("bijou_checksum_mismatch", "Streams refused as corrupt.", registry=registry)
        self.golden_check_failures = Counter(
            "bijou_golden_check_failures", "Models that did not reproduce their golden streams.", registry=registry
        )
        self.ready = Gauge("bijou_ready", "1 once the service takes work.", registry=registry)
        self.model_info = Gauge("bijou_model_info", "Models served.", ["id", "name", "device"], registry=registry)
        build = Gauge("bijou_build_info", "Versions.", ["version", "python"], registry=registry)
        build.labels(__version__, platform.python_version()).set(1)

    def describe(self, models: codec.ModelSet) -> None:
        """Publish which models are served and on what."""
        for model in models:
            self.model_info.labels(model.id, model.name, model.device).set(1)

    def work_done(
        self, op: str, input_bytes: int, output_bytes: int, pixels: int, seconds: Mapping[str, float]
    ) -> None:
        """Record one finished job; `seconds` has one entry a stage."""
        self.input_bytes.inc(input_bytes)
        self.output_bytes.inc(output_bytes)
        self.pixels.labels(op).inc(pixels)
        for stage, duration_s in seconds.items():
            self.stage_seconds.labels(op, stage).observe(duration_s)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
