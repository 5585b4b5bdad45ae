"""One batch upstream: its attempts, their spans, and whose input it was that a provider refused."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from actors.embeddings.embedder import Embedder, Target
from actors.llm_gateway.admission import Lane
from actors.llm_gateway.retry import RetryPolicy
from actors.llm_gateway.watch import Watch, pause
from actors.runtime import Clock
from protocol import spans
from protocol.embeddings import Input, Vectors, size_of
from protocol.errors import TidegateError

CANCELLED: Final = "cancelled"
REFUSED: Final = "provider_rejected"

_propagator: Final = TraceContextTextMapPropagator()


class Found(msgspec.Struct, frozen=True):
    """The vector of an input, and its share of the tokens of its call."""

    vector: bytes
    tokens: int


Outcome = Found | TidegateError


class BatchCall(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that goes upstream.

    Attributes:
        embedder: who is asked.
        target: for which model, and how.
        inputs: what is asked for.
        groups: the inputs of each request that waits, by their places among ``inputs``.
        contexts: the requests' places in the trace; the first one's is the parent, the others' are linked to.
        deadline: when all of them are out of time.
        lane: the embedder's concurrency.
        retry: when a failed attempt is followed by another.
        clock: the time.
        tracer: opens the attempts' spans.
    """

    embedder: Embedder
    target: Target
    inputs: tuple[Input, ...]
    groups: tuple[tuple[int, ...], ...]
    contexts: tuple[Context, ...]
    deadline: float
    lane: Lane
    retry: RetryPolicy
    clock: Clock
    tracer: Tracer

    async def run(self) -> tuple[Outcome, ...]:
        """Return what became of each input.

        Where the provider refuses a batch of several requests, each of them is sent by itself: the fault of one is not
        the others', and these are no more calls than there would have been without batches.
        """
        outcomes = await self._outcomes(range(len(self.inputs)))
        if len(self.groups) > 1 and _refused(outcomes[0]):
            for group in self.groups:
                lacking = [place for place in group if not isinstance(outcomes[place], Found)]
                for place, outcome in zip(lacking, await self._outcomes(lacking), strict=True):
                    outcomes[place] = outcome
        return tuple(outcomes)

    async def _outcomes(self, places: Sequence[int]) -> list[Outcome]:
        inputs = tuple(self.inputs[place] for place in places)
        if not inputs:
            return []
        try:
            answer = await self._admitted(inputs)
        except TidegateError as error:
            return [error] * len(inputs)
        return list(map(Found, answer.vectors, shares(answer.tokens or 0, list(map(size_of, inputs)))))

    async def _admitted(self, inputs: tuple[Input, ...]) -> Vectors:
        if self.lane.free:
            await self.lane.enter()
        else:
            async with Watch(self.clock, self.deadline):
                await self.lane.enter()
        try:
            return await self._attempts(inputs)
        finally:
            self.lane.leave()

    async def _attempts(self, inputs: tuple[Input, ...]) -> Vectors:
        number = 0
        while True:
            number += 1
            try:
                return await self._attempt(inputs, number)
            except TidegateError as error:
                delay = self.retry.delay(number, error, self.deadline - self.clock.time())
                if delay is None:
                    raise
            await pause(self.clock, delay)

    async def _attempt(self, inputs: tuple[Input, ...], number: int) -> Vectors:
        target = self.target
        span = self._span(len(inputs), number)
        code = CANCELLED
        try:
            async with Watch(self.clock, self.deadline, self.embedder.limits.timeout):
                answer = await self.embedder.embed(
                    inputs, target.model, target.dimensions, _extra(target), _headers(span)
                )
            code = ""
            span.set_attribute(spans.GEN_AI_RESPONSE_MODEL, answer.model or target.model)
            if answer.tokens is not None:
                span.set_attribute(spans.GEN_AI_INPUT_TOKENS, answer.tokens)
        except TidegateError as error:
            code = error.code
            raise
        except Exception:
            code = "internal_error"
            raise
        else:
            return answer
        finally:
            if code:
                span.set_attribute(spans.ERROR_TYPE, code)
                span.set_status(StatusCode.ERROR, code)
            span.end()

    def _span(self, count: int, number: int) -> Span:
        target = self.target
        known: dict[str, str | int | tuple[str, ...] | None] = {
            spans.GEN_AI_OPERATION: "embeddings",
            spans.GEN_AI_PROVIDER: target.provider,
            spans.GEN_AI_REQUEST_MODEL: target.model,
            spans.GEN_AI_ENCODING_FORMATS: ("base64",),
            spans.GEN_AI_DIMENSIONS: target.dimensions,
            spans.INPUTS: count,
            spans.ATTEMPT: number,
        }
        others = (get_current_span(context).get_span_context() for context in self.contexts[1:])
        return self.tracer.start_span(
            spans.embeddings(target.model),
            context=self.contexts[0],
            kind=SpanKind.CLIENT,
            attributes={name: value for name, value in known.items() if value is not None},
            links=[Link(other) for other in others if other.is_valid],
            record_exception=False,
            set_status_on_exception=False,
        )


def shares(tokens: int, sizes: Sequence[int]) -> list[int]:
    """Share ``tokens`` out by size, in whole numbers whose sum is ``tokens``: an upstream names only the sum."""
    total = sum(sizes)
    given = [tokens * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda place: tokens * sizes[place] % total, reverse=True)
    for place in by_remainder[: tokens - sum(given)]:
        given[place] += 1
    return given


def _refused(outcome: Outcome) -> bool:
    return isinstance(outcome, TidegateError) and outcome.code == REFUSED


def _extra(target: Target) -> Mapping[str, Any]:
    return msgspec.msgpack.decode(target.extra, type=dict[str, Any]) if target.extra else {}


def _headers(span: Span) -> dict[str, str]:
    headers: dict[str, str] = {}
    if span.get_span_context().is_valid:
        _propagator.inject(headers, set_span_in_context(span))
    return headers
