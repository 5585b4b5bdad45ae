"""The time limit for clients that read nothing."""

import asyncio
from collections.abc import Iterator

import pytest

from service.stall import LOOKS, StallLimit
from tests.contracts.delivery.wires import Loop

SECONDS = 30.0


@pytest.fixture
def loop() -> Iterator[Loop]:
    """An event loop whose clock the test sets."""
    loop = Loop()
    yield loop
    loop.close()


class Client:
    """A client of which so many bytes are buffered, and the block that waits for it."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.buffered = 1_000_000
        self.drained = loop.create_future()
        self.task = loop.create_task(self._wait())
        loop.turn()

    async def _wait(self) -> str:
        try:
            async with StallLimit(lambda: self.buffered, SECONDS):
                await self.drained
        except TimeoutError:
            return "cut off"
        return "read"

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass, look by look."""
        for _ in range(round(seconds * LOOKS / SECONDS)):
            self.loop.now += SECONDS / LOOKS
            self.loop.turn()


def test_a_client_that_reads_nothing_is_cut_off(loop: Loop) -> None:
    """At the limit, and not before."""
    client = Client(loop)
    client.pass_time(SECONDS - SECONDS / LOOKS)
    assert not client.task.done()
    client.pass_time(SECONDS / LOOKS)
    assert client.task.result() == "cut off"


def test_a_client_that_reads_slowly_is_not(loop: Loop) -> None:
    """Any byte that it takes within the limit's time puts the limit off, as often as it likes."""
    client = Client(loop)
    for _ in range(20):
        client.pass_time(SECONDS * 0.7)
        client.buffered -= 1
    assert not client.task.done()
    client.drained.set_result(None)
    loop.turn()
    assert client.task.result() == "read"


def test_more_to_read_is_no_progress(loop: Loop) -> None:
    """What is written meanwhile does not count."""
    client = Client(loop)
    for _ in range(LOOKS):
        client.buffered += 1000
        client.pass_time(SECONDS / LOOKS)
    assert client.task.result() == "cut off"


def test_a_cancellation_passes(loop: Loop) -> None:
    """The block's own cancellation is no time-out."""
    client = Client(loop)
    client.task.cancel()
    loop.turn()
    with pytest.raises(asyncio.CancelledError):
        client.task.result()
