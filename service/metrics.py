"""What Prometheus reads. Base units, prefix `bijou_`, and no user data in labels: routes are templates.

Each application has a registry of its own, so that tests can have many applications. Gauges are read when they are
scraped, from the event loop or from the thread of the metrics port.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from service import __version__, codec
from service.budget import Budget

OPERATIONS = ("encode", "decode", "re-encode", "inspect")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BITS_PER_PIXEL = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 24.0)
ITEMS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
PIXELS = tuple(float(4**power) for power in range(6, 14))


class Metrics:
    """Every metric of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("http_requests", "Requests answered.", "route", "method", "code")
        self.request_seconds = self._histogram(
            "http_request_duration_seconds", "From the first header to the last byte.", SECONDS, "route"
        )
        self.stage_seconds = self._histogram("stage_duration_seconds", "Time in a stage.", SECONDS, "op", "stage")
        self.rejected = self._counter("rejected", "Requests refused, by reason.", "reason")
        self.cancelled = self._counter("cancelled", "Requests given up, by how far they were.", "stage")
        self.input_bytes = self._counter("input_bytes", "Bytes of bodies worked on.")
        self.output_bytes = self._counter("output_bytes", "Bytes of results.")
        self.pixels = self._counter("pixels", "Pixels worked on.", "op")
        self.bits_per_pixel = self._histogram("bits_per_pixel", "Rate of streams written.", BITS_PER_PIXEL)
        self.batch_items = self._histogram("batch_items", "Tiles in a batch.", ITEMS, "op")
        self.batch_pixels = self._histogram("batch_pixels", "Pixels in a batch.", PIXELS, "op")
        self.batch_dispatch = self._counter("batch_dispatch", "Batches, by what sent them off.", "op", "reason")
        self.checksum_mismatches = self._counter("checksum_mismatch", "Streams refused as corrupt.")
        self.golden_check_failures = self._counter(
            "golden_check_failures", "Models that did not reproduce their golden streams."
        )
        self.model_info = self._gauge("model_info", "Models served.", "id", "name", "device")
        build = self._gauge("build_info", "Versions.", "version", "python")
        build.labels(__version__, platform.python_version()).set(1)

    def describe(self, models: codec.ModelSet) -> None:
        """Publish which models are served and on what."""
        for model in models:
            self.model_info.labels(model.id, model.name, model.device).set(1)

    def watch(self, budget: Budget, ready: Callable[[], bool], lag_s: Callable[[], float]) -> None:
        """Publish the queue, readiness and the event loop's lag as they are when scraped."""
        requests = self._gauge("queue_requests", "Requests working or waiting.", "op")
        pixels = self._gauge("queue_pixels", "Pixels working or waiting.", "op")
        for op in OPERATIONS:
            requests.labels(op).set_function(partial(budget.requests_of, op))
            pixels.labels(op).set_function(partial(budget.pixels_of, op))
        age = self._gauge("queue_oldest_age_seconds", "Age of the oldest request in the queue.")
        age.set_function(budget.oldest_age_s)
        self._gauge("ready", "1 while the service takes work.").set_function(ready)
        lag = self._gauge("event_loop_lag_seconds", "Longest delay of the event loop in the last 15 s.")
        lag.set_function(lag_s)

    def batch(self, op: str, reason: str, items: int, pixels: int) -> None:
        """Record a batch that was sent to the device; any thread."""
        self.batch_items.labels(op).observe(items)
        self.batch_pixels.labels(op).observe(pixels)
        self.batch_dispatch.labels(op, reason).inc()

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

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"bijou_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"bijou_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"bijou_{name}", text, labels, buckets=buckets, registry=self.registry)
