"""One attempt at an answer: its span, its timeouts, the progress it sends, and its usage."""

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from opentelemetry.trace import Span

from actors.llm_gateway.answer import Assembly
from actors.llm_gateway.attempt_deps import AttemptDeps
from actors.llm_gateway.call_span import close_span, open_span, trace_headers
from actors.llm_gateway.drain import DeferredClose
from actors.llm_gateway.routing import ResolvedTarget
from actors.llm_gateway.schema import unoffered
from actors.llm_gateway.usage import is_large, used
from actors.upstream.admission import Admission
from actors.upstream.candidates import Candidate
from actors.upstream.timeouts import TimeoutScope
from protocol import spans
from protocol.errors import ProviderError, SchemaMismatch, TidegateError
from protocol.events import AttemptFailed, Content
from protocol.gateway import Complete, Completion, Progress
from protocol.llm import Attempt as AttemptReport
from protocol.llm import Cost, FinishReason, Usage
from protocol.upstream import AnswerReader, Deltas

if TYPE_CHECKING:
    from actors.llm_gateway.schema import Validator

CANCELLED: Final = "cancelled"
UNSURE: Final = ("other", "tool_calls")  # finish reasons whose answer is looked at before it counts
CUT: Final[dict[FinishReason, str]] = {
    "length": "The answer was cut short: finish reason `length`",
    "content_filter": "The answer was withheld or cut short: finish reason `content_filter`",
}
"""Why an answer that ended so does not match its schema."""
REFUSED: Final = "The model refused to answer"
LEAST_WAIT: Final = 1e-6  # seconds until the first content: a coarse clock may show none
PAUSED: Final = "The answer was paused: stop reason `pause_turn`"
LAST_SILENCE: Final = 5.0  # seconds after the finish reason: longer than a stream waits for its end by itself

_log = logging.getLogger("tidegate.gateway")


class Attempt:
    """One call to a provider. What it brought is in its attributes, also after a failure.

    ::

        new ──run──► reading ──whole answer or failure──► reported
                        └──cancelled after content──► draining ──usage──► reported

    An attempt that is ended after content by the asker, a deadline or one of our bounds ends at once, and its usage is
    found afterwards: the drain reads its stream on, then the sink receives the report again, now with the usage, and
    the room in budgets is settled.

    Args:
        candidate: the target.
        message: the request, and the sink of its progress.
        number: from 1.
        deps: what all requests share.
        validator: of the answer, unless it calls tools; None for none.
        admission: the call's; the attempt takes over its budget hold.

    Attributes:
        assembly: the answer so far.
        report: what the sink has received about the attempt; None before its end.
        result: the validated JSON of a whole answer; None without a validator, and for calls of the caller's tools.
        content_sent: whether the sink has received content.
        duration: seconds from sending to the end; 0 before that.
    """

    __slots__ = (
        "_admission",
        "_candidate",
        "_clock",
        "_deferred",
        "_deps",
        "_drained",
        "_hold",
        "_message",
        "_number",
        "_reader",
        "_started",
        "_target",
        "_validator",
        "_warning",
        "assembly",
        "content_sent",
        "duration",
        "report",
        "result",
    )

    def __init__(
        self,
        candidate: Candidate[ResolvedTarget],
        message: Complete,
        *,
        number: int,
        deps: AttemptDeps,
        validator: "Validator | None",
        admission: Admission,
    ) -> None:
        self._candidate = candidate
        self._target = candidate.target
        self._admission = admission
        self._hold = admission.take_hold()
        self._message = message
        self._number = number
        self._deps = deps
        self._clock = deps.clock
        self._validator = validator
        self._reader: AnswerReader | None = None
        self._deferred: DeferredClose | None = None
        self._drained = 0
        self._started = 0.0
        self.duration = 0.0
        self._warning = ""
        self.report: AttemptReport | None = None
        self.assembly = Assembly(deps.max_chars)
        self.result: msgspec.Raw | None = None
        self.content_sent = False

    @property
    def finish_reason(self) -> FinishReason:
        """Why the model stopped."""
        return (self._reader.finish_reason if self._reader is not None else None) or "other"

    def completion(self, usage: Usage, cost: Decimal | None) -> Completion:
        """Return the answer, which is whole, with the usage and the cost of all the request's attempts."""
        assembly, reader = self.assembly, self._reader
        return Completion(
            parts=assembly.parts,
            logprobs=assembly.logprobs,
            stop_sequence=reader.stop_sequence if reader is not None else "",
            extra=reader.extra if reader is not None else {},
            result=self.result,
            finish_reason=self.finish_reason,
            raw_finish_reason=reader.raw_finish_reason if reader is not None else "",
            usage=usage,
            cost=cost,
            provider=self._target.endpoint.name,
            model=self._target.model,
        )

    async def run(self, deadline: float, restarts: Callable[[Candidate[ResolvedTarget], TidegateError], bool]) -> None:
        """Call the provider, and send the sink content as it comes and the report at the end. It runs once.

        Args:
            deadline: when the request is out of time.
            restarts: decides whether the answer begins anew: called when the attempt has failed after content, or when
                its whole answer does not match.

        Raises:
            DeadlineExceeded: at ``deadline``.
            SchemaMismatch: the answer is whole but does not match; the sink has received it, unless it begins anew.
            TidegateError: the attempt failed; after content the sink has received a boundary.
        """
        self._started = self._clock.time()
        target, deps = self._target, self._deps
        span = open_span(
            deps.tracer,
            self._message,
            tracing=deps.tracing,
            provider=target.endpoint.name,
            model=target.model,
            number=self._number,
        )
        code = CANCELLED
        last: Deltas = []
        try:
            last = await self._read(deadline, span)
            last += self.assembly.finish()
            if self.finish_reason in UNSURE:
                self._check_end()
            if self._validator is not None and not self._calls_tools:
                self.result = await self._validated(self._validator, deadline)
            code = ""
            waited = self._first_content(last, span)
            await self._end(code, tuple(last), waited)
        except SchemaMismatch as error:
            code = error.code
            waited = self._first_content(last, span)
            stays = self._cut or not restarts(self._candidate, error)
            void = self._boundary(code, restart=True) if self.content_sent else ()
            await self._end(code, tuple(last) if stays else void, waited if stays else 0.0)
            raise
        except TidegateError as error:
            code = error.code
            sent = self.content_sent
            await self._end(code, self._boundary(code, restart=restarts(self._candidate, error)) if sent else ())
            raise
        except Exception:
            code = "internal_error"
            raise
        finally:
            self.duration = self.duration or self._clock.time() - self._started
            if self.report is None or self._draining:
                await deps.drain.later(partial(self._afterwards, span, code, time.time_ns()))
            else:
                self._deferred = None  # it holds this attempt, which would keep both until the collector comes
                close_span(span, code, reader=self._reader, report=self.report)

    async def _read(self, deadline: float, span: Span) -> Deltas:
        """Read the whole answer. Returns the content of the last read; the sink receives the content before it."""
        target, sink = self._target, self._message.sink
        provider = target.endpoint.provider
        last: Deltas = []
        finishing = False
        stream_context = provider.stream(self._message.request, target.model, trace_headers(span))
        deferred = self._deferred = DeferredClose(stream_context, self._defers)
        with TimeoutScope(self._clock, deadline, target.first_token) as timeouts:
            async with deferred as stream:
                answer = self._reader = stream.answer
                self._admission.learn(stream.limits)
                async for pieces in stream:
                    self.assembly.add(pieces)
                    if answer.ended:
                        last = pieces
                    elif pieces:
                        timeouts.pause_silence()
                        waited = self._first_content(pieces, span)
                        if sink is not None:
                            counted = None if self.content_sent else answer.usage
                            await sink.tell(Progress(events=tuple(pieces), waited=waited, counted=counted))
                        self.content_sent = True
                        timeouts.limit_silence(provider.deadlines.between_chunks)
                    elif self.content_sent:
                        timeouts.stay_alive()
                    if answer.finish_reason is not None and not answer.ended and (pieces or not finishing):
                        finishing = True
                        timeouts.limit_silence(_at_least(provider.deadlines.between_chunks, LAST_SILENCE))
        return last

    def _check_end(self) -> None:
        """Check that the answer has what its end needs: calls, or any content for an unknown reason, which is logged.

        Raises:
            ProviderError: ``provider_bad_response``: it ended for its calls and has none; or for an unknown reason,
                without a text, a call and a refusal.
        """
        reader = self._reader
        if reader is None:
            return
        if self.finish_reason == "tool_calls":
            if not self.assembly.tool_calls:
                raise ProviderError(code="provider_bad_response")
            return
        if not (self.assembly.text or self.assembly.tool_calls or reader.refused):
            raise ProviderError(code="provider_bad_response")
        self._warning = f"unknown finish reason {reader.raw_finish_reason!r}"
        target = self._target
        provider, model = target.endpoint.name, target.model
        fields: dict[str, object] = {
            "provider": provider,
            "model": model,
            "request_id": self._message.request_id,
            "attempt": self._number,
            "finish": reader.raw_finish_reason,
        }
        _log.warning(
            "%s/%s ended an answer with an %s",
            provider,
            model,
            self._warning,
            extra={"event": "finish_reason_unknown", "fields": fields},
        )

    @property
    def _calls_tools(self) -> bool:
        """Whether the answer calls tools that the caller has offered. Other calls are no answer to a schema."""
        request = self._message.request
        offered = bool(request.tools) and request.tool_choice != "none"
        return bool(self.assembly.tool_calls) and (offered or "functions" in request.extra)

    @property
    def _cut(self) -> bool:
        """Whether the model can't be asked to repair the answer: it did not stop by itself, or refused."""
        reader = self._reader
        stopped = self.finish_reason in ("stop", "tool_calls")
        return not stopped or (reader is not None and (reader.refused or self._paused))

    @property
    def _paused(self) -> bool:
        return self._reader is not None and self._reader.raw_finish_reason == "pause_turn"

    async def _validated(self, validator: "Validator", deadline: float) -> msgspec.Raw | None:
        """Return the answer's JSON; None where it is cut short or refused, for a caller of a vendor's dialect.

        Vendors give such an answer as it is, with its finish reason.

        Raises:
            SchemaMismatch: it does not match; for a native caller also why.
        """
        try:
            if self.assembly.tool_calls:
                raise unoffered(self.assembly.text, self.assembly.tool_calls)
            with TimeoutScope(self._clock, deadline):
                return await self._deps.schemas.validated(self.assembly.text, validator)
        except SchemaMismatch as error:
            refused = self._reader is not None and self._reader.refused
            reason = REFUSED if refused else PAUSED if self._paused else CUT.get(self.finish_reason)
            if reason is None:
                raise
            if self._message.request.dialect != "native":
                return None
            raise SchemaMismatch(reason, raw=error.raw, errors=error.errors) from error

    def _first_content(self, pieces: Deltas, span: Span) -> float:
        """Return the seconds until the first content, and set them in the span; 0 for any later content."""
        if self.content_sent or not pieces:
            return 0.0
        waited = max(self._clock.time() - self._started, LEAST_WAIT)
        span.set_attribute(spans.GEN_AI_FIRST_CHUNK, waited)
        return waited

    def _defers(self, error: BaseException) -> bool:
        """Whether the stream goes to the drain after this failure: its content is paid for, and more may come."""
        ours = isinstance(error, asyncio.CancelledError) or (
            isinstance(error, ProviderError) and error.code == "response_too_large"
        )
        return ours and self._begun and self._deps.drain.take()

    @property
    def _begun(self) -> bool:
        return self.content_sent or self.assembly.chars > 0

    @property
    def _draining(self) -> bool:
        """Whether the drain has, or will have, the stream."""
        return self._deferred is not None and self._deferred.stream_left is not None

    async def _end(self, code: str, events: tuple[Content, ...], waited: float = 0.0) -> None:
        """Send the sink the end of the attempt, with its usage where that is known by now."""
        self.duration = self._clock.time() - self._started
        report = self._report(code) if self._draining else await self._settled(code)
        if self._message.sink is not None:
            progress = Progress(events=events, waited=waited, attempt=report, number=self._number)
            await self._message.sink.tell(progress)
        self.report = report

    async def _afterwards(self, span: Span, code: str, ended: int, seconds: float) -> None:
        """Find the usage of an attempt that has ended, and send it to the sink, which may be gone by then."""
        deferred = self._deferred
        try:
            if deferred is not None and deferred.stream_left is not None:
                self._drained = await self._deps.drain.read(deferred, seconds)
        finally:
            self.report = await self._settled(code)
            self._deferred = None  # as in ``run``
            close_span(span, code, reader=self._reader, report=self.report, ended=ended)
            if self._message.sink is not None:
                with suppress(TidegateError):
                    await self._message.sink.tell(Progress(attempt=self.report, number=self._number))

    async def _settled(self, code: str) -> AttemptReport:
        """Settle the budget hold, and return the report with usage and cost."""
        reader, chars = self._reader, self.assembly.chars
        begun = self.content_sent or chars > 0
        doubtful = reader is not None and reader.usage is not None and is_large(reader.usage)
        window = await self._deps.budget.window(self._target) if doubtful else None
        usage, estimated = used(reader, self._message.request, chars + self._drained, begun=begun, window=window)
        answered = "" if reader is None else reader.model
        cost = await self._deps.budget.charge(self._hold, self._target, usage, answered=answered)
        return self._report(code, usage, cost, estimated=estimated)

    def _report(
        self, code: str, usage: Usage | None = None, cost: Cost | None = None, *, estimated: bool = False
    ) -> AttemptReport:
        return AttemptReport(
            provider=self._target.endpoint.name,
            model=self._target.model,
            error=code,
            duration_ms=round(self.duration * 1000, 3),
            usage=usage,
            cost=cost,
            estimated=estimated,
            warning=self._warning,
        )

    def _boundary(self, code: str, *, restart: bool) -> tuple[AttemptFailed, ...]:
        target = self._target
        return (AttemptFailed(provider=target.endpoint.name, model=target.model, code=code, restart=restart),)


def _at_least(seconds: float | None, least: float) -> float | None:
    return None if seconds is None else max(seconds, least)
