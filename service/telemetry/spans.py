"""The SERVER span of an HTTP call, and its trace context."""

import re
from contextvars import ContextVar
from typing import Final

from aiohttp import web
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)

from protocol import spans
from protocol.secret_text import hide_keys

TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
TRACE_ID: Final = re.compile(r"(?!0{32})[0-9a-f]{32}")
WANTED_TRACE_ID: Final = ContextVar[int]("tidegate_wanted_trace_id", default=0)

MAX_TRACE_NAME: Final = 128  # characters
NO_TRACE: Final = "0" * 32
SERVER_ERROR: Final = 500


def remote_parent(request: web.BaseRequest) -> SpanContext | None:
    """Return the caller's span from ``traceparent``; None for a missing or malformed header."""
    header = request.headers.get("traceparent")
    match = TRACEPARENT.fullmatch(header.strip()) if header else None
    if match is None or (match[0].startswith("00") and match[4]):
        return None
    state = request.headers.getall("tracestate", None)
    return SpanContext(
        trace_id=int(match[1], 16),
        span_id=int(match[2], 16),
        is_remote=True,
        trace_flags=TraceFlags(int(match[3], 16)),
        trace_state=TraceState.from_header(state) if state else None,
    )


def wanted_trace_id(request: web.BaseRequest) -> str:
    """Return the caller's ``x-trace-id``: 32 hex digits in lower case, or another name as it is.

    It is empty where there is none, and for one that is no id (32 zeros), is longer than ``MAX_TRACE_NAME`` characters,
    has any that can't be printed, or looks like a key.
    """
    header = request.headers.get("x-trace-id")
    if header is None:
        return ""
    name = header.strip()
    wanted = name.lower()
    if TRACE_ID.fullmatch(wanted):
        return wanted
    valid = len(name) <= MAX_TRACE_NAME and name.isprintable() and wanted != NO_TRACE
    return name if valid and hide_keys(name) == name else ""


def context_of(parent: SpanContext | None) -> Context:
    """Return a context with only the remote parent."""
    return Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())


def start_server_span(tracer: Tracer, request: web.Request, route: str, parent: SpanContext | None) -> Span:
    """Start the span of a call; ``route`` is the matched route's template, empty for none."""
    attributes: dict[str, str | int] = {spans.HTTP_METHOD: request.method, spans.URL_PATH: hide_keys(request.path)}
    if route:
        attributes[spans.HTTP_ROUTE] = route
    name = f"{request.method} {route}" if route else request.method
    return tracer.start_span(name, context_of(parent), SpanKind.SERVER, attributes)


def end_server_span(span: Span, status: int, failure: str) -> None:
    """End the span of a call. Only server errors set the span's error status."""
    span.set_attribute(spans.HTTP_STATUS, status)
    if status >= SERVER_ERROR:
        span.set_attribute(spans.ERROR_TYPE, failure or str(status))
        span.set_status(Status(StatusCode.ERROR))
    elif failure:
        span.set_attribute(spans.ERROR_TYPE, failure)
    span.end()
