"""What a model would need, by estimate: `python -m model_export validate`.

Rates are the prior's own, nothing is coded, so it takes a minute or two; `evaluate` measures files. Besides pictures as
they are, some have their chroma subsampled, some are given grain and some lose their colours (`data`). Last come rates
without loss of luma and chroma (`service.codec.forms`): pictures as they are, with subsampled chroma, with grain.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model_export.checkpoint import load_average
from model_export.data import Picture, converted, grained, greyed, read_pictures, subsampled, to_tensor
from model_export.metrics import Curve, bd_rate, psnr
from model_export.model import CodecModel
from model_export.quantiser import LOSSLESS_POSITION
from service.codec.conversion import CONVERSIONS

CODES = (0.0, 120.0, 240.0, 360.0, 480.0, 600.0)
SIDE = 256
PICTURES = 16
GRAIN = 2.0
"""Grey levels of the grain that some pictures are given."""
ANCHOR_RATES = (100, 50, 30, 18, 11, 7, 4.5)
"""Compression factors at which the anchor, JPEG 2000, is measured."""


def watched_of(pictures: list[Picture]) -> list[Picture]:
    """The middles, SIDE x SIDE, of the first PICTURES that are large enough."""
    return [centre(p, SIDE) for p in pictures if min(p.shape[:2]) >= SIDE][:PICTURES]


def kinds_of(pictures: list[Picture]) -> dict[str, list[Picture]]:
    """Pictures as they are, some with chroma of half the resolution, some with grain, some without colours."""
    return {
        "usual": pictures,
        "half chroma": [subsampled(picture, (0, 1), "co-sited") for picture in pictures[::2]],
        "grain": [grained(p, GRAIN, np.random.default_rng(number)) for number, p in enumerate(pictures[1::2])],
        "grey": [greyed(picture) for picture in pictures[::4]],
    }


def compare(checkpoints: list[Path], places: list[Path]) -> None:
    """Print each checkpoint's BD-rate against JPEG 2000 and its lossless rate, for each kind of picture."""
    kinds = kinds_of(watched_of(read_pictures(places)))
    anchors = {kind: jpeg2000_curve(pictures) for kind, pictures in kinds.items()}
    for path in checkpoints:
        model, _ = load_average(path)
        for kind, pictures in kinds.items():
            curve, lossless = validate(model, pictures)
            rate = bd_rate(curve, anchors[kind])
            print(
                f"{path.name} {kind}: BD-rate against JPEG 2000 {rate:+.2f} %, lossless {lossless:.3f} bpp", flush=True
            )
        for conversion in CONVERSIONS:
            rates = [
                lossless_bpp(model, converted(to_tensor(np.stack(kinds[kind])), conversion))
                for kind in ("usual", "half chroma", "grain")
            ]
            each = ", ".join(f"{rate:.3f}" for rate in rates)
            print(f"{path.name} luma and chroma of {conversion.name}, lossless: {each} bpp", flush=True)


def jpeg2000_curve(pictures: list[Picture]) -> Curve:
    """Mean bpp and PSNR of JPEG 2000 at ANCHOR_RATES: the anchor validation is compared with."""
    points = []
    for factor in ANCHOR_RATES:
        rows = []
        for picture in pictures:
            buffer = io.BytesIO()
            Image.fromarray(picture).save(
                buffer, "JPEG2000", quality_mode="rates", quality_layers=[factor], irreversible=True, mct=1
            )
            decoded = np.asarray(Image.open(buffer).convert("RGB"))
            rows.append((buffer.tell() * 8 / picture[..., 0].size, psnr(picture, decoded)))
        points.append(tuple(np.mean(rows, 0)))
    return points


@torch.no_grad()
def validate(model: CodecModel, pictures: list[Picture], finest: int = 0) -> tuple[Curve, float]:
    """Estimated bpp and PSNR at CODES, and estimated lossless bpp, means over the pictures.

    Finer levels than `finest` cost nothing and stay exact.
    """
    model.eval()
    device = next(model.parameters()).device
    stacked = to_tensor(np.stack(pictures)).to(device)
    pixels, curve = stacked[0, 0].numel(), []
    for code in CODES:
        bits, noise = 0.0, 0.0
        for part in stacked.split(4):
            outcome = model(part, torch.full((len(part),), code, device=device), finest=finest)
            bits += float(outcome.bits.sum()) / pixels
            squared = (outcome.picture.round().clamp(0, 255) - part).pow(2).flatten(1).mean(1)
            noise += float((10 * torch.log10(255**2 / squared)).sum())
        curve.append((bits / len(stacked), noise / len(stacked)))
    return curve, lossless_bpp(model, stacked, finest)


@torch.no_grad()
def lossless_bpp(model: CodecModel, pictures: Tensor, finest: int = 0) -> float:
    """Estimated bits a pixel without loss, mean over the pictures, [N, 3, H, W]; finest: as in `validate`."""
    bits = 0.0
    for part in pictures.split(4):
        code = torch.full((len(part),), float(LOSSLESS_POSITION), device=part.device)
        bits += float(model(part, code, True, finest).bits.sum())
    return bits / pictures[:, 0].numel()


def centre(picture: Picture, side: int) -> Picture:
    """The middle of a picture."""
    top, left = ((n - side) // 2 for n in picture.shape[:2])
    return picture[top : top + side, left : left + side]
