"""Every way in which a provider can fail a batch, through the whole actor."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from actors.embeddings import EmbedderLimits, EmbeddingBounds
from actors.llm_gateway import RetryPolicy
from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.testing import Cut, Reply, ScriptedUpstream, Send, Stall, Step, refuse
from protocol.embeddings import Embed, Embedded
from protocol.errors import TidegateError
from tests.actors.embeddings.recording import RecordingPolicy

Spawn = Callable[..., Ref[Embed]]
WINDOW = EmbeddingBounds().window
ONCE = RetryPolicy(attempts=1)
JSON = "application/json"


def ask(embeddings: Ref[Embed], *inputs: str, patience: float = 60) -> "asyncio.Task[Embedded]":
    """Send a request."""
    return asyncio.ensure_future(embeddings.ask(Embed(model="default", inputs=inputs), timeout=patience))


async def code(waiting: "asyncio.Future[Embedded]") -> str:
    """Return the code of a request's failure, which has the upstream's own words only where the request is at fault."""
    with pytest.raises(TidegateError) as caught:
        await waiting
    assert ("secret" in caught.value.detail) == (caught.value.code == "provider_rejected")
    return caught.value.code


def raw(*steps: Step) -> Reply:
    """Return an answer of these bytes."""
    return Reply(steps=steps, content_type=JSON)


def data(*vectors: object) -> Reply:
    """Return an answer with these vectors."""
    listed = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    return raw(Send(msgspec.json.encode({"data": listed})))


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (refuse(400), "provider_rejected"),
        (refuse(401), "provider_credentials"),
        (refuse(408), "provider_timeout"),
        (refuse(429), "provider_rate_limited"),
        (refuse(500), "provider_error"),
        (refuse(503), "provider_unavailable"),
        (Reply(status=307, headers={"location": "/v1/messages"}), "provider_bad_response"),
        (Reply(before=(Cut(),)), "provider_unavailable"),
        (raw(Send(b'{"data": ['), Cut()), "provider_stream_broken"),
        (raw(Send(b"{nonsense")), "provider_bad_response"),
        (raw(Send(b"\xff\xfe")), "provider_bad_response"),
        (raw(Send(b'{"error": {"message": "a secret"}}')), "provider_error"),
        (Reply(steps=(Send(b"<html>"),), content_type="text/html"), "provider_bad_response"),
        (data([0.5]), "provider_bad_response"),
        (data([0.5], [0.5], [0.5]), "provider_bad_response"),
        (data([0.5], [0.5, 0.5]), "provider_bad_response"),
        (data([], []), "provider_bad_response"),
        (data([0.5], [1e300]), "provider_bad_response"),
        (data([0.5], "AAAAfw"), "provider_bad_response"),
        (data("AACAfw==", "AAAAPw=="), "provider_bad_response"),
        (data("AAA=", "AAA="), "provider_bad_response"),
        (raw(Send(b'{"data":[{"index":0,"embedding":[1]},{"index":0,"embedding":[1]}]}')), "provider_bad_response"),
    ],
)
async def test_a_fault_has_its_code(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream, reply: Reply, expected: str
) -> None:
    """Each is a failure with a code, never a vector; and the next request is answered."""
    upstream.script(reply)
    embeddings = spawn(retry=ONCE)
    waiting = ask(embeddings, "a", "b")
    await system.advance(WINDOW)
    assert await code(waiting) == expected
    again = ask(embeddings, "a", "b")
    await system.advance(WINDOW)
    assert len((await again).vectors) == 2


async def test_nobody_listens(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """A refused connection is an unavailable provider."""
    await upstream.stop_listening()
    waiting = ask(spawn(retry=ONCE), "a")
    await system.advance(WINDOW)
    assert await code(waiting) == "provider_unavailable"


async def test_an_answer_that_is_too_large(system: TestSystem, upstream: ScriptedUpstream) -> None:
    """An answer beyond its bound is not read on."""
    from actors.embeddings.openai import OpenAIEmbedder  # noqa: PLC0415 - as the factory does
    from actors.wire.unary import JsonWire  # noqa: PLC0415 - the same

    embedder = OpenAIEmbedder(JsonWire(max_bytes=100, connect_timeout=5), base_url=upstream.openai_url)
    await embedder.open()
    with pytest.raises(TidegateError) as caught:
        await embedder.embed(("a", "b", "c"), "m", None, {}, {})
    await embedder.close()
    assert caught.value.code == "response_too_large"


async def test_an_embedder_that_is_not_open_reaches_nobody(upstream: ScriptedUpstream) -> None:
    """Before it is opened and after it is closed, it is unavailable."""
    from actors.embeddings.openai import OpenAIEmbedder  # noqa: PLC0415 - as the factory does
    from actors.wire.unary import JsonWire  # noqa: PLC0415 - the same

    embedder = OpenAIEmbedder(JsonWire(connect_timeout=5), base_url=upstream.openai_url)
    for _ in range(2):
        with pytest.raises(TidegateError) as caught:
            await embedder.embed(("a",), "m", None, {}, {})
        assert caught.value.code == "provider_unavailable"
        await embedder.open()
        await embedder.open()
        await embedder.close()
        await embedder.close()
    assert upstream.calls == 0


async def test_a_refusal_that_says_when_is_tried_again_then(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """The next attempt waits for ``retry-after`` and jitter; the failed one costs nothing."""
    upstream.script(refuse(429, retry_after="7"), refuse(500))
    retry = RecordingPolicy()
    waiting = ask(spawn(retry=retry), "a")
    await system.advance(WINDOW)
    assert await retry.delays.get() == 7.5
    await system.advance(7.4)
    assert upstream.calls == 1
    await system.advance(0.1)
    assert await retry.delays.get() == 1
    await system.advance(1)
    assert (await waiting).tokens == 1
    assert upstream.calls == 3


async def test_a_provider_that_asks_for_too_much_patience_is_given_up(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """The failure has the provider's ``retry-after``."""
    upstream.script(refuse(429, retry_after="600"))
    waiting = ask(spawn(), "a")
    await system.advance(WINDOW)
    with pytest.raises(TidegateError) as caught:
        await waiting
    assert (caught.value.code, caught.value.retry_after, upstream.calls) == ("provider_rate_limited", 600, 1)


async def test_a_stall_is_a_timeout(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """Silence beyond the attempt's timeout closes the socket, and the next attempt is answered."""
    upstream.script(Reply(before=(Stall(),)))
    retry = RecordingPolicy()
    waiting = ask(spawn(limits=EmbedderLimits(timeout=5.0), retry=retry), "a")
    await system.advance(WINDOW)
    await upstream.called()
    await system.advance(5)
    assert await retry.delays.get() == 0.5
    await upstream.abandoned()
    await system.advance(0.5)
    assert (await waiting).asked == 1


async def test_out_of_time_is_said_before_the_asker_gives_up(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """The sender gets a typed error before its own timeout."""
    upstream.script(Reply(before=(Stall(),)))
    waiting = ask(spawn(), "a", patience=3)
    await system.advance(WINDOW)
    await upstream.called()
    await system.advance(3)
    assert await code(waiting) == "deadline_exceeded"
    await upstream.abandoned()


async def test_a_full_queue_refuses(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """Beyond the calls under way and the queue, a batch fails at once."""
    upstream.script(Reply(before=(Stall(),)))
    embeddings = spawn(concurrency=1, queue=1)
    tasks = []
    for text in ("a", "b", "c"):
        tasks.append(ask(embeddings, text))
        await system.advance(WINDOW)
    await upstream.called()
    assert await code(tasks[2]) == "provider_overloaded"
    tasks[0].cancel()
    assert (await tasks[1]).asked == 1
