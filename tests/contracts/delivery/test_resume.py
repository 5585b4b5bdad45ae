"""Resuming at any position, over any surface: the result is the answer, or the position is refused."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest

from actors.log.event_log import ENTRY_BYTES
from actors.log.follow import follow
from protocol.errors import UnrecoverablePosition
from protocol.events import AttemptFailed, Content, Delta, Event, Position, ReasoningDelta, ToolCallDelta
from protocol.requests import GetRequest, RequestHandle
from tests.contracts.delivery import world
from tests.contracts.delivery.surfaces import EXACT, SURFACES, Frame, RefusedError, read
from tests.service.bench import Call, Service, open_service

BROKE: Final = AttemptFailed(provider="p", model="m", code="provider_error")
RESTART: Final = AttemptFailed(provider="p", model="m", code="provider_error", restart=True)
BEFORE: Final[tuple[Content, ...]] = (
    ReasoningDelta("hm"),
    Delta("He"),
    ToolCallDelta(0, id="c1", name="look"),
    ToolCallDelta(0, arguments='{"at"'),
)
AFTER: Final[tuple[Content, ...]] = (
    ReasoningDelta("so "),
    ReasoningDelta("it is", signature="s"),
    Delta("Hel"),
    Delta("lo \u2028\U0001f600\n"),
    ToolCallDelta(0, id="c2", name="look"),
    ToolCallDelta(0, arguments='{"at"'),
    ToolCallDelta(0, arguments=": 1}"),
    ToolCallDelta(1, id="c3", name="see", arguments="{}"),
)
RESULT: Final = {
    "text": "Hello \u2028\U0001f600\n",
    "toolCalls": [
        {"id": "c2", "name": "look", "arguments": '{"at": 1}'},
        {"id": "c3", "name": "see", "arguments": "{}"},
    ],
}
ANSWER: Final = (*BEFORE, RESTART, *AFTER)
MANY: Final = tuple(Delta(f"{number} ") for number in range(60))
STREAM: Final[dict[str, Any]] = {"model": "m", "input": "hi", "stream": True}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service whose gateway the test controls."""
    async with open_service() as running:
        yield running


async def begun(service: Service) -> tuple[RequestHandle, Call]:
    """Submit a request whose answer may begin anew."""
    request_id = await service.submit(options={"onAttemptFailed": "restart"})
    handle = await service.container.router.ask(GetRequest(request_id), timeout=5)
    return handle, await service.call()


async def ended(call: Call, handle: RequestHandle) -> None:
    """Complete the call, and wait until the log has ended."""
    await call.end(result=RESULT)
    async with follow(handle.stream, mode="live") as items:
        async for _ in items:
            pass


def content_of(frames: list[Frame]) -> world.Content:
    """Return the content of these frames; none may be missing or doubled."""
    content, last = world.Content(), 0
    for frame in frames:
        assert frame.get("snapshot") or frame.get("from", frame["offset"]) == last + 1
        last = frame["offset"]
        content.take(frame)
    return content


def truth(events: tuple[Event, ...]) -> world.Content:
    """Return the content of these events."""
    content = world.Content()
    for event in events:
        content.add(event)
    return content


@pytest.mark.parametrize("name", SURFACES)
async def test_cut_at_every_offset_while_it_comes(service: Service, name: str) -> None:
    """A reader that resumes after any entry gets the same answer, each entry once, and one end."""
    handle, call = await begun(service)
    stream, cut = handle.stream, {0: list[Frame]()}
    for event in ANSWER:
        await call.tell(event)
        cut[stream.offset] = await read(SURFACES[name], service, handle.request_id, None, until=stream.offset)
    await ended(call, handle)
    whole = await read(SURFACES[name], service, handle.request_id, None)
    entries = stream.since(0)
    assert [frame["offset"] for frame in whole] == [entry.offset for entry in entries]
    cut[stream.offset] = whole
    for offset, frames in cut.items():
        after = Position(stream.epoch, offset)
        rest = await read(SURFACES[name], service, handle.request_id, after)
        assert content_of(frames + rest).same(truth(tuple(entry.event for entry in entries)))
        assert [frame["type"] for frame in frames + rest].count("complete") == 1


@pytest.mark.parametrize("name", SURFACES)
async def test_an_unrecoverable_position(name: str) -> None:
    """Another epoch: a refusal or a snapshot; beyond the end: a refusal; packed entries: each of them."""
    async with open_service(log_max_bytes=ENTRY_BYTES * 20) as service:
        handle, call = await begun(service)
        stream, surface = handle.stream, SURFACES[name]
        for event in MANY:
            await call.tell(event)
        await ended(call, handle)
        text = "".join(event.text for event in MANY)
        for offset in (0, 3, stream.offset - 1):
            rest = await read(surface, service, handle.request_id, Position(stream.epoch, offset))
            assert [frame["offset"] for frame in rest] == list(range(offset + 1, stream.offset + 1))
        with pytest.raises(RefusedError):
            await attempt(service, name, handle, Position(stream.epoch, stream.offset + 1))
        for after in (Position("elsewhere", 3), Position("elsewhere", 1000)):
            if name in EXACT:
                with pytest.raises(RefusedError):
                    await attempt(service, name, handle, after)
            else:
                frames = await read(surface, service, handle.request_id, after)
                assert frames[0]["snapshot"]
                assert content_of(frames).text == text


async def attempt(service: Service, name: str, handle: RequestHandle, after: Position) -> None:
    """Resume at a position; a refusal is the same exception on every surface."""
    try:
        await read(SURFACES[name], service, handle.request_id, after)
    except UnrecoverablePosition as error:
        raise RefusedError from error


async def test_responses_are_resumed_after_every_event_while_they_come(service: Service) -> None:
    """Reasoning, text, calls and a boundary as responses: the same events with the same numbers."""
    created = asyncio.ensure_future(service.post("/v1/responses", STREAM | {"background": True, "stream": False}))
    call = await service.call()
    place = f"/v1/responses/{(await (await created).json())['id']}?stream=true"
    cut: list[list[Frame]] = []
    for event in (*AFTER[:3], BROKE, *AFTER[3:]):
        await call.tell(event)
        held = len(cut[-1]) if cut else 0
        cut.append(await numbered(service, place, more_than=held))
    await call.end(result=RESULT)
    whole = await numbered(service, place)
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    for seen in cut:
        assert seen == whole[: len(seen)]
        assert seen + await numbered(service, f"{place}&starting_after={len(seen) - 1}") == whole
    for last in range(len(whole) - 1):
        assert await numbered(service, f"{place}&starting_after={last}") == whole[last + 1 :]
    response = await service.get(f"{place}&starting_after={len(whole)}")
    assert response.status == 410


async def numbered(service: Service, place: str, more_than: int | None = None) -> list[Frame]:
    """Return the events of a response up to its end, or until there are more than ``more_than``."""
    found: list[Frame] = []
    kept = b""
    async with service.client.get(service.base + place) as response:
        assert response.status == 200
        async for chunk in response.content.iter_any():
            *blocks, kept = (kept + chunk.replace(b": ping\n", b"")).split(b"\n\n")
            found += [json.loads(block.partition(b"data: ")[2]) for block in blocks]
            if more_than is not None and len(found) > more_than:
                break
    return found


@pytest.mark.parametrize("name", SURFACES)
async def test_an_abandoned_request_is_cancelled_on_any_surface(name: str) -> None:
    """``onAbandon: cancel``: a followed request goes on, and is cancelled some time after its last follower left."""
    async with open_service(abandon_grace_seconds=0.05) as service:
        request_id = await service.submit(options={"onAbandon": "cancel"})
        call = await service.call()
        following = asyncio.ensure_future(read(SURFACES[name], service, request_id, None))
        await service.until_followers(request_id, 1)
        await call.say("somebody is there")
        await service.until_followers(request_id, 1)
        await service.submit(options={"onAbandon": "cancel"}, messages=[{"role": "user", "content": "nobody"}])
        other = await service.call()
        async with asyncio.timeout(10):
            await other.cancelled.wait()
            assert not call.cancelled.is_set()
            following.cancel()
            await call.cancelled.wait()
        state = await service.state(request_id)
        assert (state["assistantStatus"], state["error"]["code"]) == ("cancelled", "cancelled")
