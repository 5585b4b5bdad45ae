"""The scripted upstream behaves like the vendors' services: the official clients read it."""

import asyncio

import anthropic
import openai
import pytest

from actors.testing import Call, End, Reply, Say, ScriptedUpstream, Stall, refuse

QUESTION = "hi"


def openai_client(upstream: ScriptedUpstream) -> openai.AsyncOpenAI:
    """The vendor's client, without its retries."""
    return openai.AsyncOpenAI(api_key="k", base_url=upstream.openai_url, max_retries=0)


def anthropic_client(upstream: ScriptedUpstream) -> anthropic.AsyncAnthropic:
    """The vendor's client, without its retries."""
    return anthropic.AsyncAnthropic(api_key="k", base_url=upstream.anthropic_url, max_retries=0)


async def test_openai_streamed_and_whole(upstream: ScriptedUpstream) -> None:
    """OpenAI's client reads both forms."""
    async with openai_client(upstream) as client:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        chunks = [chunk async for chunk in stream]
        text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
        assert text == "Hello world"
        assert chunks[-1].usage is not None
        answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": QUESTION}])
        assert answer.choices[0].message.content == "Hello world"
    assert [call.body.get("stream") for call in upstream.received] == [True, None]
    assert upstream.received[0].headers["authorization"] == "Bearer k"


async def test_anthropic_streamed_and_whole(upstream: ScriptedUpstream) -> None:
    """Anthropic's client reads both forms, tool calls too."""
    upstream.script(Reply(steps=(Say("look"), Call(id="t1", name="see", arguments='{"a":1}'), End())))
    async with anthropic_client(upstream) as client:
        async with client.messages.stream(
            model="m", max_tokens=9, messages=[{"role": "user", "content": QUESTION}]
        ) as stream:
            whole = await stream.get_final_message()
        assert [block.type for block in whole.content] == ["text", "tool_use"]
        assert whole.usage.output_tokens == 3
        answer = await client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": QUESTION}])
        assert answer.content[0].type == "text"


async def test_refusals_are_the_vendors(upstream: ScriptedUpstream) -> None:
    """A scripted status is the client's own exception, with its headers."""
    upstream.script(refuse(429, retry_after="7"))
    async with openai_client(upstream) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": QUESTION}])
    assert caught.value.response.headers["retry-after"] == "7"


async def test_a_client_that_leaves_is_noticed(upstream: ScriptedUpstream) -> None:
    """Leaving in mid-stream closes the connection, which a test can wait for."""
    upstream.script(Reply(steps=(Say("Hel"), Stall())))
    async with openai_client(upstream) as client:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": QUESTION}], stream=True
        )
        await upstream.called()
        assert upstream.connections == 1
        await stream.close()
        await upstream.abandoned()
    await asyncio.sleep(0)
    assert upstream.left == 1
