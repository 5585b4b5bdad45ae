"""The middleware around every handler: context, access, span, errors and log line.

One middleware and not five, because each costs a coroutine a call.
"""

import asyncio
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Middleware
from opentelemetry import context as otel
from opentelemetry.trace import Span, Tracer, set_span_in_context

from actors.rate_limits import RateLimits
from actors.requests.outcome import LOGGER
from protocol import spans
from protocol.errors import RETRY_ELSEWHERE, ShuttingDown, TidegateError
from protocol.log_fields import OutsideTexts
from service.auth.authenticator import Authenticator
from service.auth.grants import Grants
from service.auth.origins import SOCKET, OriginPolicy
from service.context import CALL, SERVER_NAME, CallContext, container_of
from service.lifecycle import Lifecycle
from service.middleware.access import PROBES, check_access, check_open
from service.middleware.context import open_call, route_of
from service.middleware.cors import open_cors
from service.middleware.errors import (
    BAD_REQUEST,
    CLIENT_CLOSED,
    SERVER_ERROR,
    UNAUTHENTICATED,
    error_response,
    failure_of,
)
from service.middleware.limit_headers import limit_headers
from service.middleware.limits import CallLimits
from service.middleware.unauthenticated import UnauthenticatedLines
from service.security_headers import RESPONSE
from service.telemetry.spans import TRACE_ID, WANTED_TRACE_ID, context_of, end_server_span, start_server_span

UNAVAILABLE: Final = 503
LEFT: Final = frozenset({"client_closed", "slow_consumer"})  # failures of clients that get no answer
OUTSIDE: Final = OutsideTexts(("method", "path", "code", "request_id", "trace_id", "tenant"))

Token = contextvars.Token[otel.Context]
Write = Callable[..., object]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _CallRecorder:
    """Opens and ends the span of each call, counts the call, and writes its log lines.

    Args:
        lifecycle: counts running calls.
        tracer: makes the spans; None for none.
        grants: has the calls that are open by each credential.
    """

    __slots__ = ("_debug", "_grants", "_info", "_lifecycle", "_one_line", "_refused", "_tracer", "_warning")

    def __init__(self, lifecycle: Lifecycle, tracer: Tracer | None, grants: Grants) -> None:
        log = structlog.get_logger("service.http", OUTSIDE).bind()
        self._warning: Write | None = log.warning if log.is_enabled_for(logging.WARNING) else None
        self._info: Write | None = log.info if log.is_enabled_for(logging.INFO) else None
        self._debug: Write | None = log.debug if log.is_enabled_for(logging.DEBUG) else None
        self._one_line = logging.getLogger(LOGGER).isEnabledFor(logging.INFO)
        self._lifecycle = lifecycle
        self._refused = UnauthenticatedLines()
        self._tracer = tracer
        self._grants = grants

    def begin(self, request: web.Request, call: CallContext, route: str) -> Token | None:
        """Open the span and count the call; returns the token that detaches the span's context."""
        if route != SOCKET:
            if self._tracer is not None and route not in PROBES:
                call.span = _open_span(self._tracer, request, call, route)
            self._lifecycle.enter(call, request.task)
        if self._debug is not None:
            self._debug("http_started", method=request.method, path=request.path, route=route)
        return None if call.span is None and call.parent is None else otel.attach(_context(call))

    def end(self, request: web.Request, call: CallContext, route: str, status: int, token: Token | None) -> None:
        """End the span, stop counting the call, and write its log line."""
        call.ended = True
        if call.hold is not None:
            call.hold.release()
        call.response = call.stop = None  # they refer to the request, and it to the call: that would be a cycle
        call.leave_grants(self._grants)
        if route != SOCKET:
            self._lifecycle.leave(call)
        if call.body_bytes:
            container_of(request).bodies.give_back(call)
        if token is not None:
            otel.detach(token)
        if call.span is not None:
            end_server_span(call.span, status, call.failure)
        if status == UNAUTHENTICATED and not self._refused.shows(self._warning):
            return
        write = self._info if status < SERVER_ERROR else self._warning
        if route in PROBES or (self._one_line and call.outcome_logged and status < BAD_REQUEST and not call.failure):
            write = self._debug
        if write is not None:
            _write_line(write, request, call, status)


def call_layer(
    auth: Authenticator,
    lifecycle: Lifecycle,
    tracer: Tracer | None,
    origins: OriginPolicy | None = None,
    limits: RateLimits | None = None,
) -> Middleware:
    """Return the middleware of an application; ``stamp_responses`` has to be installed with it.

    Args:
        auth: authenticates callers.
        lifecycle: counts running calls.
        tracer: makes the spans; None for none.
        origins: decides which pages may call; None for the service's own alone.
        limits: decides whether a limited caller may go on; None to let all go on.
    """
    origins = origins or OriginPolicy()
    recorder = _CallRecorder(lifecycle, tracer, auth.grants)
    limited = CallLimits(limits)

    @web.middleware
    async def layer(request: web.Request, handler: Handler) -> web.StreamResponse:
        call = open_call(request)
        route = route_of(request)
        token = recorder.begin(request, call, route)
        status = CLIENT_CLOSED
        try:
            preflight = open_cors(origins, request, call, route) if hdrs.ORIGIN in request.headers else None
            if preflight is None:
                pending = check_access(auth, origins, request, call, route)
                if pending is not None:
                    await pending
                if call.principal.plan is not None:
                    taking = limited.admit(request, call, route)
                    if taking is not None:
                        await taking
                if lifecycle.closing.is_set():
                    check_open(lifecycle, request, route)
            response = preflight or await handler(request)
            status = response.status
        except asyncio.CancelledError:
            reason = _reason_of(call, lifecycle)
            if reason is None:
                status = _cancelled(call, forced=lifecycle.forced.is_set())
                raise
            response = _answer(request, call, reason)
            status = response.status
        except Exception as error:  # noqa: BLE001 - the boundary at which every failure becomes an answer
            response = _answer(request, call, error)
            status = CLIENT_CLOSED if call.failure in LEFT else response.status
            await limited.count_refused(call, route, status)
        finally:
            recorder.end(request, call, route, status, token)
        return _closing(response) if lifecycle.closing.is_set() else response

    return layer


def stamp_responses(lifecycle: Lifecycle) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Return the signal handler that sets the ids on every response, just before its headers are sent."""

    async def stamp_response(request: web.Request, response: web.StreamResponse) -> None:
        call = request.get(CALL)
        if call is None:
            return
        stamp(response, call)
        if lifecycle.closing.is_set() and response.status >= 200:  # noqa: PLR2004 - not a protocol switch
            response.headers["Connection"] = "close"
            response.force_close()
        if not call.ended:
            call.response = response

    return stamp_response


def stamp(response: web.StreamResponse, call: CallContext) -> None:
    """Set the headers that every response has: the ids of its call, the server's name, and what browsers may do."""
    headers = response.headers
    headers["x-request-id"] = call.request_id
    headers["x-trace-id"] = call.trace_id
    headers["Server"] = SERVER_NAME
    for name, value in RESPONSE.items():
        headers.setdefault(name, value)
    if call.cors:
        headers.update(call.cors)
    if call.limits:
        headers.update(limit_headers(call.limits, time.time()))


def _reason_of(call: CallContext, lifecycle: Lifecycle) -> TidegateError | None:
    """Return the failure with which the service itself has cancelled a call; None where somebody else has."""
    if call.take_denial():
        return call.denied
    return ShuttingDown(retry_after=RETRY_ELSEWHERE) if lifecycle.take_interrupt(call) else None


def _cancelled(call: CallContext, *, forced: bool) -> int:
    """Name the failure of a cancelled call, and return its status: the client has left, or the server stops."""
    if not forced:
        call.failure = call.failure if call.failure in LEFT else "client_closed"
        return CLIENT_CLOSED
    call.failure = ShuttingDown.code
    return UNAVAILABLE if call.response is None else call.response.status


def _closing(response: web.StreamResponse) -> web.StreamResponse:
    """Close the connection after a response, also where its headers have said otherwise."""
    response.force_close()
    return response


def _open_span(tracer: Tracer, request: web.Request, call: CallContext, route: str) -> Span:
    """Start the span of a call: in the trace that ``call.trace_id`` names, or with that name as an attribute."""
    named = not TRACE_ID.fullmatch(call.trace_id)
    if call.parent is None:
        WANTED_TRACE_ID.set(0 if named else int(call.trace_id, 16))
    span = start_server_span(tracer, request, route, call.parent)
    if named:
        span.set_attribute(spans.TRACE_NAME, call.trace_id)
    return span


def _context(call: CallContext) -> otel.Context:
    return context_of(call.parent) if call.span is None else set_span_in_context(call.span)


def _answer(request: web.Request, call: CallContext, error: Exception) -> web.StreamResponse:
    """Return the response for a failure; after the headers were sent, the connection is aborted instead."""
    if isinstance(error, web.HTTPException) and error.status < BAD_REQUEST:
        return error
    if isinstance(error, web.HTTPException):
        error.__traceback__ = None  # the request keeps the error of its route; the frames hold the request
    if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
        call.failure = call.failure if call.failure in LEFT else "client_closed"
        return call.response or web.Response(status=CLIENT_CLOSED)
    failure = failure_of(error, request)
    call.failure = failure.code
    if call.response is None:
        return error_response(request, call, failure, error)
    if request.transport is not None:
        request.transport.abort()
    return call.response


def _write_line(write: Write, request: web.Request, call: CallContext, status: int) -> None:
    duration_ms = round((time.perf_counter() - call.accepted) * 1000, 2)
    extra = {"code": call.failure} if call.failure else {}
    extra["request_id"] = call.request_id
    write("http", status=status, ms=duration_ms, method=request.method, path=request.path, **extra)
