"""The one layer around every handler: context, access, span, errors, log line; small functions called by one coroutine.

One layer and not five: each middleware of its own costs a coroutine a call.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Middleware
from opentelemetry import context as otel
from opentelemetry.trace import Span, Tracer, set_span_in_context

from service.auth import Authenticator
from service.context import CALL, Call
from service.lifecycle import Lifecycle
from service.middleware.access import PROBES, SOCKET, check_access, check_open
from service.middleware.context import open_call, route_of
from service.middleware.errors import BAD_REQUEST, CLIENT_CLOSED, error_response, failure_of
from service.telemetry.spans import WANTED_TRACE_ID, context_of, end_server_span, start_server_span

DEBUG: Final = 10
INFO: Final = 20
SERVER_NAME: Final = "tidegate"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def call_layer(auth: Authenticator, lifecycle: Lifecycle, tracer: Tracer | None) -> Middleware:
    """Return the middleware of an application; ``stamp_responses`` belongs to it."""
    log = structlog.get_logger("http").bind()
    info, debug = log.is_enabled_for(INFO), log.is_enabled_for(DEBUG)

    @web.middleware
    async def layer(request: web.Request, handler: Handler) -> web.StreamResponse:
        call = open_call(request)
        route = route_of(request)
        counted = route != SOCKET
        if tracer is not None and counted and route not in PROBES:
            call.span = _open_span(tracer, request, call, route)
        context = _context(call)
        token = None if context is None else otel.attach(context)
        if counted:
            lifecycle.enter()
        status = CLIENT_CLOSED
        try:
            await check_access(auth, request, call, route)
            check_open(lifecycle, request, route)
            response = await handler(request)
            status = response.status
        except asyncio.CancelledError:
            call.failure = "client_closed"
            raise
        except Exception as error:  # noqa: BLE001 - the boundary at which every failure becomes an answer
            response = _answer(request, call, error)
            status = CLIENT_CLOSED if call.failure == "client_closed" else response.status
        finally:
            call.response = None  # it holds the request, which holds the call: a cycle for each request otherwise
            if counted:
                lifecycle.leave()
            if token is not None:
                otel.detach(token)
            if call.span is not None:
                end_server_span(call.span, status, call.failure)
            if info if route not in PROBES else debug:
                _write_line(log.debug if route in PROBES else log.info, request, call, status)
        return response

    return layer


def stamp_responses(lifecycle: Lifecycle) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Return the signal that puts the ids on every response, just before its headers are sent."""

    async def stamp(request: web.Request, response: web.StreamResponse) -> None:
        call = request.get(CALL)
        if call is None:
            return
        headers = response.headers
        headers["x-request-id"] = call.request_id
        headers["x-trace-id"] = call.trace_id
        headers["Server"] = SERVER_NAME
        if lifecycle.closing.is_set() and response.status >= 200:  # noqa: PLR2004 - not a protocol switch
            headers["Connection"] = "close"
            response.force_close()
        if not isinstance(response, web.Response):
            call.response = response

    return stamp


def _open_span(tracer: Tracer, request: web.Request, call: Call, route: str) -> Span:
    if call.parent is None:
        WANTED_TRACE_ID.set(int(call.trace_id, 16))
    return start_server_span(tracer, request, route, call.parent)


def _context(call: Call) -> otel.Context | None:
    if call.span is not None:
        return set_span_in_context(call.span)
    return None if call.parent is None else context_of(call.parent)


def _answer(request: web.Request, call: Call, error: Exception) -> web.StreamResponse:
    """Turn a failure into the response; one that comes after the headers can only cut the connection."""
    if isinstance(error, web.HTTPException) and error.status < BAD_REQUEST:
        return error
    if isinstance(error, ConnectionError) and (request.transport is None or request.transport.is_closing()):
        call.failure = "client_closed"
        return call.response or web.Response(status=CLIENT_CLOSED)
    failure = failure_of(error, request)
    call.failure = failure.code
    if call.response is None:
        return error_response(request, call, failure, error)
    if request.transport is not None:
        request.transport.abort()
    return call.response


def _write_line(write: Callable[..., object], request: web.Request, call: Call, status: int) -> None:
    duration_ms = round((time.perf_counter() - call.accepted) * 1000, 2)
    more = {"code": call.failure} if call.failure else {}
    write("http", method=request.method, path=request.path, status=status, ms=duration_ms, **more)
