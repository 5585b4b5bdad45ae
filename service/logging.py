"""Log lines of structlog and the standard library in one format, rendered and written by a thread."""

import logging
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Final, TextIO

import orjson
import structlog
from pydantic import SecretStr
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.tracebacks import ExceptionDictTransformer

from service.config.settings import Settings
from service.context import CURRENT_CALL

CAPACITY: Final = 10_000  # lines that wait to be written; further ones are dropped and counted
FLUSH_INTERVAL: Final = 0.05  # seconds for which lines are collected for one write
CLOSE_TIMEOUT: Final = 1.0  # seconds for the last lines
REDACTED: Final = "[redacted]"
SECRETS: Final = r"(?:\b|(?<=m))sk-[A-Za-z0-9_-]{8,}|(?<=[Bb]earer )[A-Za-z0-9._~+/=-]{6,}"  # "m" ends a colour code
SECRET_MARKS: Final = ("sk-", "earer ")  # every match contains one of these, and searching for them is 20 times cheaper
SECRET_NAMES: Final = frozenset({"api_key", "apikey", "authorization", "password", "secret", "token", "x-api-key"})

Event = MutableMapping[str, Any]
Render = Callable[[Event], str]


class LogSink:
    """Takes events from any thread without waiting; its own thread renders and writes them in batches.

    A stalled output (a full pipe, a slow disk) loses lines, and never blocks the event loop.
    """

    def __init__(self, stream: TextIO, render: Render, capacity: int = CAPACITY) -> None:
        self._stream = stream
        self._render = render
        self._capacity = capacity
        self._events: deque[Event] = deque()
        self._dropped = 0
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, event: Event) -> None:
        """Queue ``event``, which the sink owns from now on; drops it where the queue is full."""
        if len(self._events) >= self._capacity:
            self._dropped += 1
            return
        self._events.append(event)
        if not self._wake.is_set():
            self._wake.set()

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Write the queued events, for at most ``timeout`` seconds."""
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
                return

    def _write(self) -> None:
        lines = [self._line(self._events.popleft()) for _ in range(len(self._events))]
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            lines.append(self._line({"event": "log_lines_dropped", "count": dropped, "level": "warning"}))
        if lines:
            try:
                self._stream.write("".join(lines))
                self._stream.flush()
            except (OSError, ValueError):
                self._dropped += len(lines)

    def _line(self, event: Event) -> str:
        try:
            return self._render(event) + "\n"
        except Exception as error:  # noqa: BLE001 - a value that can't be rendered must not end the log
            return f'{{"event": "log_line_unrenderable", "error": "{type(error).__name__}"}}\n'


class SinkHandler(logging.Handler):
    """Passes the standard library's records to the sink; a record's dict ``fields`` is merged into its line."""

    def __init__(self, sink: LogSink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record; the sink renders it."""
        fields = getattr(record, "fields", None)
        event: Event = {
            **(fields if isinstance(fields, dict) else {}),
            "event": record.getMessage(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": record.created,
        }
        if record.exc_info:
            event["exc_info"] = record.exc_info
        add_call(event)
        self._sink.put(event)


def add_call(event: Event) -> None:
    """Add the ids of the current call, if there is one."""
    call = CURRENT_CALL.get()
    if call is not None:
        event.setdefault("request_id", call.request_id)
        event.setdefault("trace_id", call.trace_id)


def renderer(*, pretty: bool, secrets: Iterable[str] = ()) -> Render:
    """Return a function that renders an event as a line, with ``secrets`` and whatever looks like a key redacted."""
    exact = [secret for secret in secrets if secret]
    pattern = re.compile("|".join((*map(re.escape, exact), SECRETS)))
    suspect = (*exact, *SECRET_MARKS)
    if pretty:
        console = ConsoleRenderer(colors=True, exception_formatter=plain_traceback)

        def render(event: Event) -> str:
            _prepare(event)
            return str(console(None, "", event))
    else:
        traceback = structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False))

        def render(event: Event) -> str:
            _prepare(event)
            if "exc_info" in event:
                event = dict(traceback(None, "", event))
            try:
                return orjson.dumps(event, default=repr).decode()
            except (
                orjson.JSONEncodeError
            ):  # a key that is not a string: the option costs time, so it is not used for every line
                return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()

    def redacted(event: Event) -> str:
        line = render(event)
        for mark in suspect:
            if mark in line:
                return pattern.sub(REDACTED, line)
        return line

    return redacted


@contextmanager
def open_logging(settings: Settings, stream: TextIO | None = None) -> Iterator[LogSink]:
    """Log to ``stream`` (stderr by default); restores the previous configuration at the end."""
    out = sys.stderr if stream is None else stream
    pretty = settings.log_format == "pretty" or (
        settings.log_format == "auto" and _is_development_terminal(settings, out)
    )
    sink = LogSink(out, renderer(pretty=pretty, secrets=_secrets(settings)))
    root, before = logging.getLogger(), structlog.get_config()
    handlers, level = root.handlers[:], root.level
    sink.start()
    root.handlers = [SinkHandler(sink)]
    root.setLevel(settings.log_level)
    structlog.configure(
        processors=[],
        wrapper_class=_bound_to_sink(logging.getLevelNamesMapping()[settings.log_level]),
        logger_factory=lambda *names: _NamedSink(sink, names[0] if names else ""),
        cache_logger_on_first_use=False,
    )
    try:
        yield sink
    finally:
        structlog.configure(**before)
        root.handlers = handlers
        root.setLevel(level)
        sink.close()


class _NamedSink:
    """The target of a structlog logger: the sink, with the logger's name."""

    __slots__ = ("_name", "_sink")

    def __init__(self, sink: LogSink, name: str) -> None:
        self._sink = sink
        self._name = name

    def put(self, event: Event) -> None:
        """Add the common fields to ``event``, and queue it."""
        event["timestamp"] = time.time()
        if self._name:
            event["logger"] = self._name
        if event.get("exc_info") is True:
            event["exc_info"] = sys.exc_info()
        add_call(event)
        self._sink.put(event)


class _ToSink:
    """A structlog logger that passes events to the sink without a chain of processors, which none of them needs."""

    _context: Event
    _logger: _NamedSink

    def _proxy_to_logger(self, method_name: str, event: str | None = None, **fields: Any) -> None:  # noqa: ANN401
        self._logger.put({**self._context, **fields, "event": event, "level": method_name})


def _bound_to_sink(level: int) -> type:
    return type("SinkBoundLogger", (_ToSink, structlog.make_filtering_bound_logger(level)), {})


def _prepare(event: Event) -> None:
    created = event.get("timestamp") or time.time()
    event["timestamp"] = f"{_second(int(created))}.{int(created % 1 * 1000):03d}Z"
    if not SECRET_NAMES.isdisjoint(event):
        event.update(dict.fromkeys(SECRET_NAMES & event.keys(), REDACTED))


@lru_cache(maxsize=1)
def _second(created: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created))


def _is_development_terminal(settings: Settings, stream: TextIO) -> bool:
    return settings.environment != "production" and stream.isatty()


def _secrets(settings: Settings) -> Iterator[str]:
    keys: tuple[SecretStr | None, ...] = (*settings.api_keys, settings.openai_api_key, settings.anthropic_api_key)
    return (key.get_secret_value() for key in keys if key is not None)
