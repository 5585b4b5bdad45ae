"""Static files: the browser client at ``/client.js`` and the playground at ``/``, served from memory."""

import hashlib
from importlib.resources import files
from typing import Final

import msgspec
from aiohttp import web

NOT_MODIFIED: Final = 304
PAGES: Final = {
    "/": ("index.html", "text/html"),
    "/client.js": ("tidegate.js", "text/javascript"),
    "/playground.js": ("playground.js", "text/javascript"),
    "/playground.css": ("playground.css", "text/css"),
}
"""The file of the package and the content type for each path."""

_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Vary": "Origin",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
}


class StaticFile(msgspec.Struct, frozen=True):
    """A static file: its bytes, content type and ETag."""

    body: bytes
    kind: str
    tag: str


LOADED: Final = web.AppKey("pages", dict)


def add_routes(app: web.Application) -> None:
    """Add the routes; ``/client.js`` may be loaded from any origin."""
    app[LOADED] = {path: _load(name, kind) for path, (name, kind) in PAGES.items()}
    for path in PAGES:
        app.router.add_get(path, _page)


async def _page(request: web.Request) -> web.Response:
    page = request.config_dict[LOADED][request.path]
    headers = _HEADERS | {"ETag": page.tag}
    if request.path == "/client.js":
        headers["Access-Control-Allow-Origin"] = "*"
    if request.headers.get("If-None-Match") == page.tag:
        return web.Response(status=NOT_MODIFIED, headers=headers)
    return web.Response(body=page.body, headers=headers, content_type=page.kind, charset="utf-8")


def _load(name: str, kind: str) -> StaticFile:
    body = files("service").joinpath("web", name).read_bytes()
    return StaticFile(body, kind, f'"{hashlib.blake2b(body, digest_size=8).hexdigest()}"')
