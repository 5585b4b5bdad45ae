import pytest

from actors.testing import End, Reply, Say, ScriptedUpstream, Send, Stall
from actors.wire.client import WireClient
from protocol.errors import ProviderError
from protocol.openai_upstream import ChatReader
from protocol.upstream import Pieces

BODY = b'{"model": "m", "messages": [], "stream": true}'


async def read(wire: WireClient, upstream: ScriptedUpstream, answer: ChatReader | None = None) -> Pieces:
    """Read a whole answer."""
    url = f"{upstream.openai_url}/chat/completions"
    async with wire.stream(url, BODY, {"x-mine": "1"}, answer or ChatReader(), connect_timeout=5) as stream:
        return [piece async for pieces in stream for piece in pieces]


async def test_an_answer_is_read_to_its_end(upstream: ScriptedUpstream) -> None:
    """Content in order, and what is known of the answer in the reader."""
    wire, answer = WireClient(), ChatReader()
    await wire.open()
    pieces = await read(wire, upstream, answer)
    await wire.close()
    assert [getattr(piece, "text", "") for piece in pieces] == ["Hello", " world"]
    assert answer.usage is not None
    assert upstream.received[0].headers["x-mine"] == "1"


async def test_a_body_that_goes_on_after_its_end_is_let_go(upstream: ScriptedUpstream) -> None:
    """The answer is there with its end marker; closing drops a connection whose last bytes never came."""
    wire = WireClient()
    await wire.open()
    upstream.script(Reply(steps=(Say("Hi"), End(), Send(b": more\n"), Stall())))
    assert len(await read(wire, upstream)) == 1
    assert wire.busy == 1
    await wire.close()
    await upstream.abandoned()
    assert wire.busy == 0


async def test_a_client_that_is_not_open_reaches_nobody(upstream: ScriptedUpstream) -> None:
    """Before it is opened and after it is closed, a provider is unavailable."""
    wire = WireClient()
    for _ in range(2):
        with pytest.raises(ProviderError) as caught:
            await read(wire, upstream)
        assert caught.value.code == "provider_unavailable"
        await wire.open()
        await wire.open()
        await wire.close()
        await wire.close()
    assert upstream.calls == 0


async def test_a_redirect_is_not_followed(upstream: ScriptedUpstream) -> None:
    """Keys go nowhere but to the address that was set."""
    wire = WireClient()
    await wire.open()
    upstream.script(Reply(status=307, headers={"location": upstream.anthropic_url}))
    with pytest.raises(ProviderError) as caught:
        await read(wire, upstream)
    await wire.close()
    assert (caught.value.code, upstream.calls) == ("provider_bad_response", 1)


async def test_it_stays_open_until_all_have_closed_it(upstream: ScriptedUpstream) -> None:
    """A provider that goes does not take the others' connections with it."""
    wire = WireClient()
    await wire.open("one")
    await wire.open("two")
    await wire.close("one")
    assert len(await read(wire, upstream)) == 2
    await wire.close("two")
    with pytest.raises(ProviderError):
        await read(wire, upstream)
