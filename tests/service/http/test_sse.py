"""A log as server-sent events: from any position to its end."""

import random
from collections.abc import AsyncIterator

import pytest

from protocol.events import Delta
from service.http import sse
from tests.service.bench import Event, Service, open_service, parse_events, read_events, text_of

PIECES = tuple(f"{index} " for index in range(40))
TEXT = "".join(PIECES)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with a gateway that the test scripts."""
    async with open_service() as running:
        yield running


async def test_a_stream_is_written_to_the_byte(service: Service) -> None:
    """Id, event and data, in this order, then one blank line; the last write also ends the response."""
    request_id = await service.submit()
    wire = await service.connect("GET", f"/api/requests/{request_id}/events")
    headers = await wire.headers()
    assert headers.startswith("HTTP/1.1 200 ")
    for line in (
        "Content-Type: text/event-stream\r\n",
        "Cache-Control: no-store\r\n",
        "X-Accel-Buffering: no\r\n",
        "x-tidegate-source: upstream\r\n",
    ):
        assert line in headers
    first = await wire.chunk()
    epoch = first[4:12].decode()
    call = await service.call()
    await call.say("Hel\nlo")
    assert (await wire.chunk()).decode() == (
        f'id: {epoch}:2\nevent: update\ndata: {{"type":"update","requestId":"{request_id}","offset":2,'
        '"data":{"delta":"Hel\\nlo"}}\n\n'
    )
    await call.end()
    last = await wire.chunk()
    assert last.startswith(f"id: {epoch}:3\nevent: complete\ndata: {{".encode())
    assert last.endswith(b"}\n\n")
    assert await wire.chunk() == b""
    await wire.leave()


async def test_what_comes_together_is_written_together(service: Service) -> None:
    """The entries of one network read are sent in one write, each with its own id."""
    request_id = await service.submit()
    wire = await service.connect("GET", f"/api/requests/{request_id}/events")
    await wire.headers()
    await wire.chunk()
    call = await service.call()
    await call.tell(*(Delta(text=text) for text in ("a", "b", "c")))
    events = parse_events((await wire.chunk()).decode())
    assert [(event.id.split(":")[1], event.data["data"]["delta"]) for event in events] == [
        ("2", "a"),
        ("3", "b"),
        ("4", "c"),
    ]
    await wire.leave()
    await call.end()


async def test_a_result_on_several_lines_is_still_one_data_line(service: Service) -> None:
    """A structured answer is passed on unchanged, except for newlines, which would end the field."""
    request_id = await service.submit(schema={"type": "object"})
    call = await service.call()
    await call.end(result={"ok": True, "why": "two\nlines"})
    events = await read_events(await service.follow(request_id))
    assert events[-1].data["data"]["coreResult"] == {"ok": True, "why": "two\nlines"}


async def test_silence_is_filled_with_pings_of_one_newline(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pings are sent also before the first token, without a blank line, which some readers parse as an event."""
    monkeypatch.setattr(sse, "PING_INTERVAL", 0.001)
    request_id = await service.submit()
    wire = await service.connect("GET", f"/api/requests/{request_id}/events")
    await wire.headers()
    assert (await wire.chunk()).startswith(b"id: ")
    assert await wire.chunk() == b": ping\n"
    assert await wire.chunk() == b": ping\n"
    call = await service.call()
    await call.say("at last")
    while (chunk := await wire.chunk()) == b": ping\n":
        pass
    assert b"at last" in chunk
    assert await wire.chunk() == b": ping\n"
    await wire.leave()
    await service.until_followers(request_id, 0)
    await call.end()


async def test_a_client_that_goes_away_leaves_nothing_behind(service: Service) -> None:
    """A disconnect is noticed at once, not at the next token; the request goes on."""
    request_id = await service.submit()
    call = await service.call()
    wires = [await service.connect("GET", f"/api/requests/{request_id}/events") for _ in range(3)]
    for wire in wires:
        await wire.headers()
    await service.until_followers(request_id, 3)
    for wire in wires:
        await wire.leave()
    await service.until_followers(request_id, 0)
    assert not call.cancelled.is_set()
    await call.say("unheard")
    await call.end()
    assert text_of(await read_events(await service.follow(request_id))) == "unheard"


async def test_a_late_reader_gets_all_of_it(service: Service) -> None:
    """After the end, a replay gives the same entries under the same ids, and ends."""
    request_id = await service.submit()
    stream = await service.follow(request_id)
    call = await service.call()
    await call.say(*PIECES)
    await call.end()
    live = await read_events(stream)
    late = await read_events(await service.follow(request_id))
    assert live == late
    assert [event.event for event in late] == ["update"] * 41 + ["complete"]
    assert [int(event.id.partition(":")[2]) for event in late] == list(range(1, 43))


async def test_a_reader_goes_on_after_its_position(service: Service) -> None:
    """`after` is exclusive, and wins over `Last-Event-ID`."""
    request_id = await service.answered("a", "b", "c")
    whole = await read_events(await service.follow(request_id))
    ids = [event.id for event in whole]
    assert await read_events(await service.follow(request_id, f"?after={ids[1]}")) == whole[2:]
    assert await read_events(await service.follow(request_id, Last_Event_ID=ids[2])) == whole[3:]
    both = await service.follow(request_id, f"?after={ids[0]}", Last_Event_ID=ids[3])
    assert await read_events(both) == whole[1:]
    before = f"{ids[0].partition(':')[0]}:0"
    assert await read_events(await service.follow(request_id, f"?after={before}&mode=replay")) == whole


async def test_a_reader_that_has_the_end_need_not_come_again(service: Service) -> None:
    """204 stops a browser that reconnects by itself with the last id."""
    request_id = await service.answered("a")
    last = (await read_events(await service.follow(request_id)))[-1].id
    for stream in (
        await service.follow(request_id, Last_Event_ID=last),
        await service.follow(request_id, f"?after={last}"),
    ):
        assert (stream.status, await stream.read()) == (204, b"")


async def test_cut_anywhere_a_reader_puts_together_exactly_the_text(service: Service) -> None:
    """Aborted at random a hundred times and resumed with the last id: no gap, no duplicate."""
    request_id = await service.submit()
    call = await service.call()
    dice = random.Random(7)
    seen: list[Event] = []
    pieces = iter(PIECES)
    for _ in range(100):
        for piece in [next(pieces, "") for _ in range(dice.randrange(2))]:
            await call.say(piece) if piece else None
        response = await service.follow(request_id, **({"Last_Event_ID": seen[-1].id} if seen else {}))
        got = b""
        cut = dice.randrange(400)
        last = (await service.state(request_id))["position"]["offset"]
        known = int(seen[-1].id.partition(":")[2]) if seen else 0
        while last > known and len(got) < cut and got.count(b"\n\n") < last - known:
            got += await response.content.readany()
        response.close()
        kept = got[: dice.randrange(len(got) + 1)]
        seen += parse_events(kept[: kept.rfind(b"\n\n") + 2].decode() if b"\n\n" in kept else "")
    for piece in pieces:
        await call.say(piece)
    await call.end()
    seen += await read_events(await service.follow(request_id, **({"Last_Event_ID": seen[-1].id} if seen else {})))
    assert text_of(seen) == TEXT
    assert [int(event.id.partition(":")[2]) for event in seen] == list(range(1, 43))


async def test_a_position_of_another_epoch_is_a_410_or_a_snapshot_that_says_so() -> None:
    """Such a position is refused; with `mode=snapshot`, or by `Last-Event-ID`, there is a snapshot."""
    async with open_service(log_max_bytes=1024) as service:
        request_id = await service.answered(*PIECES)
        state = await service.state(request_id)
        epoch, end = state["position"]["epoch"], state["position"]["offset"]
        for query in ("?after=foreign1:3", "?after=foreign1:3&mode=replay", f"?after={epoch}:{end + 1}"):
            gone = await service.follow(request_id, query)
            assert gone.status == 410
            assert (await gone.json(content_type=None))["code"] == "unrecoverable_position"
        for stream in (
            await service.follow(request_id, Last_Event_ID="foreign1:3"),
            await service.follow(request_id, "?mode=replay", Last_Event_ID="foreign1:3"),
            await service.follow(request_id, f"?after={epoch}:1&mode=snapshot"),
            await service.follow(request_id, "?after=foreign1:3&mode=snapshot"),
        ):
            events = await read_events(stream)
            assert [event.event for event in events] == ["update", "complete"]
            assert events[0].id == f"{epoch}:{end - 1}"
            snapshot = events[0].data
            assert (snapshot["snapshot"], snapshot["epoch"], snapshot["offset"]) == (True, epoch, end - 1)
            assert text_of(events) == TEXT


async def test_a_log_that_is_held_is_replayed_from_anywhere() -> None:
    """However small its budget of unpacked entries: from the first entry, and after each position."""
    async with open_service(log_max_bytes=1024) as service:
        request_id = await service.answered(*PIECES)
        whole = await read_events(await service.follow(request_id, "?mode=replay"))
        assert text_of(whole) == TEXT
        for place, event in enumerate(whole[:-1]):
            assert (
                await read_events(await service.follow(request_id, f"?after={event.id}&mode=replay"))
                == whole[place + 1 :]
            )
            assert await read_events(await service.follow(request_id, Last_Event_ID=event.id)) == whole[place + 1 :]


async def test_a_snapshot_is_followed_by_what_comes_after_it(service: Service) -> None:
    """One merged update, then each live entry."""
    request_id = await service.submit()
    call = await service.call()
    reader = await service.follow(request_id)
    await call.say("a", "b")
    while b'"b"' not in await reader.content.readuntil(b"\n\n"):
        pass
    reader.close()
    stream = await service.follow(request_id, "?mode=snapshot")
    await call.say("c")
    await call.end()
    events = await read_events(stream)
    assert events[0].data["data"]["text"] == "ab"
    assert [event.data.get("data", {}).get("delta") for event in events] == [None, "c", None]
    assert text_of(events) == "abc"


async def test_live_is_only_what_comes_from_now_on(service: Service) -> None:
    """`live` has only later events; on an ended request, only the end."""
    request_id = await service.submit()
    call = await service.call()
    reader = await service.follow(request_id)
    await call.say("before")
    while b"before" not in await reader.content.readuntil(b"\n\n"):
        pass
    stream = await service.follow(request_id, "?mode=live")
    await call.say("after")
    await call.end()
    assert text_of(await read_events(stream)) == "after"
    await reader.read()
    late = await read_events(await service.follow(request_id, "?mode=live"))
    assert [event.event for event in late] == ["complete"]
