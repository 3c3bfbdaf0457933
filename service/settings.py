"""Environment -> settings. Every setting is a variable with the prefix BIJOU_; a misspelt one stops the start.

Units are part of the names. Nothing else in the service reads the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from service import codec

PREFIX = "BIJOU_"


class SettingsError(Exception):
    """A BIJOU_ variable is unknown or out of range; the text says which."""


class Settings(BaseSettings):
    """What an operator may set; frozen once read."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto takes CUDA where it works.")
    device_threads: int = Field(0, ge=0, le=1024, description="CPU threads of a graph; 0: one per core.")
    gpu_memory_bytes: int = Field(0, ge=0, description="Most GPU memory the arena may take; 0: no limit.")
    codec_workers: int = Field(2, ge=1, le=256, description="Pictures worked on at once.")
    max_requests: int = Field(64, ge=1, le=100_000, description="Requests working or waiting; more get 503.")
    max_body_bytes: int = Field(32 * 2**20, ge=1, description="Largest request body.")
    max_pixels: int = Field(50_000_000, ge=1, description="Most pixels of a picture.")
    max_side_pixels: int = Field(32_768, ge=1, le=2**20, description="Longest side of a picture.")
    request_deadline_s: float = Field(30.0, gt=0, le=3600, description="A request older than this gets 504.")
    keep_alive_s: int = Field(75, ge=1, le=3600, description="How long an idle connection stays open.")
    drain_s: int = Field(30, ge=0, le=3600, description="How long SIGTERM waits for work in flight.")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = Field("console", description="json: one object per line.")

    def limits(self) -> codec.Limits:
        """The limits the codec keeps."""
        return codec.Limits(pixels=self.max_pixels, side=self.max_side_pixels, body_bytes=self.max_body_bytes)

    def runtime(self) -> codec.RuntimeOptions:
        """How the codec's graphs are run."""
        return codec.RuntimeOptions(
            device=self.device, threads=self.device_threads, gpu_memory_bytes=self.gpu_memory_bytes
        )


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Args:
        environment: Searched for unknown names; the values come from the process's own environment.

    Raises:
        SettingsError: A variable is unknown or its value is out of range.
    """
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields}
    unknown = sorted(n for n in environment if n.upper().startswith(PREFIX) and n.upper() not in known)
    if unknown:
        raise SettingsError(f"unknown variable {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("; ".join(_sentence(e["loc"], e["msg"]) for e in error.errors())) from None


def _sentence(location: tuple[int | str, ...], message: str) -> str:
    name = "_".join(str(part) for part in location)
    return f"{PREFIX}{name.upper()}: {message[:1].lower()}{message[1:]}"
