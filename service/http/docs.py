"""The API's documentation: ``/openapi.json``, and each error code's explanation. ``/docs`` is one of the pages."""

import asyncio
import html
from typing import Final

import msgspec
from aiohttp import web

from protocol.errors import PROBLEMS, NotFound
from service.context import CONTAINER
from service.http.openapi import openapi
from service.http.operations import JSON, PAGES, Answer, Operation, add_operations, operations_of, path_name
from service.security_headers import OPEN_FILE, PAGE


class Document:
    """An application's OpenAPI document, made once, at its first use and beside the event loop.

    Args:
        app: the application.
    """

    def __init__(self, app: web.Application) -> None:
        self._app = app
        self._json = b""

    async def json(self) -> bytes:
        """Return the document as JSON; it says who may call what, with the service's keys or without."""
        if not self._json:
            keys = self._app[CONTAINER].auth.required
            document = await asyncio.to_thread(openapi, operations_of(self._app), keys=keys)
            self._json = msgspec.json.encode(document)
        return self._json


DOCUMENT: Final = web.AppKey("document", Document)


def add_routes(app: web.Application) -> None:
    """Add the routes of the document and of each error code's explanation."""
    app[DOCUMENT] = Document(app)
    add_operations(app, document, explain)


@Operation(
    "GET",
    "/openapi.json",
    name="getOpenApi",
    tag=PAGES,
    summary="Get this description.",
    answers=(Answer(200, "The OpenAPI 3.1 document.", media=JSON),),
)
async def document(request: web.Request) -> web.Response:
    """Return the document."""
    return web.Response(body=await request.config_dict[DOCUMENT].json(), headers=OPEN_FILE, content_type=JSON)


@Operation(
    "GET",
    "/errors/{code}",
    name="explainError",
    tag=PAGES,
    summary="Get the explanation of an error code.",
    parameters=(path_name("code", "The code.", example="invalid_request"),),
    answers=(Answer(200, "What it means, and what to do.", media="text/html"),),
    errors=("not_found",),
)
async def explain(request: web.Request) -> web.Response:
    """Return the explanation of an error code, as a page."""
    code = request.match_info["code"]
    problem = PROBLEMS.get(code)
    if problem is None:
        raise NotFound(f"There is no error code {code[:80]!r}")
    again = "The same request may succeed later." if problem.temporary else "The same request will not succeed later."
    text = _PAGE.format(
        code=html.escape(code),
        title=html.escape(problem.title),
        status=problem.status,
        again=again,
        remedy=html.escape(problem.remedy),
    )
    return web.Response(text=text, headers=PAGE, content_type="text/html")


_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{code} · Tidegate</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/web/theme.css">
<link rel="stylesheet" href="/web/docs.css">
</head>
<body>
<header>
  <h1><span aria-hidden="true">≋</span> <code>{code}</code></h1>
  <nav><a href="/docs#errors">All errors</a> <a href="/">Playground</a></nav>
</header>
<main class="error">
  <p><b>{title}.</b></p>
  <p>HTTP status {status}. {again}</p>
  <p>{remedy}</p>
</main>
</body>
</html>
"""
