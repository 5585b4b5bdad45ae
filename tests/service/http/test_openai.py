"""OpenAI's dialect over HTTP: JSON and streams."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientResponse

from protocol.errors import ProviderError, TryAgainLater
from protocol.events import ToolCallDelta
from service.http import sse
from tests.service.bench import CHAT, Service, open_service

PATH = "/v1/chat/completions"
STREAM = CHAT | {"stream": True}
SAME = STREAM | {"temperature": 0}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with a gateway that the test scripts."""
    async with open_service() as running:
        yield running


def begin(service: Service, body: object, **headers: str) -> "asyncio.Task[ClientResponse]":
    """Post a call without waiting for its response."""
    return asyncio.ensure_future(service.post(PATH, body, **headers))


async def opened(service: Service, body: object, **headers: str) -> ClientResponse:
    """Post a call; returns once the headers have arrived."""
    return await service.client.post(service.base + PATH, json=body, headers=headers)


def chunks(text: str) -> list[Any]:
    """The data of each event."""
    assert text.endswith("\n\n")
    said = [block.removeprefix("data: ") for block in text.replace(": ping\n", "").split("\n\n")[:-1]]
    return [data if data == "[DONE]" else json.loads(data) for data in said]


def said(text: str) -> str:
    """Return the joined text of a stream's chunks."""
    return "".join(
        choice["delta"].get("content", "")
        for chunk in chunks(text)
        if chunk != "[DONE]"
        for choice in chunk.get("choices", ())
    )


async def test_a_whole_answer(service: Service) -> None:
    """One completion with the request's id, and the headers of an inference."""
    posted = begin(service, CHAT)
    call = await service.call()
    await call.say("Hel", "lo")
    await call.end()
    response = await posted
    body = await response.json()
    assert response.status == 200
    assert body["choices"][0]["message"]["content"] == "Hello"
    assert body["usage"]["total_tokens"] == 5
    assert body["id"] == f"chatcmpl-{call.complete.request_id}"
    assert response.headers["x-request-id"] == call.complete.request_id
    assert len(response.headers["x-trace-id"]) == 32
    assert response.headers["x-tidegate-source"] == "upstream"
    assert response.headers["x-tidegate-attempts"] == "1"
    assert float(response.headers["x-tidegate-overhead-ms"]) > 0
    assert "x-tidegate-cost-usd" not in response.headers


async def test_a_stream(service: Service) -> None:
    """Chunks with one id, no `id:` lines, a usage chunk if requested, and `[DONE]`."""
    posted = begin(service, STREAM | {"stream_options": {"include_usage": True}})
    call = await service.call()
    await call.say("Hel", "lo")
    await call.end()
    response = await posted
    text = await response.text()
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["x-tidegate-attempts"] == "1"
    assert response.headers["x-request-id"] == call.complete.request_id
    assert "id:" not in text
    *parts, usage, done = chunks(text)
    assert {part["id"] for part in parts} == {f"chatcmpl-{call.complete.request_id}"}
    assert (said(text), parts[-1]["choices"][0]["finish_reason"]) == ("Hello", "stop")
    assert (usage["usage"]["completion_tokens"], done) == (2, "[DONE]")


async def test_tool_calls_are_streamed(service: Service) -> None:
    """Pieces of a tool call are streamed as OpenAI's; in JSON they are one message."""
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    for stream in (True, False):
        posted = begin(service, CHAT | {"stream": stream, "tools": tools})
        call = await service.call()
        await call.tell(ToolCallDelta(index=0, id="c1", name="look", arguments='{"at"'))
        await call.tell(ToolCallDelta(index=0, arguments=": 1}"))
        await call.end()
        response = await posted
        if stream:
            deltas = [chunk["choices"][0]["delta"] for chunk in chunks(await response.text())[:-1]]
            pieces = [delta["tool_calls"][0]["function"] for delta in deltas if "tool_calls" in delta]
            assert "".join(piece["arguments"] for piece in pieces) == '{"at": 1}'
        else:
            choice = (await response.json())["choices"][0]
            assert choice["finish_reason"] == "tool_calls"
            assert choice["message"]["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"at": 1}'}


@pytest.mark.parametrize("body", [CHAT, STREAM])
async def test_a_failure_before_content_is_an_http_error(service: Service, body: dict[str, Any]) -> None:
    """A failure before content is an HTTP error."""
    posted = begin(service, body)
    await (await service.call()).fail(TryAgainLater("slow down", code="provider_rate_limited", retry_after=1.5))
    response = await posted
    assert response.status == 429
    assert response.headers["Retry-After"] == "2"
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["x-tidegate-attempts"] == "1"
    assert response.headers["x-tidegate-source"] == "upstream"
    assert response.headers["Content-Type"].startswith("application/json")
    error = (await response.json())["error"]
    assert error == {
        "message": "slow down",
        "type": "rate_limit_error",
        "param": None,
        "code": "provider_rate_limited",
    }


async def test_a_failure_in_mid_stream_is_said_in_the_stream(service: Service) -> None:
    """A failure after content is an error event, without `[DONE]`."""
    posted = begin(service, STREAM)
    call = await service.call()
    await call.say("so far")
    await call.fail(ProviderError("it fell over", code="provider_stream_broken"))
    response = await posted
    text = await response.text()
    assert response.status == 200
    assert said(text) == "so far"
    assert chunks(text)[-1]["error"]["code"] == "provider_stream_broken"
    assert "[DONE]" not in text


async def test_a_cancelled_request_is_a_conflict(service: Service) -> None:
    """A call whose request is cancelled elsewhere gets 409."""
    posted = begin(service, CHAT)
    call = await service.call()
    await service.post(f"/api/requests/{call.complete.request_id}/cancel", None)
    response = await posted
    assert (response.status, (await response.json())["error"]["code"]) == (409, "cancelled")


async def test_headers_do_not_wait_for_ever(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """After long silence the headers are sent with a ping; a later failure is an event of the stream."""
    monkeypatch.setattr(sse, "PING_INTERVAL", 0.001)
    wire = await service.connect("POST", PATH, STREAM)
    assert (await wire.headers()).startswith("HTTP/1.1 200 ")
    assert await wire.chunk() == b": ping\n"
    assert await wire.chunk() == b": ping\n"
    await (await service.call()).fail(ProviderError("it fell over"))
    while (chunk := await wire.chunk()) == b": ping\n":
        pass
    assert json.loads(chunk.removeprefix(b"data: "))["error"]["code"] == "provider_error"
    assert await wire.chunk() == b""
    await wire.leave()


async def test_the_first_and_the_last_chunk_are_each_one_write(service: Service) -> None:
    """The role is sent with the first content, `[DONE]` with the finish."""
    wire = await service.connect("POST", PATH, STREAM)
    call = await service.call()
    await call.say("a")
    await wire.headers()
    assert said((await wire.chunk()).decode()) == "a"
    await call.end()
    assert (await wire.chunk()).endswith(b"data: [DONE]\n\n")
    assert await wire.chunk() == b""
    await wire.leave()


async def test_a_hundred_at_once_make_one_call_and_the_next_makes_none(service: Service) -> None:
    """Each client gets the whole stream, and the header with its source."""
    posts = [asyncio.ensure_future(opened(service, SAME)) for _ in range(100)]
    call = await service.call()
    await call.say("one ")
    responses = await asyncio.gather(*posts)
    await call.say("answer")
    await call.end()
    texts = [await response.text() for response in responses]
    assert [said(text) for text in texts] == ["one answer"] * 100
    assert len({chunks(text)[0]["id"] for text in texts}) == 100
    sources = [response.headers["x-tidegate-source"] for response in responses]
    assert sorted(sources) == ["joined"] * 99 + ["upstream"]
    joined = responses[sources.index("joined")]
    assert (joined.headers["x-tidegate-attempts"], joined.headers["x-tidegate-cost-usd"]) == ("0", "0")
    for body in (SAME, SAME | {"stream": False}):
        later = await service.post(PATH, body)
        assert (later.headers["x-tidegate-source"], later.headers["x-tidegate-cost-usd"]) == ("cache", "0")
        assert "one answer" in (said(await later.text()) if body["stream"] else await later.text())
    assert service.calls.empty()


@pytest.mark.parametrize(
    ("changes", "headers", "shared"),
    [
        ({}, {}, False),
        ({"temperature": 0.5}, {}, False),
        ({"temperature": 0}, {}, True),
        ({"seed": 1}, {}, True),
        ({}, {"x-tidegate-dedupe": "on"}, True),
        ({"temperature": 0}, {"x-tidegate-dedupe": "off"}, False),
    ],
)
async def test_answers_are_shared_where_they_are_meant_to_be_the_same(
    service: Service, changes: dict[str, Any], headers: dict[str, str], shared: bool
) -> None:
    """Identical calls share with temperature 0, a seed, or the header; also from the cache."""
    for number in range(2):
        if number and shared:
            response = await service.post(PATH, CHAT | changes, **headers)
        else:
            posted = begin(service, CHAT | changes, **headers)
            call = await service.call()
            await call.say("x")
            await call.end()
            response = await posted
        assert response.headers["x-tidegate-source"] == ("cache" if number and shared else "upstream")


@pytest.mark.parametrize("header", ["x-tidegate-dedupe", "x-tidegate-on-abandon"])
async def test_a_switch_that_is_misspelt_is_refused(service: Service, header: str) -> None:
    """A header with an unknown value is refused."""
    response = await service.post(PATH, CHAT, **{header: "maybe"})
    error = (await response.json())["error"]
    assert (response.status, error["type"], error["param"]) == (400, "invalid_request_error", header)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_only_stops_following(service: Service, stream: bool) -> None:
    """A disconnect is noticed at once; the request goes on to its end."""
    wire = await service.connect("POST", PATH, CHAT | {"stream": stream})
    call = await service.call()
    request_id = call.complete.request_id
    await service.until_followers(request_id, 1)
    await wire.leave()
    await service.until_followers(request_id, 0)
    assert not call.cancelled.is_set()
    await call.say("unheard")
    await call.end()
    events = await service.follow(request_id)
    assert b"unheard" in await events.read()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_may_ask_that_leaving_cancels(stream: bool) -> None:
    """With `x-tidegate-on-abandon: cancel` the upstream call is closed soon after."""
    async with open_service(abandon_grace_seconds=0) as service:
        posted = asyncio.ensure_future(
            opened(service, CHAT | {"stream": stream}, **{"x-tidegate-on-abandon": "cancel"})
        )
        call = await service.call()
        await service.until_followers(call.complete.request_id, 1)
        assert not call.cancelled.is_set()
        posted.cancel()
        await call.cancelled.wait()


async def test_an_idempotency_key_works_here_too(service: Service) -> None:
    """A repeated call returns the first request's answer, with a header."""
    posted = begin(service, CHAT, idempotency_key="k")
    call = await service.call()
    await call.say("once")
    await call.end()
    first = await posted
    again = await service.post(PATH, STREAM, idempotency_key="k")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (await first.json())["id"] == chunks(await again.text())[0]["id"]
    assert service.calls.empty()


async def test_any_answer_can_be_followed_natively(service: Service) -> None:
    """The id after `chatcmpl-` is a native request's id."""
    response = await asyncio.gather(opened(service, STREAM), answer(service, "Hel", "lo"))
    text = await response[0].text()
    request_id = chunks(text)[0]["id"].removeprefix("chatcmpl-")
    assert (await service.state(request_id))["coreResult"] == {
        "text": "Hello",
        "toolCalls": [],
        "parts": [{"type": "text", "text": "Hello"}],
    }


async def answer(service: Service, *texts: str) -> None:
    """Answer the next call."""
    call = await service.call()
    await call.say(*texts)
    await call.end()


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"{", 400, "malformed_json", None),
        (b"{}", 400, "invalid_request", "model"),
        (CHAT | {"messages": []}, 400, "invalid_request", "messages"),
        (CHAT | {"temperature": 3}, 400, "invalid_request", "temperature"),
        (CHAT | {"seed": 2**80}, 400, "invalid_request", "seed"),
        (
            CHAT | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 7}}}},
            400,
            "invalid_schema",
            "response_format.json_schema.schema.type",
        ),
        (CHAT | {"model": "unknown"}, 404, "model_not_found", None),
    ],
)
async def test_bad_input_is_openai_s_envelope(
    service: Service, body: object, status: int, code: str, param: str | None
) -> None:
    """Status, type, code and parameter in the vendor's envelope."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with service.client.post(
        service.base + PATH, data=data, headers={"Content-Type": "application/json"}
    ) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"], error["param"]) == (status, code, param)
        assert error["type"] == "invalid_request_error"
        assert error["message"]
