"""Static files: the browser client at ``/client.js``, the playground at ``/`` and its modules, served from memory."""

import hashlib
from importlib.resources import files
from typing import Final

import msgspec
from aiohttp import web

from protocol.errors import NotFound

NOT_MODIFIED: Final = 304
CLIENT: Final = "/client.js"
ASSET: Final = "/web/{name}"
KINDS: Final = {".css": "text/css", ".js": "text/javascript"}
PAGES: Final = {"/": ("index.html", "text/html"), CLIENT: ("tidegate.js", "text/javascript")}
"""The file of the package and the content type for each path; every other file is an asset, under its own name."""

_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
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
    app[LOADED] = {path: _load(name, kind) for path, (name, kind) in PAGES.items()} | _assets()
    for path in (*PAGES, ASSET):
        app.router.add_get(path, _page)


async def _page(request: web.Request) -> web.Response:
    page = request.config_dict[LOADED].get(request.path)
    if page is None:
        raise NotFound
    headers = _HEADERS | {"ETag": page.tag}
    if request.path == CLIENT:
        headers["Access-Control-Allow-Origin"] = "*"
    if request.headers.get("If-None-Match") == page.tag:
        return web.Response(status=NOT_MODIFIED, headers=headers)
    return web.Response(body=page.body, headers=headers, content_type=page.kind, charset="utf-8")


def _assets() -> dict[str, StaticFile]:
    whole = {name for name, _ in PAGES.values()}
    names = [file.name for file in files("service").joinpath("web").iterdir() if file.name not in whole]
    kinds = {name: KINDS[suffix] for name in names for suffix in KINDS if name.endswith(suffix)}
    return {ASSET.format(name=name): _load(name, kind) for name, kind in kinds.items()}


def _load(name: str, kind: str) -> StaticFile:
    body = files("service").joinpath("web", name).read_bytes()
    return StaticFile(body, kind, f'"{hashlib.blake2b(body, digest_size=8).hexdigest()}"')
