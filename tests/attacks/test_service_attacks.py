"""Bodies made to hurt, sent to a real server: each meets its named refusal, and memory stays bounded.

`attacks/test_attacks.py` has the streams whose checksums are right; here are images, damage and polyglots.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from PIL import Image

from tests.e2e.process import Running, running
from tests.service.wire import get, post

MAX_PIXELS = 4_000_000
GROWTH_BYTES = 96 * 2**20
"""What any attack may add to the server's peak; a picture at the pixel limit takes more to encode."""


def png_of(width: int, height: int, *chunks: bytes, data: bytes = b"", depth: int = 8, kind: int = 2) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", data), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def zeros(count: int) -> bytes:
    """So many zero bytes, deflated piece by piece."""
    packer = zlib.compressobj(9)
    piece = bytes(2**20)
    return b"".join(packer.compress(piece) for _ in range(count // 2**20)) + packer.flush()


def saved(fmt: str, *, frames: int = 1, size: tuple[int, int] = (16, 16), **options: object) -> bytes:
    file = io.BytesIO()
    pictures = [Image.fromarray(np.full((*size, 3), 40 * i % 256, np.uint8)) for i in range(frames)]
    more = {"save_all": True, "append_images": pictures[1:]} if frames > 1 else {}
    pictures[0].save(file, fmt, **more, **options)
    return file.getvalue()


def tiff_of(width: int, height: int, next_directory: int = 0, strip: int = 8) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, strip), (277, 1), (278, height)]
    tags.append((279, width * height % 2**32))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + struct.pack("<I", next_directory)


def patched(data: bytes, find: bytes, offset: int, value: bytes) -> bytes:
    at = data.index(find) + offset
    return data[:at] + value + data[at + len(value) :]


def with_zip() -> bytes:
    """A picture that is also an archive."""
    file = io.BytesIO(png_of(8, 8, data=zlib.compress(bytes(8 * 25))))
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("evil.html", "<script>alert(1)</script>")
    return file.getvalue()


REFUSED: dict[str, tuple[Callable[[], bytes], int, str]] = {
    "a PNG that claims 900 megapixels": (lambda: png_of(30_000, 30_000, data=zeros(2**20)), 422, "over-limit"),
    "a PNG that claims 2^31 columns": (lambda: png_of(2**31 - 1, 1), 422, "over-limit"),
    "a bilevel PNG of 400 megapixels in 50 kB": (
        lambda: png_of(20_000, 20_000, data=zeros(50_020_000), depth=1, kind=0),
        422,
        "over-limit",
    ),
    "a PNG within the limit and without pixels": (lambda: png_of(2_000, 2_000, data=b""), 422, "corrupt-image"),
    "a PNG whose pixels stop early": (
        lambda: png_of(2_000, 2_000, data=zeros(2**20)),
        422,
        "corrupt-image",
    ),
    "a PNG whose text inflates to 128 MB": (
        lambda: png_of(8, 8, chunk(b"zTXt", b"a\0\0" + zeros(2**27))),
        422,
        "corrupt-image",
    ),
    "a PNG of 16 bits": (lambda: png_of(8, 8, data=zlib.compress(bytes(400)), depth=16), 415, "unsupported-image"),
    "a JPEG that claims 65500 x 65500": (
        lambda: patched(saved("JPEG"), b"\xff\xc0", 5, struct.pack(">HH", 65_500, 65_500)),
        422,
        "over-limit",
    ),
    "a JPEG that claims more than it has": (
        lambda: patched(saved("JPEG"), b"\xff\xc0", 5, struct.pack(">HH", 1_900, 1_900))[:-40],
        422,
        "corrupt-image",
    ),
    "a BMP that claims 30000 x 30000": (
        lambda: patched(saved("BMP"), b"BM", 18, struct.pack("<ii", 30_000, 30_000)),
        422,
        "over-limit",
    ),
    "a BMP without its pixels": (lambda: saved("BMP", size=(64, 64))[:200], 422, "corrupt-image"),
    "a TIFF that claims 16 gigapixels": (lambda: tiff_of(2**17, 2**17), 422, "over-limit"),
    "a TIFF whose strip lies elsewhere": (lambda: tiff_of(8, 8, strip=2**31), 422, "corrupt-image"),
    "a GIF of 256 frames": (lambda: saved("GIF", frames=256), 415, "unsupported-image"),
    "an animated PNG": (lambda: saved("PNG", frames=3), 415, "unsupported-image"),
    "an animated WebP": (lambda: saved("WEBP", frames=3), 415, "unsupported-image"),
    "a WebP that claims 16 megapixels": (
        lambda: b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 4 + b"\xff\x0f\0" * 2,
        422,
        "corrupt-image",
    ),
    "an SVG with entities of entities": (
        lambda: b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><svg>&b;</svg>',
        415,
        "unsupported-image",
    ),
    "a PostScript program": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "unsupported-image"),
    "an archive": (lambda: zlib.compress(bytes(2**20)), 415, "unsupported-image"),
    "half a magic number": (lambda: b"\x89PNG", 415, "unsupported-image"),
    "EXIF data of 5 MB": (
        lambda: png_of(8, 8, chunk(b"eXIf", b"MM\0*\0\0\0\x08" + big_exif()), data=zlib.compress(bytes(8 * 25))),
        422,
        "over-limit",
    ),
}


def big_exif() -> bytes:
    """One directory with one entry, a text of 5 MB."""
    return struct.pack(">HHHIII", 1, 0x9286, 7, 5 * 2**20, 26, 0) + bytes(5 * 2**20)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("attacked")
    settings = {"max_pixels": MAX_PIXELS, "max_body_bytes": 2**23, "max_header_bytes": 2**14, "request_deadline_s": 20}
    with running(folder, **settings) as server:
        yield server


@pytest.fixture(scope="module")
def stream(server: Running) -> bytes:
    answer = server.send(post("/encode?quality=50", saved("PNG", size=(70, 90))))
    assert answer.status == 200
    return answer.body


@pytest.mark.parametrize("name", REFUSED)
def test_images(server: Running, name: str):
    make, status, slug = REFUSED[name]
    data = make()
    before = server.peak_bytes()
    answer = server.send(post("/encode?metadata=all", data))
    assert (answer.status, answer.slug) == (status, slug), answer.problem
    assert server.peak_bytes() - before < GROWTH_BYTES + len(data)
    assert server.ready()


@pytest.mark.parametrize("route", ["/decode", "/re-encode?quality=20"])
def test_cut_streams(server: Running, stream: bytes, route: str):
    for length in sorted({*range(1, 40), *range(40, len(stream), max(1, len(stream) // 20)), len(stream) - 1}):
        answer = server.send(post(route, stream[:length]))
        wanted = {"not-a-stream", "unsupported-image"} if length < 8 else {"corrupt-stream"}
        assert answer.slug in wanted, (length, answer.problem)


def test_flipped_bits(server: Running, stream: bytes):
    positions = np.random.default_rng(3).choice(len(stream) * 8, 120, replace=False)
    for position in [*range(8), *range(64, 80), *map(int, positions)]:
        data = bytearray(stream)
        data[position // 8] ^= 1 << position % 8
        answer = server.send(post("/decode", bytes(data)))
        assert (answer.status, answer.slug) in {(422, "corrupt-stream"), (415, "not-a-stream")}, position


def test_a_polyglot_is_a_picture_and_nothing_else(server: Running):
    encoded = server.send(post("/encode?quality=100&metadata=all", with_zip(), "Content-Type: application/zip"))
    assert encoded.status == 200
    decoded = server.send(post("/decode", encoded.body))
    assert decoded.headers["content-type"] == "image/png"
    for body in (encoded.body, decoded.body):
        assert b"script" not in body
        assert b"PK\x03\x04" not in body
    for answer in (encoded, decoded):
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("route", "make", "slug"),
    [
        ("/decode", lambda stream: saved("PNG"), "not-a-stream"),
        ("/decode", lambda stream: saved("PNG") + stream, "not-a-stream"),
        ("/encode", lambda stream: stream, "unsupported-image"),
        ("/encode", lambda stream: stream + saved("PNG"), "unsupported-image"),
        ("/decode", lambda stream: stream + with_zip(), "corrupt-stream"),
        ("/re-encode", lambda stream: stream + saved("PNG"), "corrupt-stream"),
        ("/inspect", lambda stream: stream + b"\0", "corrupt-stream"),
    ],
)
def test_magic_bytes_decide_and_nothing_may_follow_a_stream(
    server: Running, stream: bytes, route: str, make: Callable[[bytes], bytes], slug: str
):
    for label in ("Content-Type: image/vnd.bijou", "Content-Type: image/png"):
        assert server.send(post(route, make(stream), label)).slug == slug


def test_a_tiff_whose_directories_go_round_is_one_picture(server: Running):
    assert server.send(post("/encode", tiff_of(8, 8, next_directory=8) + bytes(64))).status == 200


def test_a_hundred_bombs_leave_no_trace(server: Running, stream: bytes):
    bombs = [REFUSED[name][0]() for name in ("a PNG whose pixels stop early", "a PNG that claims 900 megapixels")]
    server.send(post("/decode", stream))
    for bomb in bombs * 5:
        server.send(post("/encode", bomb))
    settled = server.resident_bytes()
    for bomb in bombs * 45:
        server.send(post("/encode", bomb))
    assert server.resident_bytes() - settled < 16 * 2**20
    assert server.send(post("/decode", stream)).status == 200
    assert b"Traceback" not in server.log.read_bytes()
    assert 'bijou_queue_requests{op="encode"} 0.0' in server.send(get("/metrics")).body.decode()
