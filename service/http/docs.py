"""The API's documentation: an OpenAPI 3.1 document built from the structs, and a page that shows it offline."""

import html
import re
from typing import Any, Final

import msgspec
from aiohttp import web

from protocol.errors import PROBLEMS, NotFound
from protocol.requests import RequestState, SubmitBody
from protocol.users import UserStatus, UserSubscribed
from service.http.channels import (
    ChannelPage,
    HistoryPage,
    PresenceList,
    PublishAnswer,
    PublishBody,
    SubscriberPage,
)
from service.http.health import Health
from service.http.tickets import Ticket
from service.http.usage import AccountUsage
from service.http.users import PresenceBody, SocketCount, SubscribeBody, UnsubscribeBody, UserChannelPage
from service.middleware.errors import ProblemBody

REFERENCE: Final = "#/components/schemas/{name}"
DOCUMENT: Final = web.AppKey("document", bytes)
PAGE: Final = web.AppKey("page", bytes)

Operation = tuple[str, str, str, str, dict[str, str]]
OPERATIONS: Final[tuple[Operation, ...]] = (
    (
        "post",
        "/api/requests",
        "Submit a request; it outlives the connection.",
        "SubmitBody",
        {"202": "", "200": "", "400": "ProblemBody", "422": "ProblemBody", "503": "ProblemBody"},
    ),
    ("get", "/api/requests/{id}", "Look at a request.", "", {"200": "RequestState", "404": "ProblemBody"}),
    (
        "get",
        "/api/requests/{id}/events",
        "Follow a request as server-sent events, or by long polling, from the start or after a position.",
        "",
        {"200": "", "400": "ProblemBody", "404": "ProblemBody", "410": "ProblemBody"},
    ),
    ("post", "/api/requests/{id}/cancel", "Cancel a request; idempotent.", "", {"202": "", "404": "ProblemBody"}),
    ("delete", "/api/requests/{id}", "Cancel a request and forget it.", "", {"204": "", "404": "ProblemBody"}),
    ("get", "/api/usage", "What the caller's account has spent, and may spend.", "", {"200": "AccountUsage"}),
    ("post", "/api/tickets", "A ticket that opens one socket.", "", {"200": "Ticket", "503": "ProblemBody"}),
    (
        "post",
        "/api/channels/{name}/publish",
        "Publish in a channel.",
        "PublishBody",
        {"202": "PublishAnswer", "200": "PublishAnswer", "403": "ProblemBody", "422": "ProblemBody"},
    ),
    (
        "get",
        "/api/channels/{name}/history",
        "What was published in a channel, page by page, after a position or as far back as it is held.",
        "",
        {"200": "HistoryPage", "403": "ProblemBody", "410": "ProblemBody"},
    ),
    (
        "get",
        "/api/channels/{name}/presence",
        "Who is in a channel.",
        "",
        {"200": "PresenceList", "403": "ProblemBody"},
    ),
    (
        "get",
        "/api/channels",
        "The channels that exist, page by page.",
        "",
        {"200": "ChannelPage", "400": "ProblemBody", "403": "ProblemBody"},
    ),
    (
        "get",
        "/api/channels/{name}/subscribers",
        "All that follow a channel, members or not, page by page.",
        "",
        {"200": "SubscriberPage", "400": "ProblemBody", "403": "ProblemBody"},
    ),
    (
        "get",
        "/api/users/{user}/status",
        "Whether a user is online.",
        "",
        {"200": "UserStatus", "403": "ProblemBody"},
    ),
    (
        "put",
        "/api/users/{user}/presence",
        "Set whether a user is online, for a time.",
        "PresenceBody",
        {"200": "UserStatus", "400": "ProblemBody", "403": "ProblemBody", "503": "ProblemBody"},
    ),
    (
        "get",
        "/api/users/{user}/channels",
        "The channels that a user follows, page by page.",
        "",
        {"200": "UserChannelPage", "400": "ProblemBody", "403": "ProblemBody"},
    ),
    (
        "post",
        "/api/users/{user}/subscribe",
        "Subscribe a user's sockets to a channel.",
        "SubscribeBody",
        {"200": "UserSubscribed", "400": "ProblemBody", "403": "ProblemBody", "410": "ProblemBody"},
    ),
    (
        "post",
        "/api/users/{user}/disconnect",
        "Close a user's sockets.",
        "",
        {"200": "SocketCount", "403": "ProblemBody"},
    ),
    (
        "post",
        "/api/users/{user}/unsubscribe",
        "Take a user out of a channel.",
        "UnsubscribeBody",
        {"200": "SocketCount", "403": "ProblemBody"},
    ),
    (
        "get",
        "/ws",
        "Submit, follow and cancel, and take part in channels, over a WebSocket.",
        "",
        {"101": "", "403": "ProblemBody"},
    ),
    ("post", "/v1/chat/completions", "OpenAI's chat completions, whole or streamed.", "", {"200": ""}),
    ("post", "/v1/responses", "OpenAI's responses, whole, streamed or in the background.", "", {"200": ""}),
    ("get", "/v1/responses/{id}", "A response as of now, or its events after one of them.", "", {"200": "", "410": ""}),
    ("post", "/v1/responses/{id}/cancel", "Cancel a response; idempotent.", "", {"200": ""}),
    ("post", "/v1/messages", "Anthropic's messages, whole or streamed.", "", {"200": ""}),
    ("post", "/v1/messages/count_tokens", "About how many tokens a message has.", "", {"200": ""}),
    ("post", "/v1/embeddings", "OpenAI's embeddings.", "", {"200": ""}),
    ("get", "/v1/models", "The models, in OpenAI's form or, with `anthropic-version`, Anthropic's.", "", {"200": ""}),
    ("get", "/v1/models/{model}", "One of them; its name may have slashes.", "", {"200": ""}),
    ("get", "/api/health", "How each part is.", "", {"200": "Health", "503": "Health"}),
    ("get", "/api/health/live", "Whether the loop runs.", "", {"200": "Health"}),
    ("get", "/api/health/ready", "Whether traffic may come.", "", {"200": "Health", "503": "Health"}),
)
MEDIA: Final = {"ProblemBody": "application/problem+json"}

_PARAMETER = re.compile(r"\{(\w+)\}")


def add_routes(app: web.Application) -> None:
    """Add the routes of the document, the page, and each error code's explanation."""
    document = openapi()
    app[DOCUMENT] = msgspec.json.encode(document)
    app[PAGE] = page(document).encode()
    app.router.add_get("/openapi.json", _document)
    app.router.add_get("/docs", _page)
    app.router.add_get("/errors/{code}", _error)


def openapi() -> dict[str, Any]:
    """Build the OpenAPI 3.1 document."""
    channels = [PublishBody, PublishAnswer, HistoryPage, PresenceList, ChannelPage, SubscriberPage]
    users = [UserStatus, PresenceBody, UserChannelPage, SubscribeBody, UserSubscribed, SocketCount, UnsubscribeBody]
    described = [SubmitBody, RequestState, *channels, *users, Ticket, AccountUsage, Health, ProblemBody]
    _, schemas = msgspec.json.schema_components(described, ref_template=REFERENCE)
    paths: dict[str, dict[str, Any]] = {}
    for method, path, summary, body, answers in OPERATIONS:
        operation: dict[str, Any] = {"summary": summary, "responses": {}}
        for name in _PARAMETER.findall(path):
            operation["parameters"] = [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}}]
        if body:
            operation["requestBody"] = {"required": True, "content": _content(body)}
        for status, schema in answers.items():
            answer: dict[str, Any] = {"description": _phrase(schema)}
            if schema:
                answer["content"] = _content(schema)
            operation["responses"][status] = answer
        paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tidegate", "version": "1", "description": "Requests that outlive their connections."},
        "paths": paths,
        "security": [{}, {"bearer": []}, {"key": []}],
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def page(document: dict[str, Any]) -> str:
    """Render the document as one page without external resources."""
    calls = "".join(
        f"<section><h2><b>{method.upper()}</b> <code>{html.escape(path)}</code></h2>"
        f"<p>{html.escape(operation['summary'])}</p>{_details('Details', operation)}</section>"
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    schemas = "".join(_details(name, schema) for name, schema in sorted(document["components"]["schemas"].items()))
    codes = "".join(
        f"<tr><td><a href='/errors/{code}'><code>{code}</code></a></td><td>{problem.status}</td>"
        f"<td>{html.escape(problem.title)}</td><td>{html.escape(problem.remedy)}</td></tr>"
        for code, problem in sorted(PROBLEMS.items())
    )
    return _PAGE.format(
        title="Tidegate",
        body=f"<p><a href='/openapi.json'>openapi.json</a></p>{calls}<h2>Schemas</h2>{schemas}"
        f"<h2>Errors</h2><table><tr><th>Code<th>Status<th>Meaning<th>Remedy</tr>{codes}</table>",
    )


async def _document(request: web.Request) -> web.Response:
    return web.Response(body=request.config_dict[DOCUMENT], content_type="application/json")


async def _page(request: web.Request) -> web.Response:
    return web.Response(body=request.config_dict[PAGE], content_type="text/html", charset="utf-8")


async def _error(request: web.Request) -> web.Response:
    code = request.match_info["code"]
    problem = PROBLEMS.get(code)
    if problem is None:
        raise NotFound(f"There is no error code {code[:80]!r}")
    body = (
        f"<p>{html.escape(problem.title)}.</p><p>HTTP status {problem.status}. "
        f"The same request {'may' if problem.temporary else 'will not'} succeed later.</p>"
        f"<p>{html.escape(problem.remedy)}</p>"
    )
    return web.Response(text=_PAGE.format(title=code, body=body), content_type="text/html")


def _content(schema: str) -> dict[str, Any]:
    return {MEDIA.get(schema, "application/json"): {"schema": {"$ref": REFERENCE.format(name=schema)}}}


def _phrase(schema: str) -> str:
    return {"ProblemBody": "It failed: the problem says why.", "": "Done."}.get(schema, schema)


def _details(name: str, value: object) -> str:
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    return f"<details><summary>{html.escape(name)}</summary><pre>{html.escape(text)}</pre></details>"


_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}}
h2{{font-size:1.1rem}}pre{{overflow:auto;background:#8881;padding:1rem}}td,th{{text-align:left;padding:.2rem .6rem}}
:root{{color-scheme:light dark}}</style><h1>{title}</h1>{body}</html>
"""
