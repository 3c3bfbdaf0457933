"""One file in a worker: read, encode, decode or re-encode, write whole, and say what came of it."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from service import codec, operations
from service.bulk.manifest import FileRecord, Status
from service.bulk.places import Place
from service.operations import Codec, Result
from service.schemas import DecodeOptions, EncodeOptions, OutputFormat, ReEncodeOptions

Operation = Literal["encode", "decode", "re-encode"]
Row = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What every worker has to know.

    Attributes:
        op: What to do.
        options: Options as the HTTP route takes them.
        source: Folder or URI of the inputs.
        target: Folder or URI of the outputs.
        runtime: How graphs are run.
        limits: Limits of inputs.
        models: Folder of models; None: the shipped ones.
    """

    op: Operation
    options: EncodeOptions | DecodeOptions | ReEncodeOptions
    source: str
    target: str
    runtime: codec.RuntimeOptions
    limits: codec.Limits
    models: Path | None = None

    @property
    def suffix(self) -> str:
        """Of outputs, with its dot."""
        return f".{self._format}" if self.op == "decode" else ".bij"

    @property
    def _format(self) -> OutputFormat:
        return (self.options.format if isinstance(self.options, DecodeOptions) else None) or "png"

    def identity(self) -> dict[str, Any]:
        """What makes two runs the same job: same inputs, same outputs."""
        folder = self.models or codec.artifact.SHIPPED
        default = folder / "default"
        return {
            "op": self.op,
            "options": self.options.model_dump(mode="json", exclude_none=True),
            "source": self.source,
            "target": self.target,
            "models": sorted(codec.artifact.model_id_of(p.read_bytes()) for p in folder.glob("*/manifest.json")),
            "default_model": default.read_text().strip() if default.exists() else "",
        }

    def work(self, data: bytes, tools: Codec) -> Result:
        """Do it to one file's bytes. Raises BijouError."""
        match self.options:
            case EncodeOptions():
                return operations.encode(data, self.options, tools)
            case ReEncodeOptions():
                return operations.re_encode(data, self.options, tools)
            case DecodeOptions():
                return operations.decode(data, self.options, self._format, tools)


class Worker:
    """Opens the models once and then takes one file after the other; lives in a Ray actor."""

    def __init__(self, job: Job) -> None:
        models = codec.shipped_models(job.runtime, *([job.models] if job.models else []))
        self._job, self._tools = job, Codec(models, job.limits)
        self._source, self._target = Place(job.source), Place(job.target)

    def __call__(self, row: Row) -> Row:
        """Row of `run.rows` -> {"record": FileRecord as JSON}. A bad file is a record, never an exception."""
        started = time.perf_counter()
        facts: dict[str, Any] | None = None
        status: Status = "done"
        names = {name: row[name] for name in ("input", "output", "input_bytes", "input_changed_ns")}
        try:
            if row["made"]:
                data, status = self._target.read(row["output"]), "found"
            else:
                result = self._job.work(self._source.read(row["input"]), self._tools)
                self._target.write(row["output"], result.body)
                data, facts = result.body, _facts(result)
        except Exception as error:  # noqa: BLE001  one bad file never stops the others
            reason = str(error) or type(error).__name__
            record = FileRecord(**names, status="failed", error=reason)
        else:
            digest = hashlib.sha256(data).hexdigest()
            seconds = round(time.perf_counter() - started, 4)
            record = FileRecord(
                **names, status=status, output_bytes=len(data), sha256=digest, seconds=seconds, facts=facts
            )
        return {"record": json.dumps(asdict(record))}


def _facts(result: Result) -> dict[str, Any]:
    facts = {"model": result.model_id, "quality": result.quality, "pixels": result.pixels}
    if result.bits_per_pixel is not None:
        facts["bits_per_pixel"] = round(result.bits_per_pixel, 4)
    if result.psnr_db is not None and math.isfinite(result.psnr_db):
        facts["psnr_db"] = round(result.psnr_db, 3)
    return facts
