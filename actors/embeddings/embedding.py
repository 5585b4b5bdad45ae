"""The calls for one batch: fallback over its targets, and a span for each attempt."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from actors.embeddings.embedder import BatchKey
from actors.embeddings.endpoints import EmbeddingTarget
from actors.resilience.retry import RetryPolicy
from actors.runtime import Clock
from actors.upstream.admission import AdmissionTerms
from actors.upstream.candidates import Candidate, CandidateSet
from actors.upstream.fallback import Fallback
from actors.upstream.timeouts import TimeoutScope
from protocol import spans
from protocol.embeddings import Input, Vectors, byte_size
from protocol.errors import TidegateError
from protocol.tokens import CHARS_PER_TOKEN

CANCELLED: Final = "cancelled"

_propagator: Final = TraceContextTextMapPropagator()


class Embedding(NamedTuple):
    """The vectors of a batch, and the target that made them."""

    vectors: Vectors
    target: EmbeddingTarget


class EmbeddingPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How the calls for a batch are made.

    Attributes:
        key: the parameters of the calls.
        contexts: the requests' trace contexts; the first one is the parent of the spans, the others are linked.
        deadline: when all the requests are out of time.
        retry: when a failed attempt is followed by another at the same target.
        clock: the time.
        tracer: opens the attempts' spans.
    """

    key: BatchKey
    contexts: tuple[Context, ...]
    deadline: float
    retry: RetryPolicy
    clock: Clock
    tracer: Tracer


class EmbeddingRun:
    """Calls the targets of one batch until one gives the vectors; ``CandidateSet`` has the rules, as for chat.

    Args:
        targets: in their order; at least one.
        plan: how the calls are made.
        inputs: the texts.
    """

    def __init__(self, targets: Sequence[EmbeddingTarget], plan: EmbeddingPlan, inputs: tuple[Input, ...]) -> None:
        self._plan = plan
        self._inputs = inputs
        self._calls = 0
        self._terms = AdmissionTerms(plan.clock, plan.deadline, learns_limits=False)
        size = partial(estimate, inputs)
        candidates = CandidateSet(
            [
                Candidate(target, target.endpoint, target.endpoint.health(target.model, plan.clock), size)
                for target in targets
            ],
            retry=plan.retry,
            terms=self._terms,
        )
        self._fallback: Fallback[EmbeddingTarget, Embedding] = Fallback(candidates)

    async def run(self) -> Embedding:
        """Return the vectors, and the target that made them.

        Raises:
            DeadlineExceeded: out of time.
            Overloaded: the last target's queue is full.
            ProviderError: the last target's failure, or ``provider_unavailable`` where no call could be made.
        """
        return await self._fallback.run(self._call)

    async def _call(self, candidate: Candidate[EmbeddingTarget]) -> Embedding | None:
        """Wait for admission and make the call; None where the target's breaker has opened meanwhile."""
        target = candidate.target
        async with target.endpoint.admit(candidate, self._terms) as admitted:
            if admitted is None:
                return None
            self._calls += 1
            number, started = self._calls, self._plan.clock.time()
            try:
                return Embedding(await self._attempt(target, number), target)
            except TidegateError as error:
                self._fallback.failed(candidate, number, error, self._plan.clock.time() - started)
                raise

    async def _attempt(self, target: EmbeddingTarget, number: int) -> Vectors:
        plan, embedder = self._plan, target.endpoint.embedder
        key = plan.key
        span = self._span(target, number)
        code = CANCELLED
        try:
            with TimeoutScope(plan.clock, plan.deadline, embedder.limits.timeout):
                answer = await embedder.embed(self._inputs, target.model, key.dimensions, _extra(key), _headers(span))
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

    def _span(self, target: EmbeddingTarget, number: int) -> Span:
        plan = self._plan
        known: dict[str, str | int | tuple[str, ...] | None] = {
            spans.GEN_AI_OPERATION: "embeddings",
            spans.GEN_AI_PROVIDER: target.endpoint.name,
            spans.GEN_AI_REQUEST_MODEL: target.model,
            spans.GEN_AI_ENCODING_FORMATS: ("base64",),
            spans.GEN_AI_DIMENSIONS: plan.key.dimensions,
            spans.INPUTS: len(self._inputs),
            spans.ATTEMPT: number,
        }
        others = (get_current_span(context).get_span_context() for context in plan.contexts[1:])
        return plan.tracer.start_span(
            spans.embeddings(target.model),
            context=plan.contexts[0],
            kind=SpanKind.CLIENT,
            attributes={name: value for name, value in known.items() if value is not None},
            links=[Link(other) for other in others if other.is_valid],
            record_exception=False,
            set_status_on_exception=False,
        )


def estimate(inputs: Iterable[Input]) -> int:
    """Return about how many tokens ``inputs`` have."""
    return sum(-(-byte_size(item) // CHARS_PER_TOKEN) for item in inputs)


def _extra(key: BatchKey) -> Mapping[str, Any]:
    return msgspec.msgpack.decode(key.extra, type=dict[str, Any]) if key.extra else {}


def _headers(span: Span) -> dict[str, str]:
    headers: dict[str, str] = {}
    if span.get_span_context().is_valid:
        _propagator.inject(headers, set_span_in_context(span))
    return headers
