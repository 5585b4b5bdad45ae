"""The writer: takes events from any thread without waiting, and writes them from a thread of its own."""

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from protocol.log_fields import OutsideTexts
from service.logging.line import Event, LogLine
from service.logging.output import LogOutput
from service.logging.redaction import Redactor

CAPACITY: Final = 10_000  # lines that wait to be written; further ones are dropped and counted
FLUSH_INTERVAL: Final = 0.05  # seconds for which lines are collected for one write
CLOSE_TIMEOUT: Final = 1.0  # seconds for the last lines


class LogWriter:
    """Takes events from any thread without waiting; its own thread renders them and writes them in batches.

    A stalled output (a full pipe, a slow disk) loses lines, and never blocks the event loop: a line
    ``log_lines_dropped`` has their number afterwards.

    Args:
        outputs: get every line, in this order.
        redactor: hides secrets.
        capacity: the most lines that wait.
    """

    def __init__(self, outputs: Sequence[LogOutput], redactor: Redactor, *, capacity: int = CAPACITY) -> None:
        if capacity < 1:
            raise ValueError(f"capacity must be positive, got {capacity}")
        self._outputs = [_Guarded(output) for output in outputs]
        self._redactor = redactor
        self._capacity = capacity
        self._events: deque[tuple[Event, OutsideTexts | None]] = deque()
        self._dropped = 0
        self._dropping = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, event: Event, outside: OutsideTexts | None = None) -> None:
        """Queue ``event``, which the writer owns from now on; drops it where the queue is full.

        Args:
            event: the fields.
            outside: those that may hold a secret; None for any.
        """
        if len(self._events) >= self._capacity:
            with self._dropping:
                self._dropped += 1
            return
        self._events.append((event, outside))
        if not self._wake.is_set():
            self._wake.set()

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Write the queued events and close the outputs, for at most ``timeout`` seconds."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._closing.wait(FLUSH_INTERVAL)
            self._wake.clear()
            closing = self._closing.is_set()
            self._write()
            if closing:
                for output in self._outputs:
                    output.close()
                return

    def _write(self) -> None:
        """Write what is queued by now. What the outputs report of themselves follows at once."""
        lines = [self._line(*self._events.popleft()) for _ in range(len(self._events))]
        with self._dropping:
            dropped, self._dropped = self._dropped, 0
        if dropped:
            lines.append(self._line({"level": "warning", "event": "log_lines_dropped", "count": dropped}))
        while lines:
            reports = [output.write(lines) for output in self._outputs]
            lines = [self._line(report) for report in reports if report is not None]

    def _line(self, event: Event, outside: OutsideTexts | None = None) -> LogLine:
        ordered: Event = {"timestamp": None, "level": None, "event": None}
        if next(iter(event), "") != "timestamp":
            event = {**ordered, **event}
        try:
            line = LogLine(event, self._redactor, outside)
            _ = line.json
        except Exception as error:  # noqa: BLE001 - a value that can't be rendered must not end the log
            failure = {"level": "error", "event": "log_line_unrenderable", "error": type(error).__name__}
            return LogLine({**ordered, **failure}, self._redactor)
        return line


class _Guarded:
    """An output whose failures end nothing.

    ::

        working --a write fails: ``log_output_failed``--> failing --a write succeeds: ``log_lines_dropped``--> working
    """

    __slots__ = ("_lost", "_output")

    def __init__(self, output: LogOutput) -> None:
        self._output = output
        self._lost = 0

    def write(self, lines: Sequence[LogLine]) -> Event | None:
        """Write the lines; return what is to be logged of that, at each change between working and failing."""
        try:
            self._output.write(lines)
        except Exception as error:  # noqa: BLE001 - whatever an output raises, the others go on
            first, self._lost = not self._lost, self._lost + len(lines)
            said = f"{type(error).__name__}: {error}"
            name = self._output.name
            return {"level": "error", "event": "log_output_failed", "output": name, "error": said} if first else None
        lost, self._lost = self._lost, 0
        if not lost:
            return None
        return {"level": "warning", "event": "log_lines_dropped", "count": lost, "output": self._output.name}

    def close(self) -> None:
        """Close the output; a failure has nobody left to hear of it."""
        with suppress(Exception):
            self._output.close()
