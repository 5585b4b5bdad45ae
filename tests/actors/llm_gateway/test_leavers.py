"""Many requests that are cancelled: their resources are free for the next one."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from actors.llm_gateway.config import GatewayLimits
from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.testing import Reply, Say, ScriptedUpstream, Stall
from protocol.gateway import Complete, Completion, GetProviders, Progress
from protocol.llm import ChatMessage, ChatRequest

PLACES = 4
ROUNDS = 10
REQUEST = ChatRequest(model="default", messages=(ChatMessage(role="user", content="hi"),))
STREAM = Reply(steps=(Say("Hel"), Stall()))


@pytest.mark.parametrize("begun", [True, False])
async def test_streams_that_are_cancelled_leave_nothing(
    spawn: Callable[..., Ref[Any]], system: TestSystem, upstream: ScriptedUpstream, begun: bool
) -> None:
    """No socket, place or task, in mid-stream and before the first token; the next request is answered."""
    gateway = spawn(concurrency=PLACES, queue=PLACES)
    upstream.default = STREAM if begun else Reply(steps=(Stall(),))
    probe = system.probe(Progress)
    before = len(system._core.tasks)
    for number in range(ROUNDS):
        asks = [gateway.ask(Complete(request=REQUEST, sink=probe.ref), timeout=60) for _ in range(2 * PLACES)]
        waiting = [asyncio.ensure_future(ask) for ask in asks]
        await upstream.called((number + 1) * PLACES)
        quiet = PLACES if begun else 0
        while quiet:
            quiet -= bool((await probe.expect(Progress)).events)
        for one in reversed(waiting):
            one.cancel()
        await asyncio.wait(waiting)
        await system.settle()
        await system.advance(GatewayLimits().drain)
        await upstream.abandoned((number + 1) * PLACES)
    async with asyncio.timeout(30):
        while len(system._core.tasks) > before:  # noqa: ASYNC110 - what the streams have cost is looked up in a thread
            await asyncio.sleep(0)
    places = {(status.in_flight, status.queued) for status in await gateway.ask(GetProviders(), timeout=5)}
    assert places == {(0, 0)}
    assert (upstream.busy, upstream.connections) == (0, 0)
    upstream.default = Reply()
    answer: Completion = await gateway.ask(Complete(request=REQUEST), timeout=5)
    assert answer.text == "Hello world"
