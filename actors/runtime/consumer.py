"""The CONSUMER span of a traced message: from the handler's start to its reply."""

from functools import partial

from opentelemetry.context import attach, detach
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from actors.runtime.core import Core
from actors.runtime.envelope import Envelope
from actors.runtime.handlers import Handler
from actors.runtime.outstanding import Deferred
from protocol import spans
from protocol.errors import TidegateError

SERVER_FAULT = 500  # a failure with a lower HTTP status is the caller's, and leaves the span's status alone


def open_span(tracer: Tracer, destination: str, envelope: Envelope, now: float) -> Span:
    """Start the span and make it the envelope's context, so that all that is done for the message is below it."""
    span = tracer.start_span(
        spans.process(destination),
        context=envelope.context,
        kind=SpanKind.CONSUMER,
        attributes={
            spans.MESSAGING_SYSTEM: spans.TRACER,
            spans.MESSAGING_OPERATION: "process",
            spans.MESSAGING_OPERATION_TYPE: "process",
            spans.MESSAGING_DESTINATION: destination,
            spans.MESSAGE_TYPE: type(envelope.message).__name__,
            spans.MAILBOX_WAIT: (now - envelope.sent) * 1000,
        },
        record_exception=False,
        set_status_on_exception=False,
    )
    if span.get_span_context().is_valid:
        envelope.context = set_span_in_context(span, envelope.context)
    return span


def close_span(span: Span, error: BaseException | None) -> None:
    """End the span, with ``error.type`` and, where it is not the caller's fault, the status ERROR."""
    if error is not None:
        if isinstance(error, TidegateError):
            kind, fault = error.code, error.problem.status >= SERVER_FAULT
        else:
            kind, fault = type(error).__qualname__, isinstance(error, Exception)
        span.set_attribute(spans.ERROR_TYPE, kind)
        if fault:
            span.set_status(Status(StatusCode.ERROR, kind))
    span.end()


async def handle_traced(core: Core, destination: str, handler: Handler, actor: object, envelope: Envelope) -> object:
    """Handle a message in its sender's context, and in a span of its own if its class wants one."""
    message, span = envelope.message, None
    if core.tracing and message.traced:
        span = open_span(core.tracer, destination, envelope, core.clock.time())
    token = attach(envelope.context)
    try:
        result = await handler(actor, message)
    except BaseException as error:
        if span is not None:
            close_span(span, error)
        raise
    finally:
        detach(token)
    if span is not None:
        if isinstance(result, Deferred) and result.envelope is envelope:
            result.on_close(partial(close_span, span))
        else:
            close_span(span, None)
    return result
