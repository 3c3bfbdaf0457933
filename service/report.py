"""Models + settings -> the answers of /models and /info: what runs here, on what, and how."""

from __future__ import annotations

import platform
import sys

import onnxruntime

from service import __version__, codec
from service.batcher import Bounds
from service.codec.images import FORMATS
from service.operations import IMAGE_MEDIA_TYPES
from service.schemas import BatchReport, LimitsReport, ModelReport, RuntimeReport, ServiceReport
from service.settings import Settings

SESSION_ENTRIES = ("session.intra_op.allow_spinning", "session.use_env_allocators", "session.disable_cpu_ep_fallback")


def models_of(served: codec.ModelSet) -> list[ModelReport]:
    """One report a model, the default one first."""
    return [ModelReport(id=m.id, name=m.name, device=m.device, default=m is served.default) for m in served]


def service_of(settings: Settings, served: codec.ModelSet, bounds: Bounds, keyed: bool) -> ServiceReport:
    """Everything an operator asks first."""
    return ServiceReport(
        version=__version__,
        python=platform.python_version(),
        onnxruntime=onnxruntime.__version__,
        device=served.default.device,
        device_asked_for=settings.device,
        device_threads=settings.device_threads,
        codec_workers=settings.codec_workers,
        api_key_needed=keyed,
        runtime=runtime_of(served.default),
        batch=BatchReport(
            items=bounds.items,
            pixels=None if bounds.pixels == sys.maxsize else bounds.pixels,
            delay_ms=bounds.delay_s * 1000,
            drivers=bounds.drivers,
        ),
        input_formats=[name.lower() for name in FORMATS],
        output_formats=list(IMAGE_MEDIA_TYPES),
        models=models_of(served),
        limits=LimitsReport(
            body_bytes=settings.max_body_bytes,
            header_bytes=settings.max_header_bytes,
            pixels=settings.max_pixels,
            side_pixels=settings.max_side_pixels,
            requests=settings.max_requests,
            queue_pixels=settings.max_queue_pixels,
            request_deadline_s=settings.request_deadline_s,
        ),
    )


def runtime_of(model: codec.Model) -> RuntimeReport:
    """What ONNX Runtime says it runs a model's graphs with, not what it was asked for."""
    session = next(iter(model.sessions.values()))
    options = session.get_session_options()
    entries = {}
    for name in SESSION_ENTRIES:
        try:
            entries[name] = options.get_session_config_entry(name)
        except RuntimeError:  # not set
            continue
    return RuntimeReport(
        providers={name: dict(values) for name, values in session.get_provider_options().items()},
        intra_op_threads=options.intra_op_num_threads,
        inter_op_threads=options.inter_op_num_threads,
        graph_optimisation=options.graph_optimization_level.name,
        kernels=model.kernels,
        session=entries,
    )
