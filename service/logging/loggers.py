"""Loggers of structlog and of the standard library, which pass their lines to the writer."""

import logging
import sys
import time
from functools import lru_cache
from typing import Any, Final

import structlog

from service.context import CURRENT_CALL
from service.logging.levels import NUMBERS, TRACE, Levels, level_name
from service.logging.line import Event
from service.logging.writer import LogWriter

_NAMES: Final = {"critical": "fatal", "exception": "error", "warn": "warning", "notset": "trace"}
_OF_RECORDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "fields"}


class WriterHandler(logging.Handler):
    """Passes the standard library's records to the writer, with the attributes that ``extra`` has added.

    Two of those are special: the dict ``fields`` is merged into the line, and ``event`` names the line where the
    message is a sentence; the sentence is then the field ``message``.
    """

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record; the writer renders it."""
        values = vars(record)
        event: Event = {"timestamp": None, "level": None, "event": None, "logger": None}
        fields = values.get("fields")
        if isinstance(fields, dict):
            event.update(fields)
        for name in values.keys() - _OF_RECORDS:
            event[name] = values[name]
        text = record.getMessage()
        named = values.get("event")
        if isinstance(named, str):
            event["message"] = text
            text = named
        event["timestamp"] = record.created
        event["level"] = level_name(record.levelno)
        event["event"] = text
        event["logger"] = record.name
        if record.exc_info:
            event["exc_info"] = record.exc_info
        add_call(event)
        self._writer.put(event)


class NamedWriter:
    """The target of a structlog logger: the writer, with the logger's name and lowest level."""

    __slots__ = ("_name", "_writer", "level")

    def __init__(self, writer: LogWriter, name: str, level: int) -> None:
        self._writer = writer
        self._name = name
        self.level = level

    def put(self, level: str, event: object, fields: Event) -> None:
        """Queue a line with the common fields; ``fields`` can't replace them."""
        line: Event = {"timestamp": None, "level": None, "event": None}
        if self._name:
            line["logger"] = None
        line.update(fields)
        line["timestamp"] = time.time()
        line["level"] = level
        line["event"] = event
        if self._name:
            line["logger"] = self._name
        if line.get("exc_info") is True:
            line["exc_info"] = sys.exc_info()
        add_call(line)
        self._writer.put(line)


class _ToWriter:
    """A structlog logger that passes lines to the writer; processors run only where a test has put some in."""

    _context: Event
    _logger: NamedWriter
    _processors: list[Any]

    def _proxy_to_logger(self, method_name: str, event: str | None = None, **fields: Any) -> None:  # noqa: ANN401
        fields = {**self._context, **fields}
        if self._processors:
            fields["event"] = event
            try:
                for processor in self._processors:
                    fields = processor(self._logger, method_name, fields)
            except structlog.DropEvent:
                return
            event = fields.pop("event", event)
        self._logger.put(_NAMES.get(method_name, method_name), event, fields)


def bound(logger: NamedWriter, *, processors: list[Any], context: Event) -> object:
    """Return the logger of structlog for this target: methods below its level do nothing."""
    return _class_for(logger.level)(logger, processors, context)


def factory(writer: LogWriter, levels: Levels) -> Any:  # noqa: ANN401 - structlog's type of it
    """Return structlog's ``logger_factory``."""
    return lambda *names: NamedWriter(writer, names[0] if names else "", levels.of(names[0] if names else ""))


def add_call(event: Event) -> None:
    """Add the ids of the current call, and its tenant, if there is one."""
    call = CURRENT_CALL.get()
    if call is not None:
        if call.known_id:
            event.setdefault("request_id", call.known_id)
        event.setdefault("trace_id", call.trace_id)
        if call.principal.tenant:
            event.setdefault("tenant", call.principal.tenant)


@lru_cache(maxsize=len(NUMBERS))
def _class_for(level: int) -> type:
    base = structlog.make_filtering_bound_logger(level if level > TRACE else 0)

    def trace(self: Any, event: str, **fields: Any) -> None:  # noqa: ANN401 - a method
        if level <= TRACE:
            self._proxy_to_logger("trace", event, **fields)

    own = {"trace": trace, "is_enabled_for": lambda _, other: other >= level, "get_effective_level": lambda _: level}
    return type("WriterBoundLogger", (_ToWriter, base), own)
