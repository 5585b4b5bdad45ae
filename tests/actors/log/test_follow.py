"""Followers: readers in this process."""

import asyncio

import msgspec
import pytest

from actors.log.event_log import ENTRY_BYTES, EventLog
from actors.log.follow import Follower, Opening, follow, open_at
from actors.requests.stream import RequestStream
from protocol.errors import UnrecoverablePosition
from protocol.events import Completed, Delta, Entry, Position, Snapshot, Started
from protocol.hub import Mode
from protocol.packed import PAGE_EVENTS

STARTED = Started(model="m", created=1)
MODES: tuple[Mode | None, ...] = (None, "replay", "snapshot", "live")
DONE = Completed(result=msgspec.Raw(b"{}"))


def stream_of(log: EventLog) -> RequestStream:
    """Return a view of ``log``."""
    return RequestStream("req_1", log)


async def test_a_follower_reads_from_the_first_to_the_terminal_entry() -> None:
    """Past entries come first, then live ones, and the loop ends after the terminal entry."""
    log = EventLog()
    log.append(STARTED, Delta(text="a"))
    seen: list[int] = []
    async with Follower(stream_of(log)) as follower:
        async for item in follower:
            assert isinstance(item, Entry)
            seen.append(item.offset)
            if item.offset == 2:
                log.append(Delta(text="b"))
            if item.offset == 3:
                log.append(DONE)
    assert seen == [1, 2, 3, 4]


async def test_it_waits_without_polling_and_gets_a_batch_at_once() -> None:
    """A waiting reader is woken by the writer, and gets all new entries together."""
    log = EventLog()
    async with Follower(stream_of(log)) as follower:
        waiting = asyncio.ensure_future(follower.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        log.append(STARTED, Delta(text="a"), DONE)
        batch = await waiting
        assert isinstance(batch, list)
        assert [entry.offset for entry in batch] == [1, 2, 3]
        assert await follower.next() is None


async def test_a_follower_that_falls_far_behind_gets_every_entry() -> None:
    """However much the log has packed since: page by page, and others run between two pages."""
    log, others = EventLog(max_bytes=4 * ENTRY_BYTES), 0
    log.append(STARTED)

    async def turn() -> None:
        nonlocal others
        while not log.ended or others < 3:
            others += 1
            await asyncio.sleep(0)

    async with Follower(stream_of(log)) as follower:
        await follower.next()
        for number in range(3 * PAGE_EVENTS):
            log.append(Delta(text=f"{number} "))
        log.append(DONE)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(turn())
            offsets = [item.offset async for item in follower]
        assert offsets == list(range(2, 3 * PAGE_EVENTS + 3))
        assert others >= 3
        assert await follower.next() is None


async def test_closing_unsubscribes_and_ends_a_wait() -> None:
    """`close` removes the listener, and ends a wait in progress."""
    log = EventLog()
    stream = stream_of(log)
    follower = Follower(stream)
    async with follower:
        waiting = asyncio.ensure_future(follower.next())
        await asyncio.sleep(0)
        assert stream.followers == 1
    assert await waiting is None
    assert stream.followers == 0


async def test_silence_gives_an_empty_batch() -> None:
    """After ``idle`` seconds without an entry a reader may send a keep-alive."""
    log = EventLog()
    async with Follower(stream_of(log), idle=0.001) as follower:
        assert await follower.next() == ()
        assert await follower.next() == ()
        log.append(STARTED)
        assert await follower.next() == log.since(0)


def test_a_position_is_one_value() -> None:
    """The same offset in another epoch is another position; one beyond the end is refused."""
    log = EventLog(epoch="k1")
    log.append(STARTED, Delta(text="a"))
    stream = stream_of(log)
    assert open_at(stream, None, "replay") == Opening(0)
    assert open_at(stream, Position("k1", 0), "replay") == Opening(0)
    assert open_at(stream, Position("k1", 2)) == Opening(2)
    with pytest.raises(UnrecoverablePosition, match="epoch 'k0' is not this log's"):
        open_at(stream, Position("k0", 1), "replay")
    for mode in MODES:
        with pytest.raises(UnrecoverablePosition, match="offset 3 is beyond the end, 2"):
            open_at(stream, Position("k1", 3), mode)


def test_where_a_reader_begins() -> None:
    """The table of positions and modes: a snapshot for a position of another epoch, unless a replay was requested."""
    old, foreign = Position("k1", 1), Position("k0", 1)
    log = EventLog(epoch="k1", max_bytes=4 * ENTRY_BYTES)
    log.append(STARTED, *(Delta(text=character) for character in "abcdefgh"))
    stream = stream_of(log)
    for mode in (None, "replay"):
        assert open_at(stream, None, mode) == Opening(0)
        assert open_at(stream, old, mode) == Opening(1)
    assert open_at(stream, old, "live") == Opening(9)
    assert open_at(stream, old, "snapshot") == Opening(snapshot=True)
    for position in (foreign, Position("k1", -1)):
        assert open_at(stream, position) == Opening(snapshot=True, recovered=False)
        with pytest.raises(UnrecoverablePosition):
            open_at(stream, position, "replay")
    assert open_at(stream, foreign, "live") == Opening(9, recovered=False)
    assert open_at(stream, foreign, "snapshot") == Opening(snapshot=True, recovered=False)
    log.append(DONE)
    assert open_at(stream, None, "live") == Opening(9)


async def test_a_follower_that_begins_at_the_end_ends_at_once() -> None:
    """A reader that has the terminal entry does not wait."""
    log = EventLog()
    log.append(STARTED, DONE)
    async with Follower(stream_of(log), after=2) as follower:
        assert await follower.next() is None


async def test_a_handle_is_followed_like_any_iterator() -> None:
    """Without ``async with`` the reader listens from its first step until the loop ends."""
    log = EventLog()
    stream = stream_of(log)
    log.append(STARTED, Delta(text="a"), Delta(text="b"))
    reader = follow(stream, Position(log.epoch, 2))
    assert stream.followers == 0
    seen: list[int] = []
    async for item in reader:
        assert stream.followers == 1
        seen.append(item.offset)
        if item.offset == 3:
            log.append(DONE)
    assert seen == [3, 4]
    assert stream.followers == 0


async def test_a_snapshot_comes_first_where_it_is_requested() -> None:
    """The snapshot has all content so far; each later entry follows."""
    log = EventLog()
    log.append(STARTED, Delta(text="a"), Delta(text="b"))
    async with follow(stream_of(log), mode="snapshot") as reader:
        first = await reader.next()
        assert isinstance(first, Snapshot)
        assert (first.offset, first.text) == (3, "ab")
        log.append(DONE)
        batch = await reader.next()
        assert isinstance(batch, list)
        assert [entry.offset for entry in batch] == [4]


async def test_a_loop_that_breaks_can_be_continued() -> None:
    """Within ``async with`` the cursor stays where the last batch ended."""
    log = EventLog()
    log.append(STARTED)
    async with follow(stream_of(log)) as reader:
        async for item in reader:
            assert item.offset == 1
            break
        log.append(Delta(text="a"), DONE)
        assert [item.offset async for item in reader] == [2, 3]
