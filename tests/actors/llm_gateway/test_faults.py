"""Every way in which a provider can fail, through the whole gateway."""

import asyncio
import gc
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import pytest

from actors.llm_gateway import RetryPolicy
from actors.llm_gateway.config import GatewayLimits
from actors.llm_gateway.gateway import LLMGateway
from actors.llm_gateway.providers.openai import OpenAIProvider
from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.testing import Cut, End, Fault, Reply, Say, ScriptedUpstream, Send, Stall, Step, Wait, refuse, say
from actors.wire.client import WireClient
from protocol.errors import DeadlineExceeded, ProviderError, TidegateError
from protocol.events import AttemptFailed, Delta
from protocol.gateway import Complete, Completion, ListModels, Progress
from protocol.llm import ChatMessage, ChatRequest

Spawn = Callable[..., Ref[Any]]
ONCE = RetryPolicy(attempts=1)
REQUEST = ChatRequest(model="default", messages=(ChatMessage(role="user", content="hi"),))
DIALECTS = ["default", "anthropic/claude"]


async def ask(
    gateway: Ref[Any], *, model: str = "default", sink: Ref[Progress] | None = None, patience: float = 60
) -> Completion:
    """Send a request."""
    request = ChatRequest(model=model, messages=REQUEST.messages)
    answer = await gateway.ask(Complete(request=request, sink=sink), timeout=patience)
    assert isinstance(answer, Completion)
    return answer


async def code(waiting: "asyncio.Future[Completion]") -> str:
    """Return the code of a request's failure, which has the upstream's own words only where the request is at fault."""
    with pytest.raises(TidegateError) as caught:
        await waiting
    assert ("secret" in caught.value.detail) == (caught.value.code == "provider_rejected")
    return caught.value.code


def start(waiting: Any) -> "asyncio.Task[Completion]":  # noqa: ANN401 - any coroutine
    """Begin to send a request."""
    return asyncio.ensure_future(waiting)


@pytest.mark.parametrize("model", DIALECTS)
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, "provider_rejected"),
        (401, "provider_credentials"),
        (404, "provider_bad_response"),
        (429, "provider_rate_limited"),
        (500, "provider_error"),
        (503, "provider_unavailable"),
        (529, "provider_unavailable"),
    ],
)
async def test_a_refusal_has_its_code(
    spawn: Spawn, upstream: ScriptedUpstream, status: int, expected: str, model: str
) -> None:
    """A status becomes a code; the upstream's own words are passed on for a refusal of the request alone."""
    upstream.script(refuse(status))
    assert await code(start(ask(spawn(retry=ONCE), model=model))) == expected


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ((), "provider_stream_broken"),
        ((Send(b"data: {nonsense\n\n"),), "provider_bad_response"),
        ((Send(b"data: \xff\xfe\n\n"),), "provider_bad_response"),
        ((Send(b"data: " + b"x" * (17 * 1024 * 1024)), End()), "response_too_large"),
        ((Fault(kind="rate_limit_error"),), "provider_rate_limited"),
        ((Fault(kind="overloaded_error"),), "provider_unavailable"),
        ((Fault(kind="invalid_request_error"),), "provider_rejected"),
        ((Send(b"data: [DONE]\n\n"),), "provider_stream_broken"),
    ],
)
async def test_a_bad_stream_has_its_code(
    spawn: Spawn, upstream: ScriptedUpstream, steps: tuple[Step, ...], expected: str
) -> None:
    """A broken stream is never an empty answer."""
    upstream.script(Reply(steps=steps))
    assert await code(start(ask(spawn(retry=ONCE)))) == expected


@pytest.mark.parametrize("model", DIALECTS)
@pytest.mark.parametrize("last", [None, Cut(), Fault(kind="api_error")])
async def test_a_break_after_content_is_terminal(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream, last: Step | None, model: str
) -> None:
    """Content that was sent is followed by a boundary and the failure; there is no further attempt."""
    gate = asyncio.Event()
    probe = system.probe(Progress)

    steps: tuple[Step, ...] = (Say("Hel"), Wait(gate))
    upstream.script(Reply(steps=steps if last is None else (*steps, last)))
    waiting = start(ask(spawn(), sink=probe.ref, model=model))
    assert (await probe.expect(Progress)).events == (Delta(text="Hel"),)
    gate.set()
    expected = "provider_error" if isinstance(last, Fault) else "provider_stream_broken"
    assert await code(waiting) == expected
    told = await probe.expect(Progress)
    assert [(type(event), getattr(event, "code", "")) for event in told.events] == [(AttemptFailed, expected)]
    assert told.attempt is not None
    assert told.attempt.error == expected
    assert upstream.calls == 1


async def test_content_before_a_fault_in_one_read_is_told(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """Content in the same packet as the fault is not lost."""
    probe = system.probe(Progress)
    upstream.script(Reply(steps=(Send(b'data: {"choices":[{"delta":{"content":"Hel"}}]}\n\ndata: {"error":{}}\n\n'),)))
    assert await code(start(ask(spawn(), sink=probe.ref))) == "provider_error"
    assert (await probe.expect(Progress)).events == (Delta(text="Hel"),)
    assert isinstance((await probe.expect(Progress)).events[0], AttemptFailed)


async def test_another_content_type_is_a_bad_response(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """A proxy's HTML page is no answer."""
    upstream.script(Reply(content_type="text/html"))
    assert await code(start(ask(spawn(retry=ONCE)))) == "provider_bad_response"


async def test_nobody_listens(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """A refused connection is an unavailable provider."""
    await upstream.stop_listening()
    assert await code(start(ask(spawn(retry=ONCE)))) == "provider_unavailable"


async def test_a_reset_before_the_headers(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """A connection that is reset before any byte is an unavailable provider."""
    upstream.script(Reply(before=(Cut(),)))
    assert await code(start(ask(spawn(retry=ONCE)))) == "provider_unavailable"


@pytest.mark.parametrize(
    "reply", [Reply(before=(Stall(),)), Reply(steps=(Stall(),)), Reply(steps=(Send(b": ping\n"), Stall()))]
)
async def test_a_stall_before_content(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream, reply: Reply
) -> None:
    """Without content until the first token's timeout it is a timeout, and the upstream's socket is closed."""
    upstream.script(reply)
    waiting = start(ask(spawn(retry=ONCE)))
    await upstream.called()
    await system.advance(20)
    assert await code(waiting) == "provider_timeout"
    await upstream.abandoned()


async def test_a_stall_between_chunks(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """The timeout after content is shorter than before it, and is terminal."""
    probe = system.probe(Progress)
    upstream.script(Reply(steps=(Say("Hel"), Stall())))
    waiting = start(ask(spawn(), sink=probe.ref))
    await probe.expect(Progress)
    await system.advance(10)
    assert await code(waiting) == "provider_timeout"
    assert (await probe.expect(Progress)).attempt is not None
    await system.advance(GatewayLimits().drain)
    await upstream.abandoned()


async def test_the_whole_request_has_one_deadline(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """At the deadline the error says so, the sink gets the attempt, and the socket is closed."""
    probe = system.probe(Progress)
    upstream.script(Reply(steps=(Stall(),)))
    waiting = start(ask(spawn(), sink=probe.ref, patience=5))
    await upstream.called()
    await system.advance(4.99)
    with pytest.raises(DeadlineExceeded):
        await waiting
    await upstream.abandoned()
    told = await probe.expect(Progress)
    assert told.attempt is not None
    assert told.attempt.error == "deadline_exceeded"


async def test_the_gateways_own_limit_says_its_time(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """Where the gateway allows less than its caller, the error has the gateway's time."""
    upstream.script(Reply(steps=(Stall(),)))
    waiting = start(ask(spawn(limits=GatewayLimits(total=2.0)), patience=5))
    await upstream.called()
    await system.advance(2)
    with pytest.raises(DeadlineExceeded, match=r"ran out of time \(2,000 ms\)"):
        await waiting


async def test_waiting_for_a_place_has_the_same_deadline(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """A call that waits in the provider's queue fails at the deadline."""
    upstream.script(Reply(steps=(Stall(),)))
    gateway = spawn(concurrency=1, queue=1)
    first = start(ask(gateway, patience=60))
    await upstream.called()
    second = start(ask(gateway, patience=5))
    await system.settle()
    assert await code(start(ask(gateway))) == "provider_overloaded"
    await system.advance(5)
    with pytest.raises(DeadlineExceeded):
        await second
    first.cancel()
    await upstream.abandoned()
    assert (await ask(gateway)).text == "Hello world"


@pytest.mark.parametrize("failed", [refuse(429, retry_after="3"), refuse(503, retry_after_ms="3000")])
async def test_retry_after_is_honoured(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream, failed: Reply
) -> None:
    """The next attempt is never before ``retry-after``, and later by our jitter; the answer is whole."""
    probe = system.probe(Progress)
    upstream.script(failed, say("Hi"))
    waiting = start(ask(spawn(), sink=probe.ref))
    assert (await probe.expect(Progress)).attempt is not None
    await system.advance(3.4)
    assert upstream.calls == 1
    await system.advance(0.1)
    assert (await waiting).text == "Hi"
    assert upstream.calls == 2


async def test_a_limit_beyond_patience_is_told(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """A longer ``retry-after`` is not waited for; it is in the failure."""
    upstream.script(refuse(429, retry_after="120"))
    with pytest.raises(ProviderError) as caught:
        await ask(spawn())
    assert (caught.value.code, caught.value.retry_after) == ("provider_rate_limited", 120)


async def test_one_budget_of_attempts(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """Three calls, each reported, and the last failure is the request's."""
    probe = system.probe(Progress)
    upstream.script(refuse(500), Reply(steps=()), Reply(before=(Cut(),)), say("too late"))
    waiting = start(ask(spawn(), sink=probe.ref))
    errors = []
    for delay in (0.5, 1.0, 0):
        told = (await probe.expect(Progress)).attempt
        assert told is not None
        errors.append(told.error)
        await system.advance(delay)
    assert await code(waiting) == "provider_unavailable"
    assert errors == ["provider_error", "provider_stream_broken", "provider_unavailable"]
    assert upstream.calls == 3


async def test_an_answer_is_bounded(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """An answer beyond the bound is ended."""
    upstream.script(Reply(steps=(*(Say("x" * 50) for _ in range(10)), Stall())))
    assert await code(start(ask(spawn(max_chars=300)))) == "response_too_large"
    await system.advance(GatewayLimits().drain)
    await upstream.abandoned()


@pytest.mark.parametrize("model", DIALECTS)
async def test_split_bytes_are_no_fault(spawn: Spawn, upstream: ScriptedUpstream, model: str) -> None:
    """Characters and lines that the network splits are joined."""
    upstream.script(Reply(steps=(Say("Grüße"), Say(" 🌊"), End()), split=1))
    assert (await ask(spawn(), model=model)).text == "Grüße 🌊"


async def test_a_repeated_end_is_no_fault(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """What comes after the end marker is not read."""
    upstream.script(Reply(steps=(Say("Hi"), End(), End(), Say("more"))))
    assert (await ask(spawn())).text == "Hi"


async def test_an_end_without_its_marker_is_whole(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """An answer is whole with its finish reason, also where the server then closes."""
    upstream.script(Reply(steps=(Say("Hi"), End(marker=False))))
    assert (await ask(spawn())).text == "Hi"


async def test_giving_up_closes_the_upstreams_socket(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """Cancelled in mid-stream: the concurrency is released at once, the connection after the drain."""
    probe = system.probe(Progress)
    upstream.script(Reply(steps=(Say("Hel"), Stall())))
    gateway = spawn(concurrency=1, queue=0)
    waiting = start(ask(gateway, sink=probe.ref))
    await probe.expect(Progress)
    waiting.cancel()
    await system.settle()
    assert (await ask(gateway)).text == "Hello world"
    assert upstream.left == 0
    await system.advance(GatewayLimits().drain)
    await upstream.abandoned()


async def test_good_answers_share_a_connection(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """The connection of a whole answer is used again."""
    gateway = spawn()
    for _ in range(5):
        assert (await ask(gateway)).text == "Hello world"
    assert upstream.connections == 1


class Broken(OpenAIProvider):
    """A provider that fails without a connection, so that the test sees only the gateway's objects."""

    def stream(self, request: ChatRequest, model: str, headers: Mapping[str, str]) -> NoReturn:
        raise ProviderError(code="provider_unavailable")


async def test_a_failure_leaves_nothing_to_the_collector(system: TestSystem) -> None:
    """An error holds the frames it went through: a frame that held the error would make a cycle."""
    broken = Broken(WireClient(), base_url="http://nowhere")
    gateway = system.spawn(lambda: LLMGateway({"openai": broken}, default_model="openai/m"), name="llm-gateway")
    await gateway.ask(ListModels(), timeout=5)
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        waiting = start(ask(gateway))
        await system.advance(3)
        await asyncio.wait([waiting])
        assert isinstance(waiting.exception(), ProviderError)
        del waiting
        await system.settle()
        gc.collect()
        left = {type(one).__name__ for one in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert not left & {"Admission", "Attempt", "CompletionRun", "Envelope", "Fallback", "ProviderError"}
