"""A log line: its fields, redacted, and how they are rendered."""

import sys
import time
import traceback
from collections.abc import Callable, MutableMapping
from functools import lru_cache
from itertools import islice
from typing import Any, Final

import orjson
import structlog
from structlog.dev import (
    BRIGHT,
    CYAN,
    DIM,
    GREEN,
    MAGENTA,
    RED,
    RED_BACK,
    RESET_ALL,
    YELLOW,
    Column,
    ConsoleRenderer,
    KeyValueColumnFormatter,
    LogLevelColumnFormatter,
)
from structlog.tracebacks import ExceptionDictTransformer

from protocol.log_fields import OutsideTexts
from service.logging.redaction import Redactor

MAX_LINE: Final = 32 * 1024  # bytes of JSON
MAX_FRAMES: Final = 20  # of one exception, on a terminal
MAX_PARTS: Final = 200  # frames and messages of a chain of exceptions, on a terminal
KEPT: Final = ("timestamp", "level", "event", "logger", "request_id", "trace_id")  # fields that a long line keeps
KEPT_TEXT: Final = 256  # characters of each of them, in a line that is too long
LAST: Final = ("request_id", "trace_id", "logger")  # on a terminal

Event = MutableMapping[str, Any]

_exceptions: Final = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))


class LogLine:
    """One line. It is rendered when an output asks for it, in the writer's thread, and once for all outputs.

    Args:
        event: the fields, ``timestamp``, ``level`` and ``event`` first. The line owns them from now on.
        redactor: hides secrets.
        outside: the fields that may hold one; None for any.
    """

    __slots__ = ("_clean", "_event", "_failure", "_json", "_outside", "_redactor")

    def __init__(self, event: Event, redactor: Redactor, outside: OutsideTexts | None = None) -> None:
        created = event.get("timestamp") or time.time()
        event["timestamp"] = f"{_second(int(created))}.{int(created % 1 * 1000):03d}Z"
        self._failure = _failure_of(event.pop("exc_info")) if "exc_info" in event else None
        self._event = event
        self._outside = outside
        self._redactor = redactor
        self._clean: dict[str, Any] | None = None
        self._json: bytes | None = None

    @property
    def fields(self) -> dict[str, Any]:
        """The fields as JSON knows them, redacted; a failure is in ``exception``, with its frames."""
        if self._clean is None:
            event = dict(self._event)
            if self._failure is not None:
                event = dict(_exceptions(None, "", {**event, "exc_info": self._failure}))
            self._clean = self._redactor.clean(event)
        return self._clean

    @property
    def json(self) -> bytes:
        """The fields as one line of JSON, with its line end, of at most ``MAX_LINE`` bytes."""
        if self._json is None:
            self._json = self._plain() or _dumped(self.fields)
        return self._json

    @property
    def traceback(self) -> str:
        """The failure as text, redacted; empty for none."""
        if self._failure is None:
            return ""
        parts = traceback.TracebackException.from_exception(self._failure, limit=MAX_FRAMES).format()
        return "".join([self._redactor.text(part.rstrip("\n")) + "\n" for part in islice(parts, MAX_PARTS)]).rstrip()

    def _plain(self) -> bytes | None:
        """Return the line of fields with nothing to redact, which most lines have; None for any other."""
        event, redactor, outside = self._event, self._redactor, self._outside
        if self._failure is not None:
            return None
        if not (redactor.is_plain(event) if outside is None else redactor.are_plain(event, outside)):
            return None
        try:
            line = orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
        except orjson.JSONEncodeError:
            return None
        return None if len(line) > MAX_LINE else line


class TerminalRenderer:
    """Renders lines for a person: the event, then ``status`` and ``ms``, then the other fields.

    Args:
        colors: whether the terminal shows them.
    """

    def __init__(self, *, colors: bool) -> None:
        def paint(style: str) -> str:
            return style if colors else ""

        def column(style: str, *, key: bool = False, width: int = 0) -> KeyValueColumnFormatter:
            key_style = paint(CYAN) if key else None
            return KeyValueColumnFormatter(key_style, paint(style), paint(RESET_ALL), _printable, width)

        styles = {"trace": DIM, "debug": GREEN, "info": GREEN, "warning": YELLOW, "error": RED, "fatal": RED_BACK}
        levels = LogLevelColumnFormatter({name: paint(style) for name, style in styles.items()}, paint(RESET_ALL))
        self._render: Callable[..., object] = ConsoleRenderer(
            columns=[
                Column("timestamp", column(DIM)),
                Column("level", levels),
                Column("event", column(BRIGHT, width=20)),
                Column("status", column(MAGENTA, key=True)),
                Column("ms", column(MAGENTA, key=True)),
                Column("", column(MAGENTA, key=True)),
            ],
            sort_keys=False,
        )

    def __call__(self, line: LogLine) -> str:
        """Return the line, with its line end; a failure's traceback follows it."""
        fields = dict(line.fields)
        fields.pop("exception", None)
        last = {name: fields.pop(name) for name in LAST if name in fields}
        shown = {name if name.isprintable() else repr(name): value for name, value in (fields | last).items()}
        text = str(self._render(None, "", shown))
        return f"{text}\n{line.traceback}\n" if line.traceback else f"{text}\n"


def _printable(value: object) -> str:
    """Return a value on one line, without characters that move the cursor."""
    if isinstance(value, str):
        return value if value.isprintable() else repr(value)
    return orjson.dumps(value).decode()


def _failure_of(info: object) -> BaseException | None:
    if isinstance(info, BaseException):
        return info
    if isinstance(info, tuple) and len(info) > 1:
        return info[1] if isinstance(info[1], BaseException) else None
    return sys.exc_info()[1] if info else None


def _dumped(fields: dict[str, Any]) -> bytes:
    line = orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)
    if len(line) <= MAX_LINE:
        return line
    sizes = {name: len(orjson.dumps(value)) for name, value in fields.items()}
    short, over = dict(fields), len(line) - MAX_LINE
    for name in sorted(sizes, key=lambda name: (name in KEPT, -sizes[name])):
        if over <= 0:
            break
        value = short[name][:KEPT_TEXT] if name in KEPT else f"[cut: {sizes[name]} bytes]"
        over -= sizes[name] - len(orjson.dumps(value))
        short[name] = value
    return orjson.dumps(short, option=orjson.OPT_APPEND_NEWLINE)


@lru_cache(maxsize=1)
def _second(created: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created))
