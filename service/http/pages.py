"""Static files: the browser client, the playground at ``/`` and the documentation's page, served from memory."""

import hashlib
from importlib.resources import files
from typing import Final

import msgspec
from aiohttp import web

from service.http.operations import PAGES as TAG
from service.http.operations import Answer, Operation, add_operations

NOT_MODIFIED: Final = 304
PAGES: Final = {
    "/": ("index.html", "text/html", "getPlayground", "Get the playground."),
    "/docs": ("docs.html", "text/html", "getDocs", "Get this documentation as a page."),
    "/client.js": ("tidegate.js", "text/javascript", "getBrowserClient", "Get the client for browsers."),
    "/playground.js": ("playground.js", "text/javascript", "getPlaygroundScript", "Get the playground's script."),
    "/playground.css": ("playground.css", "text/css", "getStyle", "Get the style of all pages."),
    "/docs.js": ("docs.js", "text/javascript", "getDocsScript", "Get the documentation's script."),
    "/docs-examples.js": (
        "docs-examples.js",
        "text/javascript",
        "getDocsExamples",
        "Get the documentation's examples.",
    ),
    "/docs.css": ("docs.css", "text/css", "getDocsStyle", "Get the documentation's style."),
}
"""For each path the file of the package, its content type, and the name and the summary of its operation."""

SECURITY: Final = {
    "Cache-Control": "no-cache",
    "X-Content-Type-Options": "nosniff",
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
    app[LOADED] = {path: _load(name, kind) for path, (name, kind, _, _) in PAGES.items()}
    for path, (_, kind, name, summary) in PAGES.items():
        found = Answer(200, "The file.", media=kind, headers=("ETag",))
        answers = (found, Answer(NOT_MODIFIED, "The client has this version of the file.", headers=("ETag",)))
        add_operations(app, Operation("GET", path, name=name, tag=TAG, summary=summary, answers=answers)(_page))


async def _page(request: web.Request) -> web.Response:
    page = request.config_dict[LOADED][request.path]
    headers = SECURITY | {"ETag": page.tag}
    if request.path == "/client.js":
        headers["Access-Control-Allow-Origin"] = "*"
    if request.headers.get("If-None-Match") == page.tag:
        return web.Response(status=NOT_MODIFIED, headers=headers)
    return web.Response(body=page.body, headers=headers, content_type=page.kind, charset="utf-8")


def _load(name: str, kind: str) -> StaticFile:
    body = files("service").joinpath("web", name).read_bytes()
    return StaticFile(body, kind, f'"{hashlib.blake2b(body, digest_size=8).hexdigest()}"')
