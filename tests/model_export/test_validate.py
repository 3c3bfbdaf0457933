"""validate: estimates for several kinds of picture, beside JPEG 2000."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from model_export.__main__ import main
from model_export.data import synthetic_pictures
from model_export.validate import SIDE, kinds_of, watched_of
from service.codec.conversion import CONVERSIONS


def test_kinds_are_pictures_as_they_are_with_less_chroma_with_grain_and_without_colours():
    pictures = synthetic_pictures(5, 64)
    kinds = kinds_of(pictures)
    assert {kind: len(own) for kind, own in kinds.items()} == {"usual": 5, "half chroma": 3, "grain": 2, "grey": 2}
    for soft, whole in zip(kinds["half chroma"], pictures[::2], strict=True):
        assert not np.array_equal(soft, whole)
        assert np.abs(soft.astype(int).sum(-1) - whole.astype(int).sum(-1)).mean() < 12
    for grained, whole in zip(kinds["grain"], pictures[1::2], strict=True):
        assert 1 < (grained.astype(float) - whole).std() < 3
    for grey in kinds["grey"]:
        assert (grey == grey[..., :1]).all()


def test_what_is_watched_is_the_middle_of_large_enough_pictures():
    small, large = np.zeros((SIDE - 1, 400, 3), np.uint8), np.zeros((SIDE + 100, SIDE + 2, 3), np.uint8)
    large[50 : 50 + SIDE, 1 : 1 + SIDE] = 7
    (watched,) = watched_of([small, large])
    assert watched.shape == (SIDE, SIDE, 3)
    assert (watched == 7).all()


def test_a_checkpoint_is_compared_for_each_kind(checkpoint, tmp_path, capsys):
    for number, picture in enumerate(synthetic_pictures(2, SIDE)):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    assert main(["validate", str(checkpoint), "--valid", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    for line, kind in zip(lines, ["usual", "half chroma", "grain", "grey"], strict=False):
        assert re.fullmatch(rf"checkpoint.pt {kind}: BD-rate against JPEG 2000 [+-][\d.]+ %, lossless [\d.]+ bpp", line)
    for line, conversion in zip(lines[4:], CONVERSIONS, strict=True):
        rates = r"[\d.]+, [\d.]+, [\d.]+ bpp"
        assert re.fullmatch(rf"checkpoint.pt luma and chroma of {conversion.name}, lossless: {rates}", line)


def test_without_pictures_or_checkpoint_one_line_says_so(checkpoint, tmp_path, capsys):
    assert main(["validate", str(checkpoint), "--valid", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"model_export: no picture of at least 1 px in {tmp_path}\n"
    missing = tmp_path / "missing.pt"
    assert main(["mix", str(missing), str(checkpoint), str(tmp_path / "mixed.pt")]) == 2
    assert re.fullmatch(r"model_export: .*missing.pt'\n", capsys.readouterr().err)
