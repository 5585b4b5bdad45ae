"""The writer: it never waits for an output, and says what it has lost."""

import asyncio
import io
import threading
from collections.abc import Sequence

import orjson
import pytest
import structlog

from service.config.settings import load_settings
from service.logging import LogLine, open_logging
from service.logging.output import StreamOutput
from service.logging.redaction import Redactor
from service.logging.writer import LogWriter


class Slow:
    """An output that blocks until it is released, and may fail."""

    name = "slow"

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        self.failing = False
        self.events: list[object] = []

    def write(self, lines: Sequence[LogLine]) -> None:
        self.entered.set()
        self.release.wait()
        if self.failing:
            raise OSError("no space")
        self.events += [line.fields["event"] for line in lines]

    def close(self) -> None:
        raise OSError("already closed")


def test_a_stalled_output_costs_lines_and_never_waits() -> None:
    """While an output is stalled, further lines are dropped, and their number is logged afterwards."""
    slow, stream = Slow(), io.StringIO()
    writer = LogWriter([slow, StreamOutput(stream)], Redactor(), capacity=2)
    writer.start()
    writer.put({"event": "first"})
    assert slow.entered.wait(10)
    for number in range(5):
        writer.put({"event": str(number)})
    slow.release.set()
    writer.close(10)
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["first", "0", "1", "log_lines_dropped"] == slow.events
    assert (lines[-1]["count"], lines[-1]["level"]) == (3, "warning")


async def test_a_slow_disk_does_not_hold_up_the_loop() -> None:
    """While the output blocks, the loop goes on: many more lines than the writer holds are logged meanwhile."""
    slow = Slow()
    with open_logging(load_settings(None, log_format="json"), io.StringIO(), outputs=[slow]) as writer:
        log = structlog.get_logger("ours")
        log.info("first")
        assert await asyncio.to_thread(slow.entered.wait, 10)
        for number in range(11_000):
            log.info("more", number=number)
            if not number % 100:
                await asyncio.sleep(0)
        assert slow.events == []
        slow.release.set()
        writer.close(30)
    assert slow.events.count("more") == 10_000
    assert slow.events[-1] == "log_lines_dropped"


def test_a_failing_output_ends_nothing() -> None:
    """The other outputs are told once that it fails; when it works again it has the number of lines it has lost."""
    slow, stream = Slow(), io.StringIO()
    slow.release.set()
    slow.failing = True
    writer = LogWriter([slow, StreamOutput(stream)], Redactor())
    for name in ("one", "two"):
        writer.put({"event": name})
    writer._write()
    writer.put({"event": "three"})
    writer._write()
    slow.failing = False
    writer.put({"event": "four"})
    writer._write()
    lines = [orjson.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == [
        "one",
        "two",
        "log_output_failed",
        "three",
        "four",
        "log_lines_dropped",
    ]
    assert (lines[2]["output"], lines[2]["error"]) == ("slow", "OSError: no space")
    assert slow.events == ["four", "log_lines_dropped"]
    assert (lines[-1]["count"], lines[-1]["output"]) == (4, "slow")


def test_a_capacity_is_positive() -> None:
    """It is checked at construction."""
    with pytest.raises(ValueError, match="capacity must be positive, got 0"):
        LogWriter([], Redactor(), capacity=0)
