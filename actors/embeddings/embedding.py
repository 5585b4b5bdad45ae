"""One call for vectors on its way over its targets: who is asked next, when, and what each attempt is in the trace."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from actors.embeddings.budget import estimate
from actors.embeddings.embedder import Target
from actors.embeddings.sources import Leg
from actors.runtime import Clock
from actors.upstream.candidates import Trial, Trials
from actors.upstream.retry import RetryPolicy
from actors.upstream.timeouts import Watch, pause
from protocol import spans
from protocol.embeddings import Input, Vectors
from protocol.errors import Overloaded, ProviderError, TidegateError

CANCELLED: Final = "cancelled"

_propagator: Final = TraceContextTextMapPropagator()


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How calls are made.

    Attributes:
        target: what is asked for.
        contexts: the requests' places in the trace; the first one's is the parent, the others' are linked to.
        deadline: when all of them are out of time.
        retry: when a failed attempt is followed by another at the same target.
        clock: the time.
        tracer: opens the attempts' spans.
    """

    target: Target
    contexts: tuple[Context, ...]
    deadline: float
    retry: RetryPolicy
    clock: Clock
    tracer: Tracer


class Course:
    """Asks the targets until one answers, by the rules that chat has.

    Args:
        legs: the targets in their order; at least one.
        plan: how they are asked.
        inputs: what is asked for.
    """

    def __init__(self, legs: Sequence[Leg], plan: Plan, inputs: tuple[Input, ...]) -> None:
        self._plan = plan
        self._inputs = inputs
        size = partial(estimate, inputs)
        self._trials = Trials(
            [Trial(leg, leg.source, leg.source.health(leg.model, plan.clock), size) for leg in legs],
            retry=plan.retry,
            clock=plan.clock,
            deadline=plan.deadline,
        )

    async def run(self) -> tuple[Vectors, Leg]:
        """Return the vectors, and whose they are.

        Raises:
            DeadlineExceeded: out of time.
            Overloaded: the last target's queue is full.
            ProviderError: the last target's failure, or ``provider_unavailable`` where none is worth asking.
        """
        clock, error = self._plan.clock, None
        try:
            while True:
                trial = self._trials.next()
                if trial is None:
                    raise error or self._trials.unavailable()
                delay = trial.due - clock.time()
                if delay > 0:
                    await pause(clock, delay)
                try:
                    answer = await self._ask(trial)
                except (ProviderError, Overloaded) as failed:
                    error = failed
                    if not self._trials.goes_on(trial, failed):
                        raise
                else:
                    if answer is not None:
                        return answer, trial.leg
        finally:
            del error  # its traceback holds this frame, and both would stay until the collector comes

    async def _ask(self, trial: Trial[Leg]) -> Vectors | None:
        """Wait for a place and make the call; None where the target's breaker has opened meanwhile."""
        lane = trial.leg.source.lane
        if lane.free:
            await lane.enter()
        else:
            with Watch(self._plan.clock, self._plan.deadline):
                await lane.enter()
        try:
            ticket = trial.health.breaker.enter()
            return None if ticket is None else await self._call(trial, ticket)
        finally:
            lane.leave()

    async def _call(self, trial: Trial[Leg], ticket: int) -> Vectors:
        good, number = None, self._trials.called(trial)
        try:
            answer = await self._attempt(trial.leg, number)
            good = True
        except ProviderError as error:
            good = self._trials.judged(trial, error)
            raise
        finally:
            trial.health.breaker.leave(ticket, good=good)
        return answer

    async def _attempt(self, leg: Leg, number: int) -> Vectors:
        plan, embedder = self._plan, leg.source.embedder
        target = plan.target
        span = self._span(leg, number)
        code = CANCELLED
        try:
            with Watch(plan.clock, plan.deadline, embedder.limits.timeout):
                answer = await embedder.embed(
                    self._inputs, leg.model, target.dimensions, _extra(target), _headers(span)
                )
            code = ""
            span.set_attribute(spans.GEN_AI_RESPONSE_MODEL, answer.model or leg.model)
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

    def _span(self, leg: Leg, number: int) -> Span:
        plan = self._plan
        known: dict[str, str | int | tuple[str, ...] | None] = {
            spans.GEN_AI_OPERATION: "embeddings",
            spans.GEN_AI_PROVIDER: leg.source.name,
            spans.GEN_AI_REQUEST_MODEL: leg.model,
            spans.GEN_AI_ENCODING_FORMATS: ("base64",),
            spans.GEN_AI_DIMENSIONS: plan.target.dimensions,
            spans.INPUTS: len(self._inputs),
            spans.ATTEMPT: number,
        }
        others = (get_current_span(context).get_span_context() for context in plan.contexts[1:])
        return plan.tracer.start_span(
            spans.embeddings(leg.model),
            context=plan.contexts[0],
            kind=SpanKind.CLIENT,
            attributes={name: value for name, value in known.items() if value is not None},
            links=[Link(other) for other in others if other.is_valid],
            record_exception=False,
            set_status_on_exception=False,
        )


def _extra(target: Target) -> Mapping[str, Any]:
    return msgspec.msgpack.decode(target.extra, type=dict[str, Any]) if target.extra else {}


def _headers(span: Span) -> dict[str, str]:
    headers: dict[str, str] = {}
    if span.get_span_context().is_valid:
        _propagator.inject(headers, set_span_in_context(span))
    return headers
