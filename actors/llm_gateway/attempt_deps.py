"""What all requests of one gateway have in common."""

from dataclasses import dataclass

from opentelemetry.trace import Tracer

from actors.llm_gateway.budget import Till
from actors.llm_gateway.drain import Drain
from actors.runtime import Clock
from actors.upstream.retry import RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Commons:
    """What all requests of one gateway have in common.

    Attributes:
        clock: the time.
        tracer: opens the attempts' spans.
        tracing: whether anybody takes them.
        retry: when a failed attempt is followed by another at the same target.
        max_chars: the bound on an answer.
        till: holds room for calls, and says what they have cost.
        drain: reads on in the streams of calls that are given up.
    """

    clock: Clock
    tracer: Tracer
    tracing: bool
    retry: RetryPolicy
    max_chars: int
    till: Till
    drain: Drain
