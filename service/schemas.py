"""Query strings -> option models, and the JSON the service answers with.

Option models are closed: enums and ranges, and an unknown name is refused with the names that are known.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from service import codec

OutputFormat = Literal["png", "webp", "jpeg", "tiff", "avif"]
QUALITY_DEFAULT = 75.0
LOSSY_FORMATS = frozenset({"jpeg", "avif"})

Quality = Annotated[float | None, Field(ge=1, le=100, description="1 to 100; 100 is lossless. Default 75.")]
BitsPerPixel = Annotated[float | None, Field(gt=0, le=48, allow_inf_nan=False, description="Rate to aim at.")]
Decibels = Annotated[float | None, Field(gt=0, le=100, allow_inf_nan=False, description="PSNR to reach, dB.")]
Bytes = Annotated[int | None, Field(ge=1, le=2**40, description="Longest stream allowed, bytes.")]
Effort = Annotated[
    int,
    Field(
        ge=0,
        le=2,
        description="How often the encoder follows rate and distortion back through the whole codec before it chooses "
        "bins: 0 (default), 1 or 2. Files get 1 to 3 % smaller at the same PSNR from quality 10 to 70; an encode takes "
        "about three (1) or five to six (2) times as long. It changes nothing above quality 90, in lossless files, or "
        "for pictures Bijou decoded at that quality.",
    ),
]
ModelName = Annotated[str | None, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="Name or id; see /models.")]
Metadata = Literal["none", "icc", "all"]


class Options(BaseModel):
    """A closed set of query options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, data: Any) -> Any:
        if isinstance(data, dict) and set(data) - set(cls.model_fields):
            raise ValueError(f"unknown option; this route takes {', '.join(cls.model_fields) or 'none'}")
        return data


class TargetOptions(Options):
    """How large or how good a stream shall be; at most one of the four."""

    quality: Quality = None
    target_bpp: BitsPerPixel = None
    target_psnr: Decibels = None
    max_bytes: Bytes = None
    stable: bool = Field(False, description="Repeat until decoding and encoding again returns the same bytes.")
    effort: Effort = 0
    model: ModelName = None

    @model_validator(mode="after")
    def _one_target(self) -> Self:
        if sum(v is not None for v in (self.quality, self.target_bpp, self.target_psnr, self.max_bytes)) > 1:
            raise ValueError("give only one of quality, target_bpp, target_psnr, max_bytes")
        return self

    def target(self) -> codec.Target | None:
        """The asked-for target; None if none was.

        Raises:
            OptionError: The quality is between two codes.
        """
        if (self.quality, self.target_bpp, self.target_psnr, self.max_bytes) == (None, None, None, None):
            return None
        return codec.Target(self.quality, self.target_bpp, self.max_bytes, self.target_psnr)


class EncodeOptions(TargetOptions):
    """Options of /encode."""

    metadata: Metadata = Field("icc", description="What to keep: nothing, the colour profile, or EXIF as well.")


class ReEncodeOptions(TargetOptions):
    """Options of /re-encode; `metadata` is for images, a stream keeps what it has."""

    metadata: Metadata | None = Field(None, description="As for /encode, if the body is an image.")


class DecodeOptions(Options):
    """Options of /decode."""

    format: OutputFormat | None = Field(None, description="Wins over the Accept header.")
    scale: Literal[1, 2, 4, 8, 16] = Field(1, description="Decode to 1/scale of each side.")
    quality: int | None = Field(None, ge=1, le=100, description="Quality of a jpeg or avif. Default 90.")

    @model_validator(mode="before")
    @classmethod
    def _scale_is_text(cls, data: Any) -> Any:
        scale = data.get("scale") if isinstance(data, dict) else None
        return {**data, "scale": int(scale)} if isinstance(scale, str) and scale.isdecimal() else data


class NoOptions(Options):
    """For routes that take none."""


class Section(BaseModel):
    """One section of a stream."""

    kind: str
    offset: int
    length: int
    scale: int | None = Field(description="The stream up to the end of this section decodes to 1/scale.")


class StreamReport(BaseModel):
    """Answer of /inspect."""

    version: int
    model_id: str
    width: int
    height: int
    quality: float
    lossless: bool
    levels: int
    tiles: int
    sections: list[Section]
    bytes_by_scale: dict[int, int] = Field(description="Scale -> bytes of the sections that first reach it.")
    has_alpha: bool
    grey: bool
    icc_bytes: int
    exif_bytes: int
    total_bytes: int
    complete: bool = Field(description="False for the head of a stream.")
    conversion: str | None = Field(
        description="JPEG, WebP or Photo CD: the stream is lossless, and what is coded are the luma and chroma that the"
        " pixels were made of. Null: red, green and blue."
    )

    @classmethod
    def of(cls, info: codec.StreamInfo) -> Self:
        """The report on what the codec found."""
        by_scale: dict[int, int] = {}
        for s in info.sections:
            if s.scale is not None:
                by_scale[s.scale] = by_scale.get(s.scale, 0) + s.length
        values = {name: getattr(info, name) for name in cls.model_fields if hasattr(info, name)}
        sections = [Section(kind=s.kind, offset=s.offset, length=s.length, scale=s.scale) for s in info.sections]
        return cls(**{**values, "sections": sections, "bytes_by_scale": by_scale})


class ModelReport(BaseModel):
    """One served model."""

    id: str
    name: str
    device: str
    default: bool


class LimitsReport(BaseModel):
    """The limits in force."""

    body_bytes: int
    header_bytes: int
    pixels: int
    side_pixels: int
    requests: int
    queue_pixels: int
    request_deadline_s: float


class BatchReport(BaseModel):
    """How steps are batched, with what `auto` came to."""

    items: int
    pixels: int | None = Field(description="Null: no bound.")
    delay_ms: float
    drivers: int


class RuntimeReport(BaseModel):
    """What ONNX Runtime runs the graphs with."""

    providers: dict[str, dict[str, str]] = Field(description="Execution provider -> its options, in order.")
    intra_op_threads: int
    inter_op_threads: int
    graph_optimisation: str
    kernels: str = Field(description="byte: 8-bit kernels, faster; float: the same integers in float32.")
    session: dict[str, str]


class ServiceReport(BaseModel):
    """Answer of /info."""

    version: str
    python: str
    onnxruntime: str
    device: str
    device_asked_for: str
    device_threads: int
    codec_workers: int
    api_key_needed: bool
    runtime: RuntimeReport
    batch: BatchReport
    input_formats: list[str]
    output_formats: list[str]
    models: list[ModelReport]
    limits: LimitsReport


class HealthReport(BaseModel):
    """Answer of the probes."""

    state: str


class Problem(BaseModel):
    """RFC 9457 problem; some types have more members."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
