"""The log file: rotation by day and size, compression, and what is kept."""

import errno
import gzip
import os
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from actors.runtime.testing import ManualClock
from service.logging.file import FileOutput
from service.logging.line import LogLine
from service.logging.redaction import Redactor

DAY = 86_400.0
START = 20_000 * DAY  # 2024-10-04


def line(text: str) -> LogLine:
    """Return a line."""
    return LogLine({"timestamp": START, "level": "info", "event": text}, Redactor())


def events(data: bytes) -> list[str]:
    """Return the events of the lines."""
    return [orjson.loads(text)["event"] for text in data.splitlines()]


def test_a_new_day_is_a_new_file(tmp_path: Path) -> None:
    """The first line of a day rotates the file; of the rotated ones the last 14 stay, compressed."""
    clock = ManualClock(START)
    output = FileOutput(tmp_path, clock=clock.time)
    for day in range(20):
        output.write([line(f"{day}"), line("more")])
        output.write([line("last")])
        clock.step(clock.time() + DAY)
    output.close()
    assert events((tmp_path / "server.log").read_bytes()) == ["19", "more", "last"]
    rotated = sorted(path for path in tmp_path.iterdir() if path.name != "server.log")
    assert [path.name for path in rotated] == [f"server-2024-10-{9 + day:02d}.0001.log.gz" for day in range(14)]
    assert [events(gzip.decompress(path.read_bytes()))[0] for path in rotated] == [f"{5 + day}" for day in range(14)]


def test_a_large_file_is_rotated(tmp_path: Path) -> None:
    """No file exceeds the bound, also within one batch, and no line is lost."""
    size = len(line("00").json)
    output = FileOutput(tmp_path, clock=lambda: START, max_bytes=3 * size)
    output.write([line(f"{number:02d}") for number in range(10)])
    output.write([line(f"{number:02d}") for number in range(10, 15)])
    output.close()
    rotated = sorted(path for path in tmp_path.iterdir() if path.name != "server.log")
    assert [path.name for path in rotated] == [f"server-2024-10-04.{number:04d}.log.gz" for number in range(1, 5)]
    parts = [gzip.decompress(path.read_bytes()) for path in rotated] + [(tmp_path / "server.log").read_bytes()]
    assert all(len(part) <= 3 * size for part in parts)
    assert events(b"".join(parts)) == [f"{number:02d}" for number in range(15)]


def test_a_start_goes_on_with_the_file(tmp_path: Path) -> None:
    """A file of today is continued, one of yesterday is rotated, and one that was left plain is compressed."""
    for now in (START, START + 10, START + DAY):
        output = FileOutput(tmp_path, clock=lambda now=now: now)  # type: ignore[misc]
        output.write([line(f"{now}")])
        output.close()
        os.utime(tmp_path / "server.log", (now, now))
    left = tmp_path / "server-2024-10-01.0001.log"
    left.write_bytes(line("left").json)
    FileOutput(tmp_path, clock=lambda: START + DAY).close()
    assert events((tmp_path / "server.log").read_bytes()) == [f"{START + DAY}"]
    assert events(gzip.decompress((tmp_path / "server-2024-10-04.0001.log.gz").read_bytes())) == [
        f"{START}",
        f"{START + 10}",
    ]
    assert events(gzip.decompress(left.with_suffix(".log.gz").read_bytes())) == ["left"]
    assert not left.exists()


def test_others_can_not_read_it(tmp_path: Path) -> None:
    """The folder and the files are the owner's and the group's."""
    output = FileOutput(tmp_path / "logs", clock=lambda: START)
    output.close()
    assert (tmp_path / "logs").stat().st_mode & 0o007 == 0
    assert (tmp_path / "logs" / "server.log").stat().st_mode & 0o007 == 0


def test_a_full_disk_breaks_no_later_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a write that was cut short, the next line begins on its own line."""
    output = FileOutput(tmp_path, clock=lambda: START)
    write: Callable[[int, memoryview], int] = os.write
    room = [10, 0]

    def full(descriptor: int, data: memoryview) -> int:
        if not (left := room.pop(0)):
            raise OSError(errno.ENOSPC, "full")
        return write(descriptor, data[:left])

    with monkeypatch.context() as patch:
        patch.setattr("service.logging.file.os.write", full)
        with pytest.raises(OSError, match="full"):
            output.write([line("lost")])
    output.write([line("whole")])
    output.close()
    first, second = (tmp_path / "server.log").read_bytes().splitlines()
    assert len(first) == 10
    assert events(second) == ["whole"]


@pytest.mark.parametrize(("max_bytes", "keep"), [(0, 1), (1, 0)])
def test_bounds_are_positive(tmp_path: Path, max_bytes: int, keep: int) -> None:
    """They are checked at construction."""
    with pytest.raises(ValueError, match="must be positive"):
        FileOutput(tmp_path, max_bytes=max_bytes, keep=keep)
