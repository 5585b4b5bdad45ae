"""Partial JSON values, as clients see them."""

import json
from typing import Any

from aiohttp import ClientWebSocketResponse

from protocol.events import AttemptFailed, Delta
from tests.service.bench import BODY, open_service, parse_events, read_events

SCHEMA = {"type": "object"}
ASKED: dict[str, Any] = {"schema": SCHEMA, "options": {"partial": True}}
PIECES = ('{"na', 'me": "Pizz', 'a",\n "stars": 4', '.5, "open": tr', "ue}")
VALUES = [{}, {"name": "Pizz"}, {"name": "Pizza"}, {"name": "Pizza", "stars": 4.5}]
WHOLE = {"name": "Pizza", "stars": 4.5, "open": True}


async def frame_of(socket: ClientWebSocketResponse) -> dict[str, Any]:
    """Return the next frame."""
    frame: dict[str, Any] = json.loads(await socket.receive_str())
    return frame


async def test_server_sent_events_have_the_value_so_far() -> None:
    """Each live update has the value so far, on one line."""
    async with open_service() as service:
        request_id = await service.submit(**ASKED)
        call = await service.call()
        stream = await service.follow(request_id)
        assert b"running" in await stream.content.readuntil(b"\n\n")
        for piece, value in zip(PIECES, [*VALUES, WHOLE], strict=True):
            await call.say(piece)
            (event,) = parse_events((await stream.content.readuntil(b"\n\n")).decode())
            assert event.data["data"] == {"delta": piece, "partial": value}
        await call.end(result=WHOLE)
        (event,) = await read_events(stream)
        assert event.data["data"]["coreResult"] == WHOLE


async def test_the_socket_has_the_value_so_far() -> None:
    """Live clients get the value, and late ones get it at once, on every surface."""
    async with open_service() as service, service.client.ws_connect(f"{service.base}/ws") as first:
        await first.send_json({"type": "submit", "id": 1, **BODY, **ASKED})
        ack = await frame_of(first)
        request_id = ack["requestId"]
        call = await service.call()
        assert (await frame_of(first))["data"]["state"] == "running"
        for piece, value in zip(PIECES, VALUES, strict=False):
            await call.say(piece)
            frame = await frame_of(first)
            assert frame["data"] == {"delta": piece, "partial": value}
        said = "".join(PIECES[:4])
        for extra, data in (
            ({"mode": "snapshot"}, {"text": said, "parts": [{"type": "text", "text": said}], "partial": VALUES[-1]}),
            ({"after": {"epoch": ack["data"]["epoch"], "offset": 4}}, {"delta": PIECES[3], "partial": VALUES[-1]}),
        ):
            async with service.client.ws_connect(f"{service.base}/ws") as late:
                await late.send_json({"type": "subscribe", "requestId": request_id, **extra})
                assert (await frame_of(late))["data"] == data
        await call.end(result=WHOLE)
        assert (await frame_of(first))["type"] == "complete"


async def test_after_a_restart_the_value_begins_anew() -> None:
    """A stream and a long poll have the value."""
    async with open_service() as service:
        request_id = await service.submit(**ASKED)
        call = await service.call()
        stream = await service.follow(request_id)
        await call.say('{"old": "')
        await stream.content.readuntil(b'"partial":{"old": ""}')
        await call.tell(
            AttemptFailed(provider="p", model="m", code="schema_mismatch", restart=True), Delta('{"new": "')
        )
        assert b'"old"' not in await stream.content.readuntil(b'"partial":{"new": ""}')
        polled = await service.get(f"/api/requests/{request_id}/events", accept="application/json")
        assert (await polled.json())["events"][-1]["data"] == {"delta": '{"new": "', "partial": {"new": ""}}
        stream.close()


async def test_only_who_asks_has_the_value() -> None:
    """An identical request without ``partial`` shares the call, and its stream has no values."""
    async with open_service() as service:
        asked, plain = await service.submit(**ASKED), await service.submit(schema=SCHEMA)
        call = await service.call()
        await call.say(*PIECES)
        await call.end(result=WHOLE)
        events = [await read_events(await service.follow(request_id)) for request_id in (asked, plain)]
        assert [sum("partial" in event.data["data"] for event in of_one) for of_one in events] == [1, 0]
        assert service.calls.empty()
        assert (await service.state(plain))["source"] == "joined"


async def test_an_answer_that_is_no_json_has_no_value() -> None:
    """An answer that is not JSON has no partial value, and is read as text."""
    async with open_service() as service:
        request_id = await service.submit(**ASKED)
        call = await service.call()
        await call.say("Here is", " the JSON: {}")
        await call.end()
        events = await read_events(await service.follow(request_id))
        assert not any("partial" in event.data["data"] for event in events)


async def test_without_a_schema_it_is_refused() -> None:
    """``partial`` without a schema is refused, over HTTP and on the socket."""
    async with open_service() as service:
        refused = await service.post("/api/requests", BODY | {"options": {"partial": True}})
        problem = await refused.json()
        assert (refused.status, problem["code"]) == (400, "invalid_request")
        assert [fault["path"] for fault in problem["errors"]] == ["$.options.partial"]
        async with service.client.ws_connect(f"{service.base}/ws") as socket:
            await socket.send_json({"type": "submit", "id": 1, **BODY, "options": {"partial": True}})
            assert (await frame_of(socket))["error"]["errors"][0]["path"] == "$.options.partial"
