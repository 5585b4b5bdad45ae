"""The cost of tracing while it is off: the spans API without a tracer provider.

* **untraced**: an ask of a message that opens no span.
* **traced, no provider**: the same ask of a message whose class is ``traced``: the runtime opens, fills and closes a
  CONSUMER span that nothing records.
* **API alone**: ``start_span`` and ``end`` of the tracer without a provider, with the attributes of a domain message.

The difference of the first two is the cost of a domain message; a proxied request has a few of them. The cost of
tracing while it is *on* is the ``tracing`` side of ``proxying``.
"""

import asyncio
import time
from typing import Final

import uvloop
from opentelemetry.trace import SpanKind, get_tracer

from actors.runtime import Actor, Ref, System, handles
from benchmarks.harness import Plan, Result, Row, Sample, interleave
from protocol import spans
from protocol.message import Message

NAME: Final = "tracing"
ASKS: Final = 40_000
SPANS: Final = 100_000


class Untraced(Message[None], frozen=True):
    """A message without a span."""


class Traced(Message[None], frozen=True):
    """A message with a span."""

    traced = True


class Echo(Actor[Untraced | Traced]):
    """Replies with nothing."""

    @handles(Untraced)
    async def untraced(self, _message: Untraced) -> None:
        """Reply."""

    @handles(Traced)
    async def traced(self, _message: Traced) -> None:
        """Reply."""


def run(plan: Plan) -> Result:
    """Measure on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_measure(plan))


async def _measure(plan: Plan) -> Result:
    asks, opened = plan.scaled(ASKS), plan.scaled(SPANS)
    async with System() as system:
        echo = system.spawn(Echo, name="echo")
        figures = await interleave(
            plan.rounds,
            {
                "untraced": lambda: _ask(echo, Untraced(), asks),
                "traced, no provider": lambda: _ask(echo, Traced(), asks),
                "API alone": lambda: _api(opened),
            },
        )
    untraced, traced = figures["untraced"]["us"], figures["traced, no provider"]["us"]
    lines = {
        "ask, untraced": untraced,
        "ask, traced with no provider": traced,
        "difference": [after - before for after, before in zip(traced, untraced, strict=True)],
        "start_span and end alone": figures["API alone"]["us"],
    }
    rows = [Row(benchmark=NAME, case=case, side="off", unit="us CPU", values=tuple(us)) for case, us in lines.items()]
    return Result(tuple(rows))


async def _ask(ref: Ref[Untraced | Traced], message: Untraced | Traced, count: int) -> Sample:
    start = time.process_time()
    for _ in range(count):
        await ref.ask(message, timeout=30)
    return {"us": (time.process_time() - start) / count * 1e6}


async def _api(count: int) -> Sample:
    tracer = get_tracer(spans.TRACER)
    start = time.process_time()
    for _ in range(count):
        span = tracer.start_span(
            spans.process("echo"),
            kind=SpanKind.CONSUMER,
            attributes={
                spans.MESSAGING_SYSTEM: spans.TRACER,
                spans.MESSAGING_OPERATION: "process",
                spans.MESSAGING_DESTINATION: "echo",
                spans.MESSAGE_TYPE: "Traced",
                spans.MAILBOX_WAIT: 0.0,
            },
        )
        span.end()
    return {"us": (time.process_time() - start) / count * 1e6}
