"""Error responses: problem+json (RFC 9457), or the vendor's envelope on a compatible route."""

import math
from typing import Final

import msgspec
import structlog
from aiohttp import web

from protocol.anthropic import answer as anthropic_answer
from protocol.errors import AccessDenied, FieldError, InternalError, InvalidRequest, NotFound, TidegateError
from protocol.openai import answer as openai
from protocol.secret_text import hide_in
from service.context import CallContext

TYPES: Final = "/errors/"  # a problem's type is a path that explains it
COMPATIBLE: Final = "/v1/"
ANTHROPIC: Final = "/v1/messages"
SHARED: Final = "/v1/models"
CLIENT_CLOSED: Final = 499  # only in logs and spans: the client has disconnected
SERVER_ERROR: Final = 500
BAD_REQUEST: Final = 400
UNAUTHENTICATED: Final = 401
UPGRADE_REQUIRED: Final = 426

SDK_PATIENCE: Final = 60.0  # seconds; an SDK that is told to wait for longer retries at its own pace
NO_RETRY: Final = frozenset(
    {
        "provider_unavailable",
        "provider_rate_limited",
        "provider_error",
        "provider_bad_response",
        "provider_stream_broken",
        "provider_timeout",
        "provider_credentials",
        "provider_billing",
        "local_model_failed",
        "response_too_large",
        "schema_mismatch",
        "deadline_exceeded",
        "budget_exceeded",
    }
)
"""Failures after our own retries, or of long duration: SDKs are told not to retry them."""

_CODES: Final = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "unsupported_media_type",
    426: "upgrade_required",
}
_log = structlog.get_logger("service")


class ProblemBody(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """The members of a problem+json body."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    remedy: str
    request_id: str
    trace_id: str
    retry_after_ms: int | None = None
    errors: tuple[FieldError, ...] = ()


def failure_of(error: Exception, request: web.Request) -> TidegateError:
    """Return the ``TidegateError`` for ``error``; an unexpected one is logged and becomes ``internal_error``."""
    if isinstance(error, TidegateError):
        if error.problem.status == SERVER_ERROR:
            _log.error("call_failed", code=error.code, method=request.method, path=request.path, exc_info=error)
            return TidegateError(code=error.code)
        return error
    if isinstance(error, web.HTTPException) and error.status < SERVER_ERROR:
        return _from_http(error, request)
    _log.error("call_failed", code=InternalError.code, method=request.method, path=request.path, exc_info=error)
    return InternalError()


def error_response(request: web.Request, call: CallContext, error: TidegateError, cause: Exception) -> web.Response:
    """Return the response of a failed call. ``cause`` has the headers that its status requires."""
    hide_in(error)
    problem = error.problem
    status = cause.status if isinstance(cause, web.HTTPException) and cause.status < SERVER_ERROR else problem.status
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if isinstance(cause, web.HTTPMethodNotAllowed):
        headers["Allow"] = cause.headers["Allow"]
    if status == UPGRADE_REQUIRED:
        headers |= {"Upgrade": "websocket", "Connection": "upgrade", "Sec-WebSocket-Version": "13"}
    if status == UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    if request.path.startswith(COMPATIBLE):
        if error.code in NO_RETRY or (error.retry_after or 0.0) > SDK_PATIENCE:
            headers["x-should-retry"] = "false"
        if of_anthropic(request):
            headers["request-id"] = call.request_id
            vendors = anthropic_answer.error_body(error, call.request_id)
            status = anthropic_answer.error_status(error, status)
        else:
            vendors = openai.error_body(error)
        return web.Response(body=vendors, status=status, headers=headers, content_type="application/json")
    body = ProblemBody(
        type=TYPES + error.code,
        title=problem.title,
        status=status,
        code=error.code,
        detail=error.detail,
        remedy=problem.remedy,
        request_id=call.request_id,
        trace_id=call.trace_id,
        retry_after_ms=None if error.retry_after is None else math.ceil(error.retry_after * 1000),
        errors=error.errors,
    )
    return web.Response(
        body=msgspec.json.encode(body), status=status, headers=headers, content_type="application/problem+json"
    )


def of_anthropic(request: web.Request) -> bool:
    """Whether a compatible route is Anthropic's; on routes that both vendors have, a header tells."""
    if request.path.startswith(SHARED):
        return "anthropic-version" in request.headers
    return request.path.startswith(ANTHROPIC)


def _from_http(error: web.HTTPException, request: web.Request) -> TidegateError:
    code = _CODES.get(error.status, InvalidRequest.code)
    match error:
        case web.HTTPNotFound():
            return NotFound(f"There is nothing at {request.path[:200]}")
        case web.HTTPMethodNotAllowed():
            return InvalidRequest(f"{request.path[:200]} does not take {request.method[:20]}", code=code)
        case web.HTTPUnauthorized() | web.HTTPForbidden():
            return AccessDenied(code=code)
        case _:
            return InvalidRequest(error.reason if code == InvalidRequest.code else "", code=code)
