"""Span of one attempt at a provider."""

from typing import Final

from opentelemetry.context import get_current
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from protocol import spans
from protocol.gateway import Complete
from protocol.llm import Attempt as AttemptReport
from protocol.upstream import AnswerReader

_propagator: Final = TraceContextTextMapPropagator()


def open_span(tracer: Tracer, message: Complete, *, tracing: bool, provider: str, model: str, number: int) -> Span:
    """Open the span of attempt ``number`` of a request; an invalid one where nothing is traced."""
    if not tracing and not get_current():
        return INVALID_SPAN
    request = message.request
    span = tracer.start_span(spans.chat(model), kind=SpanKind.CLIENT)
    if span.is_recording():
        known: dict[str, str | float | None] = {
            spans.GEN_AI_OPERATION: "chat",
            spans.GEN_AI_PROVIDER: provider,
            spans.GEN_AI_REQUEST_MODEL: model,
            spans.REQUEST_ID: message.request_id,
            spans.ATTEMPT: number,
            spans.GEN_AI_MAX_TOKENS: request.max_tokens,
            spans.GEN_AI_TEMPERATURE: request.temperature,
            spans.GEN_AI_SEED: request.seed,
        }
        span.set_attributes({name: value for name, value in known.items() if value is not None})
    return span


def close_span(
    span: Span, code: str, *, reader: AnswerReader | None, report: AttemptReport | None, ended: int | None = None
) -> None:
    """End the span.

    Args:
        span: of the attempt.
        code: of the failure; empty for none.
        reader: has read the answer; None where none came.
        report: of the attempt; None where there is none.
        ended: when the attempt ended, in nanoseconds; None for now.
    """
    if span is INVALID_SPAN:
        return
    if span.is_recording():
        if reader is not None:
            if reader.model:
                span.set_attribute(spans.GEN_AI_RESPONSE_MODEL, reader.model)
            span.set_attribute(spans.GEN_AI_RESPONSE_ID, reader.response_id)
            if reader.finish_reason is not None:
                reason = reader.raw_finish_reason or reader.finish_reason
                span.set_attribute(spans.GEN_AI_FINISH_REASONS, (reason,))
        usage = None if report is None else report.usage
        if usage is not None:
            span.set_attribute(spans.GEN_AI_INPUT_TOKENS, usage.input_tokens)
            span.set_attribute(spans.GEN_AI_OUTPUT_TOKENS, usage.output_tokens)
            span.set_attribute(spans.GEN_AI_CACHED_TOKENS, usage.cached_input_tokens)
        if code:
            span.set_attribute(spans.ERROR_TYPE, code)
            span.set_status(StatusCode.ERROR, code)
    span.end(ended)


def trace_headers(span: Span) -> dict[str, str]:
    """Return the headers that let the provider join the trace; none without a trace."""
    headers: dict[str, str] = {}
    if span is not INVALID_SPAN and span.get_span_context().is_valid:
        _propagator.inject(headers, set_span_in_context(span))
    return headers
