"""Opens the log of a process: outputs, levels, and the loggers of structlog and the standard library."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO, cast

import structlog
from pydantic import SecretStr

from protocol.errors import ConfigurationError
from service.config.settings import Settings
from service.logging.file import FileOutput
from service.logging.levels import Levels
from service.logging.line import TerminalRenderer
from service.logging.loggers import LeanRecord, WriterHandler, bound, factory
from service.logging.output import LogOutput, StreamOutput
from service.logging.redaction import Redactor
from service.logging.writer import LogWriter


@contextmanager
def open_logging(
    settings: Settings, stream: TextIO | None = None, *, outputs: Sequence[LogOutput] = ()
) -> Iterator[LogWriter]:
    """Log as the settings say; restores the previous configuration at the end.

    Args:
        settings: the operator's settings.
        stream: takes the lines for a person, or as JSON; by default stderr.
        outputs: further ones.

    Raises:
        ConfigurationError: the log file can't be written.
    """
    out = sys.stderr if stream is None else stream
    levels = Levels(settings.log_level, settings.log_levels)
    writer = LogWriter(
        [_stream_output(settings, out), *_file_outputs(settings), *outputs], Redactor(_secrets(settings))
    )
    root, before = logging.getLogger(), structlog.get_config()
    handlers = root.handlers[:]
    writer.start()
    try:
        with levels.applied(), _lean_records():
            root.handlers = [WriterHandler(writer)]
            structlog.configure(
                processors=[],
                wrapper_class=cast("Any", bound),
                logger_factory=factory(writer, levels),
                cache_logger_on_first_use=False,
            )
            yield writer
    finally:
        structlog.configure(**before)
        root.handlers = handlers
        writer.close()


def _stream_output(settings: Settings, stream: TextIO) -> StreamOutput:
    terminal = stream.isatty()
    development = settings.environment != "production"
    pretty = settings.log_format == "pretty" or (settings.log_format == "auto" and terminal and development)
    return StreamOutput(stream, TerminalRenderer(colors=terminal) if pretty else None)


def _file_outputs(settings: Settings) -> Iterator[LogOutput]:
    if not settings.log_to_file:
        return
    try:
        yield FileOutput(settings.log_dir)
    except OSError as error:
        message = f"LOG_DIR={settings.log_dir} can't be written: {error.strerror or error}"
        raise ConfigurationError(message) from error


@contextmanager
def _lean_records() -> Iterator[None]:
    """Let the standard library not look for what no line has: it is half of a record's cost."""
    caller, factory = logging._srcfile, logging.getLogRecordFactory()  # noqa: SLF001 - as its documentation says
    logging._srcfile = None  # noqa: SLF001 - as above
    logging.setLogRecordFactory(LeanRecord)
    try:
        yield
    finally:
        logging._srcfile = caller  # noqa: SLF001 - as above
        logging.setLogRecordFactory(factory)


def _secrets(settings: Settings) -> Iterator[str]:
    """Yield every secret of the settings."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, SecretStr):
                yield item.get_secret_value()
