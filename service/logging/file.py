"""The log file: rotated each day and when it is large; older files are compressed, and the oldest deleted."""

import gzip
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from service.logging.line import LogLine

FILE_NAME: Final = "server.log"
MAX_BYTES: Final = 100 * 1024 * 1024
KEEP: Final = 14  # rotated files
MODE: Final = 0o640  # of a new file
FOLDER_MODE: Final = 0o750
COPY_BYTES: Final = 1024 * 1024


class FileOutput:
    """Writes JSON lines to ``server.log`` in a folder.

    ::

        server.log --a new day (UTC), or MAX_BYTES--> server-2026-07-14.0001.log --> server-2026-07-14.0001.log.gz

    A file is compressed in a thread of its own, so that writing goes on. One that a crash has left uncompressed is
    compressed at the next rotation or start.

    Args:
        folder: is made where it does not exist.
        clock: Unix time in seconds.
        max_bytes: a file that a line would make larger is rotated before it.
        keep: the most rotated files.

    Raises:
        OSError: the folder or the file can't be written.
    """

    name = "file"

    def __init__(
        self, folder: Path, *, clock: Callable[[], float] = time.time, max_bytes: int = MAX_BYTES, keep: int = KEEP
    ) -> None:
        if max_bytes < 1 or keep < 1:
            raise ValueError(f"max_bytes and keep must be positive, got {max_bytes} and {keep}")
        self._path = folder / FILE_NAME
        self._clock = clock
        self._max_bytes = max_bytes
        self._keep = keep
        self._compressing: threading.Thread | None = None
        self._torn = False
        folder.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        if self._path.exists():
            self._day = _day(self._path.stat().st_mtime)
        else:
            self._day = _day(clock())
        self._descriptor = self._open()
        self._tidy()

    def write(self, lines: Sequence[LogLine]) -> None:
        """Append the lines; rotates first where that is due.

        Raises:
            OSError: the disk does not take them.
        """
        today = _day(self._clock())
        if today != self._day:
            self._rotate(today)
        size = os.fstat(self._descriptor).st_size
        parts = [b"\n"] if self._torn else []
        for line in lines:
            data = line.json
            if size and size + len(data) > self._max_bytes:
                self._append(b"".join(parts))
                self._rotate(today)
                size, parts = 0, []
            size += len(data)
            parts.append(data)
        self._append(b"".join(parts))

    def close(self) -> None:
        """Close the file, and wait for the file that is being compressed."""
        os.close(self._descriptor)
        if self._compressing is not None:
            self._compressing.join()

    def _append(self, data: bytes) -> None:
        """Write all of ``data``. After a failure in the middle, the next line begins on a line of its own."""
        view = memoryview(data)
        while view:
            self._torn = True
            view = view[os.write(self._descriptor, view) :]
        self._torn = False

    def _rotate(self, today: str) -> None:
        if os.fstat(self._descriptor).st_size:
            self._path.rename(self._free_name())
            fresh = self._open()
            os.close(self._descriptor)
            self._descriptor = fresh
            self._torn = False
        self._day = today
        self._tidy()

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)

    def _free_name(self) -> Path:
        """Return the name of the file that is rotated now: the day of its lines, and the next number of that day."""
        stem = f"{self._path.stem}-{self._day}."
        numbers = [int(name[len(stem) : len(stem) + 4]) for name in self._names() if name.startswith(stem)]
        return self._path.with_name(f"{stem}{max(numbers, default=0) + 1:04d}.log")

    def _names(self) -> list[str]:
        """Return the names of the rotated files, the oldest first."""
        found = self._path.parent.glob(f"{self._path.stem}-????-??-??.????.log*")
        return sorted(path.name for path in found if path.suffix in {".log", ".gz"})

    def _tidy(self) -> None:
        """Delete the oldest files, and compress the others."""
        if self._compressing is not None:
            self._compressing.join()
        names = self._names()
        folder = self._path.parent
        for name in names[: -self._keep]:
            (folder / name).unlink(missing_ok=True)
        plain = [folder / name for name in names[-self._keep :] if name.endswith(".log")]
        if plain:
            self._compressing = threading.Thread(target=_compress, args=(plain,), name="log-gzip", daemon=True)
            self._compressing.start()


def _compress(paths: Sequence[Path]) -> None:
    """Replace each file by its compressed copy; one that can't be replaced stays, for the next time."""
    for path in paths:
        whole, part = path.with_suffix(".log.gz"), path.with_suffix(".log.part")
        try:
            with path.open("rb") as source, os.fdopen(_create(part), "wb") as raw, gzip.open(raw, "wb") as target:
                shutil.copyfileobj(source, target, COPY_BYTES)
            part.replace(whole)
            path.unlink()
        except OSError:
            part.unlink(missing_ok=True)


def _create(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, MODE)


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
