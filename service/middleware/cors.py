"""CORS: the headers by which a page of another origin may read a response, and the answer to its preflight."""

from typing import Final

from aiohttp import hdrs, web

from service.auth.origins import OriginPolicy
from service.context import CallContext

METHODS: Final = "GET, HEAD, POST, PUT, DELETE"
MAX_AGE: Final = 7200  # seconds for which a browser may keep the answer; more is not honoured by all
NO_CONTENT: Final = 204

REQUEST_HEADERS: Final = (
    "authorization",
    "content-type",
    "x-api-key",
    "idempotency-key",
    "last-event-id",
    "cache-control",
    "if-none-match",
    "user-agent",
    "x-request-id",
    "x-trace-id",
    "traceparent",
    "tracestate",
    "baggage",
    "anthropic-version",
    "anthropic-beta",
    "anthropic-dangerous-direct-browser-access",
    "openai-organization",
    "openai-project",
    "openai-beta",
)
"""The headers that a page of a listed origin may send, beside those that begin as ``PREFIXES`` say."""

PREFIXES: Final = ("x-tidegate-", "x-stainless-", "anthropic-", "openai-")


def open_cors(origins: OriginPolicy, request: web.Request, call: CallContext, route: str) -> web.Response | None:
    """Give a call with an ``Origin`` the headers of its response; returns the response where it is a preflight.

    Raises:
        AccessDenied: a preflight of an origin that is not allowed: ``origin_not_allowed``.
    """
    call.cors = origins.cors(request.headers[hdrs.ORIGIN], route)
    if request.method != hdrs.METH_OPTIONS or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers:
        return None
    origins.check_preflight(request)
    headers = {
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: METHODS,
        hdrs.ACCESS_CONTROL_ALLOW_HEADERS: ", ".join(_allowed(request)),
        hdrs.ACCESS_CONTROL_MAX_AGE: str(MAX_AGE),
    }
    return web.Response(status=NO_CONTENT, headers=headers)


def _allowed(request: web.Request) -> tuple[str, ...]:
    """Return the allowed headers: the known ones, and those asked for that begin as an SDK's or our own."""
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "").lower().split(",")
    names = dict.fromkeys(name.strip() for name in asked)
    further = [name for name in names if name.startswith(PREFIXES) and name.replace("-", "").isalnum()]
    return (*REQUEST_HEADERS, *(name for name in further if name.isascii() and name not in REQUEST_HEADERS))
