import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from actors.embeddings import EmbedderLimits, EmbeddingBounds, EmbeddingsActor
from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.testing import Reply, ScriptedUpstream, Stall, Wait, refuse, scripted_vector
from protocol.embeddings import Embed, Embedded, floats
from protocol.errors import ConfigurationError, DeadlineExceeded, InvalidRequest, NotFound, Overloaded, ProviderError

Spawn = Callable[..., Ref[Embed]]
WINDOW = EmbeddingBounds().window


def ask(embeddings: Ref[Embed], *inputs: str, patience: float = 60, **changes: Any) -> "asyncio.Task[Embedded]":  # noqa: ANN401 - fields of Embed
    """Send a request."""
    message = Embed(**{"model": "default", "inputs": inputs, **changes})
    return asyncio.ensure_future(embeddings.ask(message, timeout=patience))


def right(embedded: Embedded, *inputs: str) -> bool:
    """Whether each vector is that of its input."""
    return [floats(vector) for vector in embedded.vectors] == [scripted_vector(text) for text in inputs]


async def code(waiting: "asyncio.Future[Embedded]") -> str:
    """Return the code of a request's failure."""
    with pytest.raises(ProviderError) as caught:
        await waiting
    return caught.value.code


def sent(upstream: ScriptedUpstream) -> list[list[str]]:
    """Return the inputs of each call."""
    return [call.body["input"] for call in upstream.received]


async def test_requests_of_one_moment_are_one_call(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """Each gets its own vectors in order, and its share of the tokens; no call is sent before the window ends."""
    embeddings = spawn()
    one, other = ask(embeddings, "b b", "a"), ask(embeddings, "c", tenant="t")
    await system.advance(WINDOW / 2)
    assert upstream.calls == 0
    await system.advance(WINDOW)
    first, second = await one, await other
    assert sent(upstream) == [["b b", "a", "c"]]
    assert right(first, "b b", "a")
    assert right(second, "c")
    assert first.tokens + second.tokens == 4
    assert (first.asked, second.asked) == (2, 1)


async def test_a_text_is_asked_for_once(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """Twice in a request, by two requests at once, and later again: the first request pays, the others do not."""
    embeddings = spawn()
    one, other = ask(embeddings, "a", "b", "a"), ask(embeddings, "b")
    await system.advance(WINDOW)
    first, second = await one, await other
    third = await ask(embeddings, "b", "a")
    assert sent(upstream) == [["a", "b"]]
    assert right(first, "a", "b", "a")
    assert right(second, "b")
    assert right(third, "b", "a")
    assert (first.tokens, first.asked) == (2, 2)
    assert (second.tokens, second.asked, second.joined) == (0, 0, 1)
    assert (third.tokens, third.asked, third.joined, third.cached) == (0, 0, 0, 2)


async def test_a_request_joins_a_call_under_way(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """It waits for texts that another request has sent; only the rest is sent."""
    gate = asyncio.Event()
    upstream.script(Reply(before=(Wait(gate),)))
    embeddings = spawn()
    one = ask(embeddings, "a")
    await system.advance(WINDOW)
    await upstream.called()
    other = ask(embeddings, "b", "a")
    await system.advance(WINDOW)
    await upstream.called(2)
    gate.set()
    assert right(await one, "a")
    assert right(await other, "b", "a")
    assert sent(upstream) == [["a"], ["b"]]


@pytest.mark.parametrize(
    "changes", [{"tenant": "t"}, {"model": "openai/m"}, {"dimensions": 2}, {"extra": {"task": "query"}}]
)
async def test_what_differs_is_not_shared(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream, changes: dict[str, Any]
) -> None:
    """A tenant, a model, a number of dimensions or a further field has vectors of its own."""
    embeddings = spawn()
    for differences in ({}, changes):
        waiting = ask(embeddings, "a", **differences)
        await system.advance(WINDOW)
        assert (await waiting).asked == 1
    body = upstream.received[1].body
    assert upstream.calls == 2
    assert body["model"] == ("m" if "model" in changes else "text-embedding-3-small")
    assert body.get("dimensions") == changes.get("dimensions")
    assert body.get("task") == changes.get("extra", {}).get("task")


async def test_nothing_is_shared_unless_it_may_be(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """With ``dedupe`` off each request sends its texts, and the vectors are not cached."""
    embeddings = spawn()
    for dedupe in (False, True):
        waiting = ask(embeddings, "a", "a", dedupe=dedupe)
        await system.advance(WINDOW)
        assert right(await waiting, "a", "a")
    assert sent(upstream) == [["a", "a"], ["a"]]


async def test_a_batch_keeps_to_the_limits(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """A full batch goes at once; a large text goes without those it does not fit with."""
    embeddings = spawn(limits=EmbedderLimits(inputs=2))
    waiting = ask(embeddings, "a", "b", "c", "x" * 300_000, "d")
    await upstream.called()
    await system.advance(WINDOW)
    embedded = await waiting
    assert right(embedded, "a", "b", "c", "x" * 300_000, "d")
    assert embedded.tokens == 5
    assert sorted(map(len, sent(upstream))) == [1, 1, 1, 2]


async def test_who_leaves_does_not_take_the_call_along(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """The other requests get their vectors, and one that joined the text pays for it."""
    gate = asyncio.Event()
    upstream.script(Reply(before=(Wait(gate),)))
    embeddings = spawn()
    one, other, third = ask(embeddings, "a"), ask(embeddings, "a"), ask(embeddings, "b")
    await system.advance(WINDOW)
    await upstream.called()
    one.cancel()
    third.cancel()
    await system.settle()
    gate.set()
    embedded = await other
    assert right(embedded, "a")
    assert (embedded.tokens, upstream.calls, upstream.left) == (1, 1, 0)


async def test_the_last_to_leave_ends_the_call(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """The upstream's socket closes, and the text can be sent again."""
    gate = asyncio.Event()
    upstream.script(Reply(before=(Wait(gate),)))
    embeddings = spawn()
    one, other = ask(embeddings, "a"), ask(embeddings, "b")
    await system.advance(WINDOW)
    await upstream.called()
    one.cancel()
    await system.settle()
    assert upstream.left == 0
    other.cancel()
    await upstream.abandoned()
    again = ask(embeddings, "a")
    await system.advance(WINDOW)
    assert right(await again, "a")


async def test_nobody_is_asked_for_who_has_left_in_time(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """Texts without a waiting request are not sent when the window ends."""
    embeddings = spawn()
    one, other = ask(embeddings, "a"), ask(embeddings, "b")
    await system.settle()
    one.cancel()
    await system.settle()
    await system.advance(WINDOW)
    assert right(await other, "b")
    assert sent(upstream) == [["b"]]


async def test_a_refusal_is_only_its_own_requests(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """A refused batch is sent again request by request; a request that joined it under way has its text sent again."""
    gate = asyncio.Event()
    upstream.script(Reply(status=400, before=(Wait(gate),)), Reply(), refuse(400))
    embeddings = spawn(bytes=6)
    bad, good = ask(embeddings, "a", "bad"), ask(embeddings, "a", "b")
    await system.advance(WINDOW)
    await upstream.called()
    late = ask(embeddings, "bad", "c")
    await system.advance(WINDOW)
    await upstream.called(2)
    gate.set()
    assert await code(bad) == "provider_rejected"
    assert right(await good, "a", "b")
    await system.advance(WINDOW)
    assert right(await late, "bad", "c")
    assert sent(upstream) == [["a", "bad", "b"], ["c"], ["a", "bad"], ["a", "b"], ["bad"]]
    six = ask(embeddings, "123456")
    await system.advance(WINDOW)
    assert right(await six, "123456")


async def test_a_refusal_of_one_request_is_one_call(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """A batch of one request is not split."""
    upstream.script(refuse(400))
    waiting = ask(spawn(), "a", "b")
    await system.advance(WINDOW)
    assert await code(waiting) == "provider_rejected"
    assert upstream.calls == 1


async def test_who_joins_has_its_own_time(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """A call that reaches its deadline is made again for a request that joined it and has more time."""
    upstream.script(Reply(before=(Stall(),)))
    embeddings = spawn()
    one = ask(embeddings, "a", patience=2)
    await system.advance(WINDOW)
    await upstream.called()
    other = ask(embeddings, "a")
    await system.advance(2)
    with pytest.raises(DeadlineExceeded):
        await one
    await system.advance(WINDOW)
    embedded = await other
    assert right(embedded, "a")
    assert (embedded.tokens, upstream.calls) == (1, 2)


async def test_too_much_is_refused(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """The inputs on their way are bounded in number and in bytes."""
    embeddings = spawn(inputs=2, bytes=10)
    one = ask(embeddings, "a", "b")
    await system.settle()
    for inputs in (("c",), ("a", "c"), ("x" * 11,)):
        with pytest.raises(Overloaded):
            await ask(embeddings, *inputs)
    joined = ask(embeddings, "b", "a")
    await system.advance(WINDOW)
    assert right(await one, "a", "b")
    assert right(await joined, "b", "a")
    assert upstream.calls == 1


async def test_the_cache_is_bounded(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """The least recently used vector goes first."""
    embeddings = spawn(cache_bytes=700)
    for text in ("a", "b", "a", "c", "a", "b"):
        waiting = ask(embeddings, text)
        await system.advance(WINDOW)
        assert right(await waiting, text)
    assert sent(upstream) == [["a"], ["b"], ["c"], ["b"]]


async def test_models_that_there_are_not(spawn: Spawn) -> None:
    """An unknown local model is not found; fields that can't be encoded are refused."""
    embeddings = spawn()
    with pytest.raises(NotFound) as caught:
        await ask(embeddings, "a", model="local/gpt")
    assert caught.value.code == "model_not_found"
    with pytest.raises(InvalidRequest):
        await ask(embeddings, "a", extra={"n": 2**70})
    with pytest.raises(ConfigurationError):
        EmbeddingsActor({}, default_model="openai/m")
