"""Dependencies that all attempts of one gateway share."""

from dataclasses import dataclass

from opentelemetry.trace import Tracer

from actors.llm_gateway.drain import Drain
from actors.llm_gateway.schema import Schemas
from actors.resilience.retry import RetryPolicy
from actors.runtime import Clock
from actors.upstream.budget import BudgetGuard


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptDeps:
    """Dependencies that all attempts of one gateway share.

    Attributes:
        clock: the time.
        tracer: opens the attempts' spans.
        tracing: whether any span is recorded.
        retry: when a failed attempt is followed by another at the same target.
        max_chars: the bound on an answer.
        budget: holds room in budgets, and prices what calls have used.
        drain: reads cancelled streams to their usage.
        schemas: compiles schemas, and validates answers against them.
    """

    clock: Clock
    tracer: Tracer
    tracing: bool
    retry: RetryPolicy
    max_chars: int
    budget: BudgetGuard
    drain: Drain
    schemas: Schemas
