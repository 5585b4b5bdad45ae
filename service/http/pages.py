"""Static files: the browser client, the playground, the documentation's page, and their assets, from memory."""

import hashlib
from importlib.resources import files
from typing import Final

import msgspec
from aiohttp import web

from protocol.errors import NotFound
from service.http.operations import PAGES as TAG
from service.http.operations import Answer, Operation, add_operations, path_name
from service.security_headers import OPEN_FILE, PAGE

NOT_MODIFIED: Final = 304
CLIENT: Final = "/client.js"
ASSET: Final = "/web/{name}"
KINDS: Final = {".css": "text/css", ".js": "text/javascript"}
PAGES: Final = {
    "/": ("index.html", "text/html", "getPlayground", "Get the playground."),
    "/docs": ("docs.html", "text/html", "getDocs", "Get this documentation as a page."),
    CLIENT: ("tidegate.js", "text/javascript", "getBrowserClient", "Get the client for browsers."),
}
"""For each path the file of the package, its content type, and the name and the summary of its operation.

Every other file is an asset, under its own name.
"""


class StaticFile(msgspec.Struct, frozen=True):
    """A static file: its bytes, content type and ETag."""

    body: bytes
    kind: str
    tag: str


LOADED: Final = web.AppKey("pages", dict)


def add_routes(app: web.Application) -> None:
    """Add the routes; ``/client.js`` may be loaded from any origin."""
    app[LOADED] = {path: _load(name, kind) for path, (name, kind, _, _) in PAGES.items()} | _assets()
    for path, (_, kind, name, summary) in PAGES.items():
        add_operations(app, Operation("GET", path, name=name, tag=TAG, summary=summary, answers=_answers(kind))(_page))
    asset = Operation(
        "GET",
        ASSET,
        name="getAsset",
        tag=TAG,
        summary="Get a script or a style of the pages.",
        parameters=(path_name("name", "The file's name.", example="theme.css"),),
        answers=_answers(*KINDS.values()),
        errors=("not_found",),
    )
    add_operations(app, asset(_page))


def _answers(*media: str) -> tuple[Answer, ...]:
    found = Answer(200, "The file.", media=media, headers=("ETag",))
    return found, Answer(NOT_MODIFIED, "The client has this version of the file.", headers=("ETag",))


async def _page(request: web.Request) -> web.Response:
    page = request.config_dict[LOADED].get(request.path)
    if page is None:
        raise NotFound
    headers = {**(OPEN_FILE if request.path == CLIENT else PAGE), "ETag": page.tag}
    if request.headers.get("If-None-Match") == page.tag:
        return web.Response(status=NOT_MODIFIED, headers=headers)
    return web.Response(body=page.body, headers=headers, content_type=page.kind, charset="utf-8")


def _assets() -> dict[str, StaticFile]:
    whole = {name for name, *_ in PAGES.values()}
    names = [file.name for file in files("service").joinpath("web").iterdir() if file.name not in whole]
    kinds = {name: KINDS[suffix] for name in names for suffix in KINDS if name.endswith(suffix)}
    return {ASSET.format(name=name): _load(name, kind) for name, kind in kinds.items()}


def _load(name: str, kind: str) -> StaticFile:
    body = files("service").joinpath("web", name).read_bytes()
    return StaticFile(body, kind, f'"{hashlib.blake2b(body, digest_size=8).hexdigest()}"')
