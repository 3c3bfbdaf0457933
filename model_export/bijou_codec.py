"""Bijou as one more entry of the table in peers.py."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from model_export.peers import Codec, Coded, Pixels
from service import codec
from service.codec.container import quality_of
from service.codec.saturation import LAST_CODE

LOSSLESS_QUALITY = 100.0
LAST_WEIGHED = quality_of(LAST_CODE)
"""Highest quality at which an encoder's effort does anything."""


def bijou_codecs(
    model: codec.Model,
    qualities: Sequence[float],
    generation_qualities: Sequence[float],
) -> dict[str, Codec]:
    """`bijou`, and `bijou-stable`, whose first file is a fixed point of decoding and encoding again.

    Args:
        model: Encodes; decoding goes through a model set that holds only this one.
        qualities: Of the rate-distortion curve; 100 is lossless.
        generation_qualities: Of the generation loss.
    """
    models = codec.ModelSet([model])

    def encode(pixels: Pixels, quality: float) -> Coded:
        return _encode(pixels, quality, model, stable=False)

    def encode_stable(pixels: Pixels, quality: float) -> Coded:
        return _encode(pixels, quality, model, stable=True)

    def decode(stream: bytes) -> Pixels:
        return codec.decode(stream, models).picture.pixels

    plain = Codec(
        "bijou",
        f"{model.name}, model {model.id}, code {code_digest()}",
        encode,
        decode,
        qualities=tuple(qualities),
        lossless_quality=LOSSLESS_QUALITY,
        generation_qualities=tuple(generation_qualities),
    )
    stable = replace(
        plain,
        name="bijou-stable",
        encode=encode_stable,
        again=encode,
        qualities=tuple(q for q in qualities if q != LOSSLESS_QUALITY),
        lossless_quality=None,
    )
    return {plain.name: plain, stable.name: stable}


def effort_codec(name: str, model: codec.Model, qualities: Sequence[float], effort: int) -> Codec:
    """`<name>-effort-<n>`: the curve of a model with some effort, as far as that does anything.

    Args:
        name: What the model is called without.
        model: Encodes.
        qualities: Of the curve; those above LAST_WEIGHED are left out.
        effort: As in `service.codec.encode`.
    """
    plain = bijou_codecs(model, [q for q in qualities if q <= LAST_WEIGHED], ())["bijou"]

    def encode(pixels: Pixels, quality: float) -> Coded:
        return _encode(pixels, quality, model, stable=False, effort=effort)

    return replace(
        plain,
        name=f"{name}-effort-{effort}",
        setting=f"{plain.setting}, effort {effort}",
        encode=encode,
        again=plain.encode,
        lossless_quality=None,
    )


def code_digest() -> str:
    """Eight hex digits that change with the codec's code, but not with its comments and docstrings."""
    digest = hashlib.sha256()
    for path in sorted(Path(codec.__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list):
                node.body = [s for s in body if not _is_docstring(s)]  # type: ignore[attr-defined]
        digest.update(ast.dump(tree).encode())
    return digest.hexdigest()[:8]


def _is_docstring(statement: ast.AST) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _encode(pixels: Pixels, quality: float, model: codec.Model, stable: bool, effort: int = 0) -> Coded:
    grey = bool(np.all(pixels == pixels[:, :, :1]))
    picture = codec.Picture(pixels=pixels, alpha=None, grey=grey, icc=None, exif=None)
    encoded = codec.encode(picture, model, codec.Target(quality=quality), stable=stable, effort=effort)
    return Coded(encoded.stream, encoded.psnr_db)
