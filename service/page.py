"""`service/web` -> GET / and /web/...: the web page, read once, with headers that keep it to itself.

Everything the page needs comes from here: the Content-Security-Policy allows no other host and no inline code.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

FOLDER = Path(__file__).resolve().parent / "web"
INDEX = "index.html"
PATHS = ("/", "/web/{name:path}")
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",  # a cached copy is asked after, and the ETag answers without a body
}


@dataclass(frozen=True)
class Asset:
    """One file of the page.

    Attributes:
        body: Its bytes.
        media_type: Of the bytes.
        etag: Changes with the bytes.
    """

    body: bytes
    media_type: str
    etag: str


def load(folder: Path = FOLDER) -> dict[str, Asset]:
    """Path below the folder -> asset, for every file of a known type."""
    assets = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in MEDIA_TYPES:
            body = path.read_bytes()
            etag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            assets[path.relative_to(folder).as_posix()] = Asset(body, MEDIA_TYPES[path.suffix], etag)
    return assets


def mount(app: FastAPI) -> None:
    """Serve the page at `/` and its parts below `/web/`; GET and HEAD."""
    assets = load()

    async def serve(request: Request) -> Response:
        asset = assets.get(request.path_params.get("name", INDEX))
        if asset is None:
            raise HTTPException(404)
        headers = {**HEADERS, "ETag": asset.etag}
        known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
        if asset.etag in known:
            return Response(status_code=304, headers=headers)
        return Response(asset.body, media_type=asset.media_type, headers=headers)

    app.router.routes.extend(Route(path, serve, methods=["GET"], include_in_schema=False) for path in PATHS)
