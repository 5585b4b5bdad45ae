"""Anthropic's dialect over HTTP: JSON, streams, token counts, errors."""

import asyncio
import json
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import pytest
from aiohttp import ClientResponse

from protocol.anthropic.answer import PING_EVENT
from protocol.errors import Overloaded, ProviderError, TidegateError, TryAgainLater
from protocol.events import ToolCallDelta
from service.http import sse
from tests.service.bench import CHAT, Service, open_service

PATH = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
MESSAGE = CHAT | {"max_tokens": 9}
STREAM = MESSAGE | {"stream": True}
TOOLS = [{"name": "look", "input_schema": {"type": "object"}}]


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with a gateway that the test scripts."""
    async with open_service(max_body_bytes=1_048_576) as running:
        yield running


def begin(service: Service, body: object, **headers: str) -> "asyncio.Task[ClientResponse]":
    """Post a call without waiting for its response."""
    return asyncio.ensure_future(service.post(PATH, body, **headers))


def events(text: str) -> list[Any]:
    """Return the data of each event; checks that its name is its type."""
    found = []
    for block in text.split("\n\n")[:-1]:
        name, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def said(text: str) -> str:
    """Return the joined text, or arguments, of a stream's deltas."""
    deltas = [event["delta"] for event in events(text) if event["type"] == "content_block_delta"]
    return "".join(delta.get("text", delta.get("partial_json", "")) for delta in deltas)


async def test_a_whole_answer(service: Service) -> None:
    """One message with the request's id, and the headers of an inference."""
    posted = begin(service, MESSAGE)
    call = await service.call()
    await call.say("Hel", "lo")
    await call.end()
    response = await posted
    body = await response.json()
    assert response.status == 200
    assert body["content"] == [{"type": "text", "text": "Hello"}]
    assert (body["usage"]["input_tokens"], body["usage"]["output_tokens"]) == (3, 2)
    assert (body["id"], body["model"]) == (f"msg_{call.complete.request_id}", "m")
    assert response.headers["request-id"] == call.complete.request_id
    assert response.headers["x-request-id"] == call.complete.request_id
    assert response.headers["x-tidegate-source"] == "upstream"
    assert float(response.headers["x-tidegate-overhead-ms"]) > 0


async def test_a_stream(service: Service) -> None:
    """Named events of one message, from start to stop."""
    posted = begin(service, STREAM)
    call = await service.call()
    await call.say("Hel", "lo")
    await call.end()
    response = await posted
    text = await response.text()
    assert response.headers["Content-Type"] == "text/event-stream"
    assert response.headers["request-id"] == call.complete.request_id
    start, *_, delta, stop = events(text)
    assert start["message"]["id"] == f"msg_{call.complete.request_id}"
    assert (said(text), delta["delta"]["stop_reason"], stop["type"]) == ("Hello", "end_turn", "message_stop")


async def test_tool_calls_are_streamed(service: Service) -> None:
    """Pieces of a tool call are streamed as Anthropic's; in JSON they are one block."""
    for stream in (True, False):
        posted = begin(service, MESSAGE | {"stream": stream, "tools": TOOLS})
        call = await service.call()
        assert call.complete.request.tools[0].name == "look"
        await call.tell(ToolCallDelta(index=0, id="c1", name="look", arguments='{"at"'))
        await call.tell(ToolCallDelta(index=0, arguments=": 1}"))
        await call.end()
        response = await posted
        if stream:
            assert said(await response.text()) == '{"at": 1}'
        else:
            body = await response.json()
            assert body["content"] == [{"type": "tool_use", "id": "c1", "name": "look", "input": {"at": 1}}]
            assert body["stop_reason"] == "tool_use"


@pytest.mark.parametrize("body", [MESSAGE, STREAM])
@pytest.mark.parametrize(
    ("failure", "status", "kind"),
    [
        (TryAgainLater("slow down", code="provider_rate_limited", retry_after=1.5), 429, "rate_limit_error"),
        (Overloaded("full", code="provider_overloaded"), 529, "overloaded_error"),
        (ProviderError("it fell over"), 502, "api_error"),
    ],
)
async def test_a_failure_before_content_is_an_http_error(
    service: Service, body: dict[str, Any], failure: TidegateError, status: int, kind: str
) -> None:
    """A failure before content is an HTTP error; an overload has the vendor's status."""
    posted = begin(service, body)
    call = await service.call()
    await call.fail(failure)
    response = await posted
    assert response.status == status
    assert response.headers["request-id"] == call.complete.request_id
    assert response.headers["x-tidegate-attempts"] == "1"
    assert response.headers.get("Retry-After") == ("2" if failure.retry_after else None)
    assert await response.json() == {
        "type": "error",
        "error": {"type": kind, "message": failure.detail, "details": {"error_code": failure.code}},
        "request_id": call.complete.request_id,
    }


async def test_our_retries_are_not_multiplied(service: Service) -> None:
    """A client is told not to retry what was retried already."""
    posted = begin(service, MESSAGE)
    await (await service.call()).fail(ProviderError())
    assert (await posted).headers["x-should-retry"] == "false"


async def test_a_failure_in_mid_stream_is_said_in_the_stream(service: Service) -> None:
    """After content there is an error event, and no stop."""
    posted = begin(service, STREAM, x_request_id="mine")
    call = await service.call()
    await call.say("so far")
    await call.fail(ProviderError("it fell over", code="provider_stream_broken"))
    response = await posted
    text = await response.text()
    assert (response.status, response.headers["request-id"], said(text)) == (200, "mine", "so far")
    assert events(text)[-1] == {
        "type": "error",
        "error": {
            "type": "api_error",
            "message": "it fell over",
            "details": {"error_code": "provider_stream_broken"},
        },
        "request_id": "mine",
    }


async def test_headers_do_not_wait_for_ever(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """After long silence the headers are sent with a ping; a later failure is an event of the stream."""
    monkeypatch.setattr(sse, "PING_INTERVAL", 0.001)
    wire = await service.connect("POST", PATH, STREAM)
    assert (await wire.headers()).startswith("HTTP/1.1 200 ")
    assert await wire.chunk() == PING_EVENT
    assert await wire.chunk() == PING_EVENT
    await (await service.call()).fail(ProviderError("it fell over"))
    while (chunk := await wire.chunk()) == PING_EVENT:
        pass
    assert events(chunk.decode())[0]["error"]["message"] == "it fell over"
    assert await wire.chunk() == b""
    await wire.leave()


async def test_the_first_and_the_last_piece_are_each_one_write(service: Service) -> None:
    """The start is sent with the first content, the stop with the reason."""
    wire = await service.connect("POST", PATH, STREAM)
    call = await service.call()
    await call.say("a")
    await wire.headers()
    kinds = [event["type"] for event in events((await wire.chunk()).decode())]
    assert kinds == ["message_start", "content_block_start", "content_block_delta"]
    await call.end()
    kinds = [event["type"] for event in events((await wire.chunk()).decode())]
    assert kinds == ["content_block_stop", "message_delta", "message_stop"]
    assert await wire.chunk() == b""
    await wire.leave()


async def test_a_structured_answer_is_asked_for_by_output_config(service: Service) -> None:
    """The request gets the schema, and the text is the validated JSON."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    posted = begin(service, MESSAGE | {"output_config": {"format": {"type": "json_schema", "schema": schema}}})
    call = await service.call()
    assert call.complete.request.schema == schema
    await call.end(result={"a": 1})
    assert json.loads((await (await posted).json())["content"][0]["text"]) == {"a": 1}


async def test_any_answer_can_be_followed_natively(service: Service) -> None:
    """The id after `msg_` is a native request's id."""
    posted = begin(service, STREAM)
    call = await service.call()
    await call.say("Hel", "lo")
    await call.end()
    name = events(await (await posted).text())[0]["message"]["id"].removeprefix("msg_")
    assert (await service.state(name))["coreResult"]["parts"] == [{"type": "text", "text": "Hello"}]
    assert b"Hel" in await (await service.follow(name)).read()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_only_stops_following(service: Service, stream: bool) -> None:
    """A disconnect is noticed at once; the request goes on to its end."""
    wire = await service.connect("POST", PATH, MESSAGE | {"stream": stream})
    call = await service.call()
    await service.until_followers(call.complete.request_id, 1)
    await wire.leave()
    await service.until_followers(call.complete.request_id, 0)
    assert not call.cancelled.is_set()
    await call.end()


@pytest.mark.parametrize(
    ("body", "status", "kind", "code"),
    [
        (b"{", 400, "invalid_request_error", "malformed_json"),
        (CHAT, 400, "invalid_request_error", "invalid_request"),
        (MESSAGE | {"temperature": 1.5}, 400, "invalid_request_error", "invalid_request"),
        (MESSAGE | {"stop_sequences": ["x"] * 65}, 400, "invalid_request_error", "invalid_request"),
        (
            MESSAGE | {"tools": [{"name": "look", "input_schema": {"type": 7}}]},
            400,
            "invalid_request_error",
            "invalid_schema",
        ),
        (MESSAGE | {"model": "unknown"}, 404, "not_found_error", "model_not_found"),
        (MESSAGE | {"system": "x" * 1_100_000}, 413, "request_too_large", "body_too_large"),
    ],
)
async def test_bad_input_is_anthropic_s_envelope(
    service: Service, body: object, status: int, kind: str, code: str
) -> None:
    """Status, type and code, on both routes, with the id in the header and in the body."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with service.client.post(
        service.base + PATH, data=BytesIO(data), headers={"Content-Type": "application/json"}
    ) as response:
        told = await response.json()
        assert (response.status, told["type"], told["error"]["type"]) == (status, "error", kind)
        assert told["error"]["details"] == {"error_code": code}
        assert told["error"]["message"]
        assert response.headers["request-id"] == told["request_id"]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"stop_sequences": ["x"] * 65}, "$.stop_sequences"),
        ({"tools": [{"name": "look", "input_schema": {"type": 7}}]}, "$.tools[0].input_schema"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": 7}}}},
            "$.output_config.format.schema",
        ),
    ],
)
async def test_what_is_wrong_is_said_by_the_dialect_s_path(service: Service, change: dict[str, Any], path: str) -> None:
    """The message names the field in the client's spelling."""
    told = await (await service.post(PATH, MESSAGE | change)).json()
    assert path in told["error"]["message"]


async def test_what_the_layer_refuses_is_anthropic_s_envelope_too() -> None:
    """A wrong method, a missing key and a shutdown have this dialect's envelope; either header takes the key."""
    async with open_service(api_keys="a-secret-of-the-tests") as service:
        for path in (PATH, COUNT):
            refused = await service.post(path, MESSAGE)
            assert (refused.status, (await refused.json())["error"]["type"]) == (401, "authentication_error")
            assert refused.headers["request-id"]
        for headers in ({"x_api_key": "a-secret-of-the-tests"}, {"authorization": "Bearer a-secret-of-the-tests"}):
            counted = await service.post(COUNT, CHAT, anthropic_version="2023-06-01", **headers)
            assert counted.status == 200
        missing = await service.get(PATH, x_api_key="a-secret-of-the-tests")
        assert (missing.status, (await missing.json())["type"]) == (405, "error")
        service.container.lifecycle.stop()
        stopping = await service.post(PATH, MESSAGE, x_api_key="a-secret-of-the-tests")
        assert (stopping.status, (await stopping.json())["error"]["type"]) == (529, "overloaded_error")


async def test_tokens_are_estimated(service: Service) -> None:
    """Four characters a token, without asking the provider; `max_tokens` is not required."""
    body = {"model": "m", "system": "x" * 40, "messages": [{"role": "user", "content": "y" * 40}]}
    response = await service.post(COUNT, body)
    assert (response.status, await response.json()) == (200, {"input_tokens": 20})
    assert response.headers["request-id"]
    assert service.calls.empty()


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [({"model": "unknown"}, 404, "model_not_found"), ({"messages": []}, 400, "invalid_request")],
)
async def test_a_count_is_refused_as_a_message_is(
    service: Service, change: dict[str, Any], status: int, code: str
) -> None:
    """A request that is invalid can't be counted either."""
    response = await service.post(COUNT, CHAT | change)
    assert (response.status, (await response.json())["error"]["details"]["error_code"]) == (status, code)
