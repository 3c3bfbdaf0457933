"""The codec: pictures <-> .bij streams, as plain functions on bytes and arrays.

It knows neither HTTP nor settings. Start at `pipeline`.
"""

from service.codec.artifact import Model, ModelSet, RuntimeOptions, open_model, shipped_models
from service.codec.errors import (
    BijouError,
    CorruptStreamError,
    DeviceError,
    GoldenCheckError,
    InvalidImageError,
    LimitError,
    ModelError,
    NotAStreamError,
    OptionError,
    StreamError,
    TargetError,
    UnknownModelError,
    UnsupportedImageError,
)
from service.codec.golden import golden_check
from service.codec.images import Limits, Picture, read_image, write_image
from service.codec.inspection import SectionInfo, StreamInfo, inspect
from service.codec.pipeline import Decoded, Encoded, decode, encode, re_encode
from service.codec.steps import DIRECT, Step, TileRunner
from service.codec.target import Target

__all__ = [
    "DIRECT",
    "BijouError",
    "CorruptStreamError",
    "Decoded",
    "DeviceError",
    "Encoded",
    "GoldenCheckError",
    "InvalidImageError",
    "LimitError",
    "Limits",
    "Model",
    "ModelError",
    "ModelSet",
    "NotAStreamError",
    "OptionError",
    "Picture",
    "RuntimeOptions",
    "SectionInfo",
    "Step",
    "StreamError",
    "StreamInfo",
    "Target",
    "TargetError",
    "TileRunner",
    "UnknownModelError",
    "UnsupportedImageError",
    "decode",
    "encode",
    "golden_check",
    "inspect",
    "open_model",
    "re_encode",
    "read_image",
    "shipped_models",
    "write_image",
]
