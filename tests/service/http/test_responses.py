"""OpenAI's Responses API over HTTP: JSON, stream, background; retrieve, resume, cancel, continue."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientResponse

from actors.log.event_log import ENTRY_BYTES
from protocol.errors import ProviderError, TryAgainLater
from protocol.events import Delta
from service.http import sse
from tests.service.bench import Call, Service, open_service

PATH = "/v1/responses"
ASK: dict[str, Any] = {"model": "m", "input": "hi"}
STREAM = ASK | {"stream": True}
BACKGROUND = ASK | {"background": True}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with a gateway that the test scripts."""
    async with open_service() as running:
        yield running


def begin(service: Service, body: object, **headers: str) -> "asyncio.Task[ClientResponse]":
    """Post a call without waiting for its response."""
    return asyncio.ensure_future(service.post(PATH, body, **headers))


async def asked(service: Service, body: object, *texts: str) -> tuple[Any, Call]:
    """Create and answer a response; returns it and the call."""
    posted = begin(service, body)
    call = await service.call()
    await call.say(*texts)
    await call.end()
    return await (await posted).json(), call


def events(text: str) -> list[Any]:
    """The data of each event."""
    blocks = text.replace(": ping\n", "").split("\n\n")[:-1]
    return [json.loads(block.split("\n")[1].removeprefix("data: ")) for block in blocks]


async def resumed(service: Service, response_id: str, query: str = "") -> list[Any]:
    """The events of a response to its end."""
    response = await service.get(f"{PATH}/{response_id}?stream=true{query}")
    assert response.status == 200
    assert response.headers["Content-Type"] == "text/event-stream"
    return events(await response.text())


async def error_of(response: ClientResponse) -> tuple[int, str, str | None]:
    """Status, code and parameter of a failure in OpenAI's envelope."""
    error = (await response.json())["error"]
    return response.status, error["code"], error["param"]


async def test_a_whole_answer_is_there_later_too(service: Service) -> None:
    """A response is kept under its request's id until the TTL."""
    body, call = await asked(service, ASK, "Hel", "lo")
    assert body["output"][0]["content"][0]["text"] == "Hello"
    assert body["id"] == f"resp_{call.complete.request_id}"
    later = await service.get(f"{PATH}/{body['id']}")
    assert await later.json() == body
    assert (await service.state(call.complete.request_id))["coreResult"]["text"] == "Hello"


async def test_a_stream_is_resumed_after_any_event(service: Service) -> None:
    """Each client gets the remaining events with the same numbers; one that has all gets 204."""
    posted = begin(service, STREAM)
    call = await service.call()
    await call.say("Hel", "lo")
    await call.end()
    response = await posted
    said = events(await response.text())
    assert response.headers["x-tidegate-source"] == "upstream"
    assert [event["sequence_number"] for event in said] == list(range(len(said)))
    response_id = said[0]["response"]["id"]
    assert await resumed(service, response_id) == said
    for after in range(len(said) - 1):
        assert await resumed(service, response_id, f"&starting_after={after}") == said[after + 1 :]
    last = await service.get(f"{PATH}/{response_id}?stream=true&starting_after={len(said) - 1}")
    assert last.status == 204


async def test_a_client_that_is_cut_off_goes_on_where_it_was(service: Service) -> None:
    """Resuming a running response: the missed events, then the live ones."""
    wire = await service.connect("POST", PATH, STREAM)
    call = await service.call()
    await call.say("a")
    await wire.headers()
    seen = events((await wire.chunk()).decode())
    await wire.leave()
    response_id, after = seen[0]["response"]["id"], seen[-1]["sequence_number"]
    await call.say("b")
    resuming = asyncio.ensure_future(resumed(service, response_id, f"&starting_after={after}"))
    await service.until_followers(call.complete.request_id, 1)
    await call.say("c")
    await call.end()
    rest = await resuming
    assert [event.get("delta") for event in rest[:2]] == ["b", "c"]
    assert [event["sequence_number"] for event in seen + rest] == list(range(len(seen + rest)))
    assert seen + rest == await resumed(service, response_id)


async def test_a_response_in_the_background(service: Service) -> None:
    """A background response returns at once, runs without followers, and is retrieved after its end."""
    response = await service.post(PATH, BACKGROUND)
    body = await response.json()
    assert (response.status, body["status"], body["background"]) == (200, "queued", True)
    call = await service.call()
    await call.say("Hello")
    body = await (await service.get(f"{PATH}/{body['id']}")).json()
    assert (body["status"], body["output"][0]["content"][0]["text"]) == ("in_progress", "Hello")
    await call.end()
    await resumed(service, body["id"])
    body = await (await service.get(f"{PATH}/{body['id']}")).json()
    assert (body["status"], body["usage"]["output_tokens"]) == ("completed", 1)


async def test_a_stream_of_the_background_names_its_response_at_once(service: Service) -> None:
    """A background stream begins before content, so that a client can resume it."""
    wire = await service.connect("POST", PATH, BACKGROUND | {"stream": True})
    await wire.headers()
    first = events((await wire.chunk()).decode())
    assert [event["type"] for event in first] == ["response.created", "response.in_progress"]
    await wire.leave()
    call = await service.call()
    await call.say("Hello")
    await call.end()
    rest = await resumed(service, first[0]["response"]["id"], "&starting_after=1")
    assert rest[-1]["type"] == "response.completed"


@pytest.mark.parametrize("body", [ASK, STREAM])
async def test_a_failure_before_content_is_an_http_error(service: Service, body: dict[str, Any]) -> None:
    """A failure before content is an HTTP error."""
    posted = begin(service, body)
    await (await service.call()).fail(TryAgainLater("slow down", code="provider_rate_limited", retry_after=1.5))
    response = await posted
    assert await error_of(response) == (429, "provider_rate_limited", None)
    assert (response.headers["Retry-After"], response.headers["x-should-retry"]) == ("2", "false")


async def test_a_failure_in_mid_stream_ends_the_response(service: Service) -> None:
    """A failure after content is an event, and the response's state."""
    posted = begin(service, STREAM)
    call = await service.call()
    await call.say("so far")
    await call.fail(ProviderError("it fell over", code="provider_stream_broken"))
    last = events(await (await posted).text())[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"]["type"] == "provider_stream_broken"
    assert await (await service.get(f"{PATH}/{last['response']['id']}")).json() == last["response"]


async def test_a_response_is_cancelled(service: Service) -> None:
    """The upstream call is closed; cancelling again, or after the end, changes nothing."""
    body = await (await service.post(PATH, BACKGROUND)).json()
    call = await service.call()
    for _ in range(2):
        response = await service.post(f"{PATH}/{body['id']}/cancel", None)
        assert (response.status, (await response.json())["status"]) == (200, "cancelled")
    await call.cancelled.wait()
    done, _ = await asked(service, ASK, "Hello")
    late = await service.post(f"{PATH}/{done['id']}/cancel", None)
    assert (await late.json())["status"] == "completed"


async def test_a_conversation_goes_on_from_a_response(service: Service) -> None:
    """A conversation continues with all its turns, without its instructions."""
    first, _ = await asked(service, ASK | {"instructions": "be brief"}, "Hello")
    second, call = await asked(service, {"model": "m", "input": "and?", "previous_response_id": first["id"]}, "Bye")
    assert second["previous_response_id"] == first["id"]
    assert [message.content for message in call.complete.request.messages] == ["hi", "Hello", "and?"]
    _, call = await asked(service, ASK | {"input": "so?", "previous_response_id": second["id"]}, "x")
    assert [message.content for message in call.complete.request.messages] == ["hi", "Hello", "and?", "Bye", "so?"]


async def test_a_conversation_is_no_longer_than_a_body() -> None:
    """A conversation is limited to the size of a body."""
    async with open_service(max_body_bytes=1024) as service:
        body, _ = await asked(service, ASK, "x" * 1000)
        response = await service.post(PATH, ASK | {"previous_response_id": body["id"]})
        assert await error_of(response) == (413, "body_too_large", None)


async def test_a_response_that_has_no_answer_is_not_gone_on_from(service: Service) -> None:
    """A running or unknown response can't be continued."""
    body = await (await service.post(PATH, BACKGROUND)).json()
    running = await service.post(PATH, ASK | {"previous_response_id": body["id"]})
    assert await error_of(running) == (400, "invalid_request", "previous_response_id")
    absent = await service.post(PATH, ASK | {"previous_response_id": "resp_x"})
    assert await error_of(absent) == (404, "request_not_found", "previous_response_id")


async def test_what_is_not_to_be_stored_is_not_retrieved(service: Service) -> None:
    """With `store: false` a response is not found on any route."""
    body, _ = await asked(service, ASK | {"store": False}, "Hello")
    for response in (
        await service.get(f"{PATH}/{body['id']}"),
        await service.get(f"{PATH}/{body['id']}?stream=true"),
        await service.post(f"{PATH}/{body['id']}/cancel", None),
        await service.get(f"{PATH}/resp_x"),
    ):
        assert (await error_of(response))[:2] == (404, "request_not_found")


@pytest.mark.parametrize(
    ("query", "param"),
    [("stream=maybe", "stream"), ("stream=true&starting_after=-1", "starting_after"), ("starting_after=1", None)],
)
async def test_a_query_that_is_misspelt_is_refused(service: Service, query: str, param: str | None) -> None:
    """An invalid query parameter is refused by name."""
    body, _ = await asked(service, ASK, "Hello")
    response = await service.get(f"{PATH}/{body['id']}?{query}")
    assert await error_of(response) == (400, "invalid_request", param or "starting_after")


async def test_a_number_that_has_not_been_given_is_refused(service: Service) -> None:
    """A number beyond the last event is refused."""
    body, _ = await asked(service, ASK, "Hello")
    response = await service.get(f"{PATH}/{body['id']}?stream=true&starting_after=99")
    assert (await error_of(response))[:2] == (410, "unrecoverable_position")


async def test_a_response_that_is_longer_than_its_log_s_budget_is_resumed_anywhere() -> None:
    """Packed entries give the same events under the same numbers."""
    async with open_service(log_max_bytes=ENTRY_BYTES * 20) as service:
        posted = begin(service, STREAM)
        call = await service.call()
        await call.say(*"abcdefghijklmnopqrstuvwxyz")
        await call.end()
        said = events(await (await posted).text())
        response_id = said[0]["response"]["id"]
        for after in range(len(said) - 1):
            assert await resumed(service, response_id, f"&starting_after={after}") == said[after + 1 :]
        body = await (await service.get(f"{PATH}/{response_id}")).json()
        assert body["output"][0]["content"][0]["text"] == "abcdefghijklmnopqrstuvwxyz"


async def test_a_reader_that_is_overtaken_misses_nothing() -> None:
    """The log has packed entries that a slow reader has not been sent yet; the reader gets each piece."""
    async with open_service(log_max_bytes=ENTRY_BYTES * 20) as service:
        body = await (await service.post(PATH, BACKGROUND)).json()
        call = await service.call()
        wire = await service.connect("GET", f"{PATH}/{body['id']}?stream=true")
        await wire.headers()
        await wire.chunk()
        await call.tell(*[Delta(text="x")] * 100)
        await call.end()
        said = b""
        while chunk := await wire.chunk():
            said += chunk
        await wire.leave()
        assert [event["delta"] for event in events(said.decode()) if "delta" in event] == ["x"] * 100


async def test_a_response_that_somebody_else_shares_is_cancelled_alone(service: Service) -> None:
    """A cancelled joined response ends with the same numbers for later clients; the other one goes on."""
    same = BACKGROUND | {"temperature": 0}
    first = await (await service.post(PATH, same)).json()
    call = await service.call()
    second = await (await service.post(PATH, same)).json()
    await call.say("a", "b")
    await service.post(f"{PATH}/{second['id']}/cancel", None)
    await call.say("c")
    await call.end()
    whole, cut = await resumed(service, first["id"]), await resumed(service, second["id"])
    assert "".join(event.get("delta", "") for event in whole) == "abc"
    last = cut[-1]["response"]
    assert (last["status"], last["output"][0]["content"][0]["text"]) == ("cancelled", "ab")
    assert [event["sequence_number"] for event in cut] == list(range(7))
    assert [event.get("delta") for event in cut[:-1]] == [event.get("delta") for event in whole[: len(cut) - 1]]


async def test_an_answer_that_may_begin_anew_is_not_streamed_here(service: Service) -> None:
    """An answer that may restart can't be resumed in this dialect."""
    request_id = await service.answered("Hello", options={"onAttemptFailed": "restart"})
    response = await service.get(f"{PATH}/resp_{request_id}?stream=true")
    assert (await error_of(response))[:2] == (400, "invalid_request")
    assert "/api/requests/" in await response.text()
    assert (await service.get(f"{PATH}/resp_{request_id}")).status == 200


async def test_a_reader_that_waits_is_pinged(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent stream gets pings, also after a resume."""
    monkeypatch.setattr(sse, "PING_INTERVAL", 0.001)
    body = await (await service.post(PATH, BACKGROUND)).json()
    call = await service.call()
    wire = await service.connect("GET", f"{PATH}/{body['id']}?stream=true&starting_after=1")
    await wire.headers()
    assert [await wire.chunk() for _ in range(3)] == [b": ping\n"] * 3
    await call.end()
    while (chunk := await wire.chunk()) == b": ping\n":
        pass
    assert b"response.completed" in chunk
    await wire.leave()


async def test_a_stream_is_pinged_before_the_upstream_has_answered(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After long silence the headers are sent, then pings until there is content."""
    monkeypatch.setattr(sse, "PING_INTERVAL", 0.001)
    wire = await service.connect("POST", PATH, STREAM)
    assert (await wire.headers()).startswith("HTTP/1.1 200 ")
    assert [await wire.chunk() for _ in range(2)] == [b": ping\n"] * 2
    call = await service.call()
    await call.say("Hello")
    await call.end()
    while (chunk := await wire.chunk()) == b": ping\n":
        pass
    assert chunk.startswith(b"event: response.created\n")
    await wire.leave()


async def test_identical_calls_share_an_answer_but_no_names(service: Service) -> None:
    """Joined responses have their own id and metadata."""
    same = ASK | {"temperature": 0}
    first, _ = await asked(service, same | {"metadata": {"who": "one"}}, "Hello")
    second = await service.post(PATH, same | {"metadata": {"who": "two"}})
    assert second.headers["x-tidegate-source"] == "cache"
    body = await second.json()
    assert (first["metadata"], body["metadata"]) == ({"who": "one"}, {"who": "two"})
    assert (body["output"][0]["content"], body["id"] != first["id"]) == (first["output"][0]["content"], True)


async def test_notes_are_bounded(service: Service) -> None:
    """Metadata has the vendor's limits."""
    response = await service.post(PATH, ASK | {"metadata": {str(number): "" for number in range(17)}})
    assert await error_of(response) == (400, "invalid_request", "metadata")


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": 7}}}}, "text.format.schema.type"),
        ({"conversation": "conv_1"}, "conversation"),
    ],
)
async def test_bad_input_is_openai_s_envelope(service: Service, change: dict[str, Any], param: str) -> None:
    """Each error has the parameter's name in this dialect."""
    response = await service.post(PATH, ASK | change)
    status, _, named = await error_of(response)
    assert (status, named) == (400, param)
