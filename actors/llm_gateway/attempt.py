"""One call to a provider: its span, its deadlines, what is told of it, and what it has used."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from opentelemetry.trace import Span

from actors.llm_gateway.answer import Assembly
from actors.llm_gateway.attempt_deps import Commons
from actors.llm_gateway.call_span import close_span, open_span, trace_headers
from actors.llm_gateway.drain import Kept
from actors.llm_gateway.routing import Leg
from actors.llm_gateway.schema import validated
from actors.llm_gateway.usage import used
from actors.upstream.candidates import Trial
from actors.upstream.rate_limit import Ticket
from actors.upstream.timeouts import Watch
from protocol import spans
from protocol.errors import ProviderError, SchemaMismatch, TidegateError
from protocol.events import AttemptFailed, Content
from protocol.gateway import Complete, Completion, Progress
from protocol.ledger import Reservation
from protocol.llm import Attempt, Cost, FinishReason, Usage
from protocol.upstream import AnswerReader, Deltas

if TYPE_CHECKING:
    from actors.llm_gateway.schema import Validator

CANCELLED: Final = "cancelled"


class Call:
    """One attempt at an answer. What it brought is in its attributes, also after a failure.

    A call that is given up after content, by whoever asked, by a deadline or by a bound of ours, is over at once; what
    it has used is found out afterwards: its stream is left to the drain, the attempt is told again, now with its usage,
    and what was held for it is let go of.

    Args:
        trial: who is asked.
        message: what is asked, and who is told.
        number: from 1.
        commons: what it has in common with all others.
        validator: what the answer has to match, unless it asks for tools; None for anything.
        held: what is held for it in whoever's budgets; the call settles it. None where nobody pays.
        sent: as what the target's rate limit counts it.

    Attributes:
        assembly: the answer so far.
        attempt: what has been told of the call; None while it is under way.
        result: the validated JSON of a whole answer; None without a validator, and for calls of tools.
        sent: whether content has been told.
    """

    __slots__ = (
        "_clock",
        "_commons",
        "_drained",
        "_duration",
        "_held",
        "_kept",
        "_leg",
        "_message",
        "_number",
        "_reader",
        "_started",
        "_ticket",
        "_trial",
        "_validator",
        "assembly",
        "attempt",
        "result",
        "sent",
    )

    def __init__(
        self,
        trial: Trial[Leg],
        message: Complete,
        *,
        number: int,
        commons: Commons,
        validator: "Validator | None",
        held: Reservation | None,
        sent: Ticket,
    ) -> None:
        self._trial = trial
        self._leg = trial.leg
        self._ticket = sent
        self._message = message
        self._number = number
        self._commons = commons
        self._clock = commons.clock
        self._validator = validator
        self._held = held
        self._reader: AnswerReader | None = None
        self._kept: Kept | None = None
        self._drained = 0
        self._started = 0.0
        self._duration = 0.0
        self.attempt: Attempt | None = None
        self.assembly = Assembly(commons.max_chars)
        self.result: msgspec.Raw | None = None
        self.sent = False

    @property
    def finish_reason(self) -> FinishReason:
        """Why the model stopped."""
        return (self._reader.finish_reason if self._reader is not None else None) or "stop"

    def completion(self, usage: Usage, cost: Decimal | None) -> Completion:
        """Return the answer, which is whole, with what the request has come to."""
        assembly = self.assembly
        return Completion(
            text=assembly.text,
            tool_calls=assembly.tool_calls,
            reasoning=assembly.reasoning,
            logprobs=assembly.logprobs,
            stop_sequence=self._reader.stop_sequence if self._reader is not None else "",
            result=self.result,
            finish_reason=self.finish_reason,
            usage=usage,
            cost=cost,
            provider=self._leg.upstream.name,
            model=self._leg.model,
        )

    async def run(self, deadline: float, restarts: Callable[[Trial[Leg], TidegateError], bool]) -> None:
        """Ask, and tell content as it comes, the attempt at its end. It runs once.

        Args:
            deadline: when the request is out of time.
            restarts: is asked, when the call has failed after content, or when its whole answer does not match, whether
                the answer begins anew.

        Raises:
            DeadlineExceeded: at ``deadline``.
            SchemaMismatch: the answer is whole but does not match; it has been told, unless another takes its place.
            TidegateError: the attempt failed; with ``sent``, the failure has been told as a boundary in the log.
        """
        self._started = self._clock.time()
        leg, commons = self._leg, self._commons
        span = open_span(
            commons.tracer,
            self._message,
            tracing=commons.tracing,
            provider=leg.upstream.name,
            model=leg.model,
            number=self._number,
        )
        code = CANCELLED
        last: Deltas = []
        try:
            last = await self._read(deadline, span)
            if self._validator is not None and not self.assembly.tool_calls:
                self.result = validated(self.assembly.text, self._validator)
            code = ""
            waited = self._waited(last, span)
            await self._end(code, tuple(last), waited)
        except SchemaMismatch as error:
            code = error.code
            waited = self._waited(last, span)
            stays = self.finish_reason != "stop" or not restarts(self._trial, error)
            void = self._boundary(code, restart=True) if self.sent else ()
            await self._end(code, tuple(last) if stays else void, waited if stays else 0.0)
            raise
        except TidegateError as error:
            code = error.code
            await self._end(code, self._boundary(code, restart=restarts(self._trial, error)) if self.sent else ())
            raise
        except Exception:
            code = "internal_error"
            raise
        finally:
            self._duration = self._duration or self._clock.time() - self._started
            if self.attempt is None or self._pending:
                await self._commons.drain.later(partial(self._afterwards, span, code, time.time_ns()))
            else:
                self._kept = None  # it holds this call, which would keep both until the collector comes
                close_span(span, code, reader=self._reader, attempt=self.attempt)

    async def _read(self, deadline: float, span: Span) -> Deltas:
        """Read the whole answer. The content of the last read is returned, the content before it is told."""
        leg, sink = self._leg, self._message.sink
        provider = leg.upstream.provider
        last: Deltas = []
        kept = self._kept = Kept(provider.stream(self._message.request, leg.model, trace_headers(span)), self._keeps)
        with Watch(self._clock, deadline, leg.first_token) as watch:
            async with kept as stream:
                answer = self._reader = stream.answer
                self._trial.health.window.heard(self._ticket, stream.limits)
                async for pieces in stream:
                    self.assembly.add(pieces)
                    if answer.ended:
                        last = pieces
                    elif pieces:
                        watch.hold()
                        waited = self._waited(pieces, span)
                        if sink is not None:
                            await sink.tell(Progress(events=tuple(pieces), waited=waited))
                        self.sent = True
                        watch.expect(provider.deadlines.between_chunks)
                    elif self.sent:
                        watch.heard()
        return last

    def _waited(self, pieces: Deltas, span: Span) -> float:
        """Return the seconds until the first content, with the first content only."""
        if self.sent or not pieces:
            return 0.0
        waited = self._clock.time() - self._started
        span.set_attribute(spans.GEN_AI_FIRST_CHUNK, waited)
        return waited

    def _keeps(self, error: BaseException) -> bool:
        """Whether a stream that is given up goes to the drain: what it brought is paid for, and more may come."""
        ours = isinstance(error, asyncio.CancelledError) or (
            isinstance(error, ProviderError) and error.code == "response_too_large"
        )
        return ours and self._begun and self._commons.drain.take()

    @property
    def _begun(self) -> bool:
        return self.sent or self.assembly.chars > 0

    @property
    def _pending(self) -> bool:
        """Whether the drain has, or will have, the stream."""
        return self._kept is not None and self._kept.left is not None

    async def _end(self, code: str, events: tuple[Content, ...], waited: float = 0.0) -> None:
        """Tell the end, with what the call has used where that is known by now."""
        self._duration = self._clock.time() - self._started
        attempt = self._attempt(code) if self._pending else await self._settled(code)
        if self._message.sink is not None:
            progress = Progress(events=events, waited=waited, attempt=attempt, number=self._number)
            await self._message.sink.tell(progress)
        self.attempt = attempt

    async def _afterwards(self, span: Span, code: str, ended: int, seconds: float) -> None:
        """Find out what a call has used that is over, and tell it again; a sink that is gone need not know."""
        kept = self._kept
        try:
            if kept is not None and kept.left is not None:
                self._drained = await self._commons.drain.read(kept, seconds)
        finally:
            self.attempt = await self._settled(code)
            close_span(span, code, reader=self._reader, attempt=self.attempt, ended=ended)
            if self._message.sink is not None:
                with suppress(TidegateError):
                    await self._message.sink.tell(Progress(attempt=self.attempt, number=self._number))

    async def _settled(self, code: str) -> Attempt:
        reader = self._reader
        chars = self.assembly.chars + self._drained
        usage, estimated = used(reader, self._message.request, chars, begun=self._begun)
        answered = "" if reader is None else reader.model
        cost = await self._commons.till.settle(self._leg, usage, answered, self._held)
        return self._attempt(code, usage, cost, estimated=estimated)

    def _attempt(
        self, code: str, usage: Usage | None = None, cost: Cost | None = None, *, estimated: bool = False
    ) -> Attempt:
        return Attempt(
            provider=self._leg.upstream.name,
            model=self._leg.model,
            error=code,
            duration_ms=round(self._duration * 1000, 3),
            usage=usage,
            cost=cost,
            estimated=estimated,
        )

    def _boundary(self, code: str, *, restart: bool) -> tuple[AttemptFailed, ...]:
        return (AttemptFailed(provider=self._leg.upstream.name, model=self._leg.model, code=code, restart=restart),)
