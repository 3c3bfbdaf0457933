"""Environment -> settings. Every setting is a variable with the prefix BIJOU_; a misspelt one stops the start.

Units are part of the names. Nothing else in the service reads the environment. docs/settings.md lists all.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service import codec

PREFIX = "BIJOU_"


class SettingsError(Exception):
    """A BIJOU_ variable is unknown or out of range; the text says which."""


def _split(value: Any) -> Any:
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """What an operator may set; frozen once read."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")
    metrics_port: int | None = Field(
        None, ge=0, le=65_535, description="Port that serves /metrics alone, as well; 0 takes a free one."
    )

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto takes CUDA where it works; cuda stops the start where it does not."
    )
    device_threads: int = Field(0, ge=0, le=1024, description="CPU threads of a graph; 0: one per core.")
    gpu_memory_bytes: int = Field(0, ge=0, description="Most GPU memory the arena may take; 0: no limit.")
    models_folder: Path | None = Field(None, description="Folder of model folders; unset: the shipped ones.")
    default_model: str | None = Field(None, description="Name or id of the model that encodes where none is named.")
    codec_workers: int = Field(8, ge=1, le=256, description="Pictures worked on at once; bounds a batch.")
    batching: Literal["auto", "on", "off"] = Field("auto", description="auto batches where the device gains from it.")
    max_batch_items: int = Field(8, ge=1, le=1024, description="Most pictures' tiles in a batch.")
    max_batch_pixels: int = Field(0, ge=0, description="Most pixels in a batch; 0: by device.")
    max_batch_delay_ms: float = Field(5.0, ge=0, le=1000, description="How long a tile waits for others.")
    device_drivers: int = Field(0, ge=0, le=64, description="Threads that drive the device; 0: by device.")

    max_requests: int = Field(64, ge=1, le=100_000, description="Requests working or waiting; more get 503.")
    max_queue_pixels: int = Field(200_000_000, ge=1, description="Pixels working or waiting; more get 503.")
    max_body_bytes: int = Field(32 * 2**20, ge=1, description="Largest request body.")
    max_header_bytes: int = Field(64 * 2**10, ge=1024, description="Longest request line and headers together.")
    max_pixels: int = Field(50_000_000, ge=1, description="Most pixels of a picture.")
    max_side_pixels: int = Field(32_768, ge=1, le=2**20, description="Longest side of a picture.")
    request_deadline_s: float = Field(30.0, gt=0, le=3600, description="A request older than this gets 504.")
    header_deadline_s: float = Field(10.0, gt=0, le=3600, description="How long a connection may take for its headers.")
    keep_alive_s: int = Field(75, ge=1, le=3600, description="How long an idle connection stays open.")
    drain_s: int = Field(30, ge=0, le=3600, description="How long SIGTERM waits for work in flight.")
    drain_notice_s: float = Field(
        2.0, ge=0, le=600, description="How long after SIGTERM new connections still get their 503."
    )

    api_keys: SecretStr = Field(SecretStr(""), description="Keys clients may use, separated by spaces or commas.")
    api_keys_file: Path | None = Field(
        None, description="File with one key a line, # starts a comment; read again when it changes."
    )
    key_requests_per_minute: int = Field(
        0, ge=0, le=10**6, description="Requests each key may make a minute in this process; 0: no quota."
    )
    cors_origins: Words = Field((), description="Origins whose pages may call the service; * allows all.")

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level logged.")
    log_format: Literal["console", "json"] = Field("console", description="json: one object per line.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.key_requests_per_minute and not (self.api_keys.get_secret_value() or self.api_keys_file):
            raise ValueError("key_requests_per_minute counts by key; set api_keys or api_keys_file")
        if self.max_queue_pixels < self.max_pixels:
            raise ValueError("max_queue_pixels is less than max_pixels; no picture of that size could ever be taken")
        return self

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
    message = message.removeprefix("Value error, ")
    name = "_".join(str(part) for part in location)
    return f"{PREFIX}{name.upper()}: {message[:1].lower()}{message[1:]}" if name else message
