"""Loggers of structlog and of the standard library, which pass their lines to the writer."""

import logging
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import structlog

from protocol.log_fields import FieldsHandler, OutsideTexts
from service.context import CURRENT_CALL
from service.logging.levels import NUMBERS, TRACE, Levels, level_name
from service.logging.line import Event
from service.logging.writer import LogWriter

_NAMES: Final = {"critical": "fatal", "exception": "error", "warn": "warning", "notset": "trace"}
_LEVEL_NAMES: Final = {number: logging.getLevelName(number) for number in (10, 20, 30, 40, 50)}
_LEVELS: Final = {number: name for name, number in NUMBERS.items()}
_UNKNOWN: Final = {**vars(logging.makeLogRecord({})), "thread": None, "threadName": None, "process": None}
_COUNT: Final = len(_UNKNOWN)
_OF_RECORDS: Final = frozenset(_UNKNOWN) | {"message", "asctime", "taskName", "fields", "event"}


class WriterHandler(FieldsHandler):
    """Passes the standard library's records to the writer, with the attributes that ``extra`` has added.

    Two of those are special: the dict ``fields`` is merged into the line, and ``event`` names the line where the
    message is a sentence; the sentence is then the field ``message``.
    """

    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit_fields(self, log: str, level: int, event: str, fields: dict[str, Any], outside: OutsideTexts) -> None:
        """Queue a line; the writer renders it."""
        line: Event = {
            "timestamp": time.time(),
            "level": _LEVELS.get(level) or level_name(level),
            "event": event,
            "logger": log,
            **fields,
        }
        self._writer.put(line, outside)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record; the writer renders it."""
        values = record.__dict__
        outside = values.get("outside")
        event: Event
        if type(outside) is not OutsideTexts:
            outside = None
        if (
            len(values) == _COUNT + 1 + (outside is not None)
            and type(fields := values.get("fields")) is dict
            and not record.args
        ):
            event = {"timestamp": None, "level": None, "event": None, "logger": None, **fields}
            event["event"] = record.msg
        else:
            event = _event_of(record, values)
        event["timestamp"] = record.created
        event["level"] = _LEVELS.get(record.levelno) or level_name(record.levelno)
        event["logger"] = record.name
        if record.exc_info:
            event["exc_info"] = record.exc_info
        if CURRENT_CALL.get() is not None:
            add_call(event)
            outside = None
        self._writer.put(event, outside)


def _event_of(record: logging.LogRecord, values: dict[str, Any]) -> Event:
    """Return the fields of any record."""
    text = record.getMessage()
    event: Event = {"timestamp": None, "level": None, "event": None, "logger": None}
    fields = values.get("fields")
    if isinstance(fields, dict):
        event.update(fields)
    event.update({name: values[name] for name in values.keys() - _OF_RECORDS})
    if type(values.get("outside")) is OutsideTexts:
        del event["outside"]
    named = values.get("event")
    if isinstance(named, str):
        event["message"] = text
        text = named
    event["event"] = text
    return event


class LeanRecord(logging.LogRecord):
    """A record of the standard library without what no line has: process, thread, file and function."""

    def __init__(  # noqa: PLR0913, PLR0917 - the standard library's
        self,
        name: str,
        level: int,
        pathname: str,  # noqa: ARG002 - as above
        lineno: int,  # noqa: ARG002 - as above
        msg: object,
        args: Any,  # noqa: ANN401 - as above
        exc_info: Any,  # noqa: ANN401 - as above
        func: str | None = None,  # noqa: ARG002 - as above
        sinfo: str | None = None,
        **_: object,
    ) -> None:
        if args and len(args) == 1 and isinstance(args[0], Mapping) and args[0]:
            args = args[0]  # as the standard library does it
        self.__dict__ = {
            **_UNKNOWN,
            "name": name,
            "msg": msg,
            "args": args,
            "levelname": _LEVEL_NAMES.get(level) or logging.getLevelName(level),
            "levelno": level,
            "exc_info": exc_info,
            "stack_info": sinfo,
            "created": time.time(),
        }


class NamedWriter:
    """The target of a structlog logger: the writer, with the logger's name and lowest level.

    Args:
        writer: takes the lines.
        name: in each line; empty for none.
        level: the lowest one that is written.
        outside: the fields of this logger's lines that may hold a secret; None for any.
    """

    __slots__ = ("_name", "_outside", "_writer", "level")

    def __init__(self, writer: LogWriter, name: str, level: int, outside: OutsideTexts | None = None) -> None:
        self._writer = writer
        self._name = name
        self._outside = outside
        self.level = level

    def put(self, level: str, event: object, fields: Event) -> None:
        """Queue a line with the common fields; ``fields`` can't replace them."""
        line: Event = {"timestamp": None, "level": None, "event": None, "logger": None, **fields}
        line["timestamp"] = time.time()
        line["level"] = level
        line["event"] = event
        line["logger"] = self._name
        if not self._name:
            del line["logger"]
        if line.get("exc_info") is True:
            line["exc_info"] = sys.exc_info()
        if CURRENT_CALL.get() is not None:
            add_call(line)
        self._writer.put(line, self._outside)


class _ToWriter:
    """A structlog logger that passes lines to the writer; processors run only where a test has put some in."""

    _context: Event
    _logger: NamedWriter
    _processors: list[Any]

    def _proxy_to_logger(self, method_name: str, event: str | None = None, **fields: Any) -> None:  # noqa: ANN401
        if self._context:
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
    """Return structlog's ``logger_factory``: ``get_logger(name, OutsideTexts(...))``, both may be left out."""

    def make(name: str = "", outside: OutsideTexts | None = None) -> NamedWriter:
        return NamedWriter(writer, name, levels.of(name), outside)

    return make


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
