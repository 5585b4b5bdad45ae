"""One call to a provider: its span, its deadlines, and what is told of it."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from actors.llm_gateway.answer import Assembly
from actors.llm_gateway.routing import Leg
from actors.llm_gateway.schema import validated
from actors.llm_gateway.watch import Watch
from actors.runtime import Clock
from protocol import spans
from protocol.errors import SchemaMismatch, TidegateError
from protocol.events import AttemptFailed
from protocol.gateway import Complete, Progress
from protocol.llm import Attempt, FinishReason, Usage
from protocol.upstream import AnswerReader, Pieces

if TYPE_CHECKING:
    from jsonschema_rs import Validator

CANCELLED: Final = "cancelled"

_propagator: Final = TraceContextTextMapPropagator()


class Call:
    """One attempt at an answer. What it brought is in its attributes, also after a failure.

    Args:
        leg: who is asked.
        message: what is asked, and who is told.
        number: from 1.
        clock: the time.
        tracer: opens the attempt's span.
        max_chars: the bound on the answer.
        validator: what the answer has to match, unless it asks for tools; None for anything.
        restarts: is asked, when the call has failed after content, or when its whole answer does not match, whether the
            answer begins anew.

    Attributes:
        assembly: the answer so far.
        result: the validated JSON of a whole answer; None without a validator, and for calls of tools.
        usage: its tokens, as far as the provider has reported them.
        sent: whether content has been told.
    """

    __slots__ = (
        "_clock",
        "_leg",
        "_message",
        "_model",
        "_number",
        "_provider",
        "_reader",
        "_restarts",
        "_started",
        "_tracer",
        "_validator",
        "assembly",
        "result",
        "sent",
    )

    def __init__(
        self,
        leg: Leg,
        message: Complete,
        *,
        number: int,
        clock: Clock,
        tracer: Tracer,
        max_chars: int,
        validator: "Validator | None",
        restarts: Callable[[TidegateError], bool],
    ) -> None:
        self._leg = leg
        self._provider = leg.upstream.provider
        self._model = leg.model
        self._message = message
        self._number = number
        self._clock = clock
        self._tracer = tracer
        self._validator = validator
        self._restarts = restarts
        self._reader: AnswerReader | None = None
        self._started = 0.0
        self.assembly = Assembly(max_chars)
        self.result: msgspec.Raw | None = None
        self.sent = False

    @property
    def usage(self) -> Usage:
        """Tokens, as far as the provider has reported them."""
        return (self._reader.usage if self._reader is not None else None) or Usage()

    @property
    def finish_reason(self) -> FinishReason:
        """Why the model stopped."""
        return (self._reader.finish_reason if self._reader is not None else None) or "stop"

    @property
    def stop_sequence(self) -> str:
        """The text at which the model stopped; empty for none, and where it is not said."""
        return self._reader.stop_sequence if self._reader is not None else ""

    @property
    def model(self) -> str:
        """The model as the provider names it in its answer, or as it was asked for."""
        return (self._reader.model if self._reader is not None else "") or self._model

    async def run(self, deadline: float) -> None:
        """Ask, and tell content as it comes, the attempt at its end.

        Raises:
            DeadlineExceeded: at ``deadline``.
            SchemaMismatch: the answer is whole but does not match; it has been told, unless another takes its place.
            TidegateError: the attempt failed; with ``sent``, the failure has been told as a boundary in the log.
        """
        self._started = self._clock.time()
        span = self._span()
        code = CANCELLED
        last: Pieces = []
        try:
            last = await self._ask(deadline, span)
            if self._validator is not None and not self.assembly.tool_calls:
                self.result = validated(self.assembly.text, self._validator)
            code = ""
            await self._tell(Progress(events=tuple(last), waited=self._waited(last, span), attempt=self._attempt()))
        except SchemaMismatch as error:
            code = error.code
            await self._tell(self._mismatched(error, last, span))
            raise
        except TidegateError as error:
            code = error.code
            events = self._boundary(code, restart=self._restarts(error)) if self.sent else ()
            await self._tell(Progress(events=events, attempt=self._attempt(code)))
            raise
        except Exception:
            code = "internal_error"
            raise
        finally:
            self._close(span, code)

    async def _ask(self, deadline: float, span: Span) -> Pieces:
        """Read the whole answer. The content of the last read is returned, the content before it is told."""
        provider = self._provider
        deadlines = provider.deadlines
        last: Pieces = []
        async with (
            Watch(self._clock, deadline, self._leg.first_token) as watch,
            provider.stream(self._message.request, self._model, _headers(span)) as stream,
        ):
            answer = self._reader = stream.answer
            begun = False
            async for pieces in stream:
                self.assembly.add(pieces)
                if answer.ended:
                    last = pieces
                    continue
                if pieces:
                    watch.hold()
                    await self._tell(Progress(events=tuple(pieces), waited=self._waited(pieces, span)))
                    self.sent = True
                    if not begun:
                        begun = True
                        watch.expect(deadlines.between_chunks)
                if begun:
                    watch.heard()
        return last

    def _waited(self, pieces: Pieces, span: Span) -> float:
        """Return the seconds until the first content, with the first content only."""
        if self.sent or not pieces:
            return 0.0
        waited = self._clock.time() - self._started
        span.set_attribute(spans.GEN_AI_FIRST_CHUNK, waited)
        return waited

    async def _tell(self, progress: Progress) -> None:
        if self._message.sink is not None:
            await self._message.sink.tell(progress)

    def _attempt(self, code: str = "") -> Attempt:
        duration = (self._clock.time() - self._started) * 1000
        return Attempt(provider=self._provider.name, model=self._model, error=code, duration_ms=round(duration, 3))

    def _boundary(self, code: str, *, restart: bool) -> tuple[AttemptFailed, ...]:
        return (AttemptFailed(provider=self._provider.name, model=self._model, code=code, restart=restart),)

    def _mismatched(self, error: SchemaMismatch, last: Pieces, span: Span) -> Progress:
        """Say what becomes of a wrong answer: it stays, or what has been told of it is void."""
        waited = self._waited(last, span)
        attempt = self._attempt(error.code)
        if self.finish_reason == "stop" and self._restarts(error):
            return Progress(events=self._boundary(error.code, restart=True) if self.sent else (), attempt=attempt)
        return Progress(events=tuple(last), waited=waited, attempt=attempt)

    def _span(self) -> Span:
        request = self._message.request
        span = self._tracer.start_span(spans.chat(self._model), kind=SpanKind.CLIENT)
        if span.is_recording():
            known: dict[str, str | float | None] = {
                spans.GEN_AI_OPERATION: "chat",
                spans.GEN_AI_PROVIDER: self._provider.name,
                spans.GEN_AI_REQUEST_MODEL: self._model,
                spans.REQUEST_ID: self._message.request_id,
                spans.ATTEMPT: self._number,
                spans.GEN_AI_MAX_TOKENS: request.max_tokens,
                spans.GEN_AI_TEMPERATURE: request.temperature,
                spans.GEN_AI_SEED: request.seed,
            }
            span.set_attributes({name: value for name, value in known.items() if value is not None})
        return span

    def _close(self, span: Span, code: str) -> None:
        if span.is_recording():
            reader = self._reader
            if reader is not None:
                span.set_attribute(spans.GEN_AI_RESPONSE_MODEL, reader.model or self._model)
                span.set_attribute(spans.GEN_AI_RESPONSE_ID, reader.response_id)
                if reader.finish_reason is not None:
                    span.set_attribute(spans.GEN_AI_FINISH_REASONS, (reader.finish_reason,))
                if reader.usage is not None:
                    span.set_attribute(spans.GEN_AI_INPUT_TOKENS, reader.usage.input_tokens)
                    span.set_attribute(spans.GEN_AI_OUTPUT_TOKENS, reader.usage.output_tokens)
                    span.set_attribute(spans.GEN_AI_CACHED_TOKENS, reader.usage.cached_input_tokens)
            if code:
                span.set_attribute(spans.ERROR_TYPE, code)
                span.set_status(StatusCode.ERROR, code)
        span.end()


def _headers(span: Span) -> dict[str, str]:
    headers: dict[str, str] = {}
    if span.get_span_context().is_valid:
        _propagator.inject(headers, set_span_in_context(span))
    return headers
