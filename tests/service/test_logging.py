"""Log lines: content, redaction, and that writing them never blocks."""

import io
import logging
import threading
from collections.abc import Iterator

import orjson
import pytest
import structlog

from service.config.settings import load_settings
from service.context import CURRENT_CALL, CallContext
from service.logging import LogSink, open_logging, renderer

KEY = "tide-9f8e7d6c5b4a"


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """The stream of a test's lines."""
    with io.StringIO() as stream:
        yield stream


def _lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in stream.getvalue().splitlines()]


def test_structlog_and_the_standard_library_share_one_chain(stream: io.StringIO) -> None:
    """Both kinds of loggers write JSON with time, level, logger and the call's ids."""
    token = CURRENT_CALL.set(CallContext("req_1", "ab" * 16, 0.0))
    try:
        with open_logging(load_settings(None, log_format="json"), stream):
            structlog.get_logger("ours").info("hello", size=3)
            logging.getLogger("theirs").warning("hello %s", "you")
    finally:
        CURRENT_CALL.reset(token)
    ours, theirs = _lines(stream)
    assert ours["event"] == "hello"
    assert ours["size"] == 3
    assert theirs["event"] == "hello you"
    for line, name, level in ((ours, "ours", "info"), (theirs, "theirs", "warning")):
        assert line["logger"] == name
        assert line["level"] == level
        assert line["request_id"] == "req_1"
        assert line["trace_id"] == "ab" * 16
        assert str(line["timestamp"]).endswith("Z")


def test_the_fields_of_a_record_are_in_its_line(stream: io.StringIO) -> None:
    """A library's ``fields`` are merged into the line, redacted, and can't replace our own fields."""
    with open_logging(load_settings(None, log_format="json"), stream):
        log = logging.getLogger("theirs")
        log.info("called", extra={"fields": {"durationMs": 1.5, "cost": None, "level": "none", "password": "p"}})
        log.info("listed", extra={"fields": ["no", "dict"]})
    called, listed = _lines(stream)
    assert (called["event"], called["level"], called["durationMs"], called["cost"]) == ("called", "info", 1.5, None)
    assert called["password"] == "[redacted]"
    assert listed.keys() == {"event", "level", "logger", "timestamp"}


def test_below_the_level_nothing_is_written(stream: io.StringIO) -> None:
    """``LOG_LEVEL`` applies to both."""
    with open_logging(load_settings(None, log_format="json", log_level="warning"), stream):
        structlog.get_logger("ours").info("hello")
        logging.getLogger("theirs").info("hello")
    assert stream.getvalue() == ""


def test_a_traceback_shows_no_local_variables(stream: io.StringIO) -> None:
    """An exception is logged with its frames, without local variables."""
    with open_logging(load_settings(None, log_format="json"), stream):
        try:
            hidden = "the-local-value"
            raise ValueError(len(hidden))  # noqa: TRY301 - the frame with the local is the point
        except ValueError:
            structlog.get_logger("ours").exception("failed")
            logging.getLogger("theirs").exception("failed")
    text = stream.getvalue()
    assert "the-local-value" not in text
    for line in _lines(stream):
        assert "ValueError" in str(line["exception"])


@pytest.mark.parametrize("log_format", ["json", "pretty"])
def test_secrets_are_redacted(stream: io.StringIO, log_format: str) -> None:
    """Configured keys, text that looks like a key, and fields named like one are redacted."""
    settings = load_settings(None, log_format=log_format, api_keys=KEY)
    with open_logging(settings, stream):
        log = structlog.get_logger("ours")
        log.info(
            "sent", header=f"x {KEY} y", other="Bearer abcdefgh1234", vendor="sk-proj-0123456789abc", password="hunter2"
        )
        logging.getLogger("theirs").error("key was %s", KEY)
    text = stream.getvalue()
    for secret in (KEY, "abcdefgh1234", "sk-proj", "hunter2"):
        assert secret not in text
    assert text.count("[redacted]") == 5


def test_what_was_configured_before_is_set_back(stream: io.StringIO) -> None:
    """After the end the previous logging configuration is restored."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, structlog.get_config()["processors"]
    with open_logging(load_settings(None, log_format="json"), stream):
        assert root.handlers != before[0]
    assert (root.handlers, root.level, structlog.get_config()["processors"]) == before


class _StalledStream(io.StringIO):
    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.release = threading.Event()

    def write(self, text: str, /) -> int:
        self.entered.set()
        self.release.wait()
        return super().write(text)


def test_a_stalled_stream_costs_lines_and_never_waits() -> None:
    """While stderr is stalled, further lines are dropped, and their number is logged afterwards."""
    stream = _StalledStream()
    sink = LogSink(stream, renderer(pretty=False), capacity=2)
    sink.start()
    sink.put({"event": "first"})
    assert stream.entered.wait(10)
    for number in range(5):
        sink.put({"event": str(number)})
    stream.release.set()
    sink.close(10)
    lines = _lines(stream)
    assert [line["event"] for line in lines] == ["first", "0", "1", "log_lines_dropped"]
    assert lines[-1]["count"] == 3


def test_a_value_that_can_not_be_rendered_does_not_end_the_log(stream: io.StringIO) -> None:
    """A value that can't be rendered only loses its line."""

    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError

    sink = LogSink(stream, renderer(pretty=False))
    sink.start()
    sink.put({"event": "bad", "value": Bad()})
    sink.put({"event": "good"})
    sink.close(10)
    assert [line["event"] for line in _lines(stream)] == ["log_line_unrenderable", "good"]


def test_a_value_may_have_keys_that_are_no_texts(stream: io.StringIO) -> None:
    """Keys that are not strings become strings; values that are not JSON become their ``repr``."""
    with open_logging(load_settings(None, log_format="json"), stream):
        structlog.get_logger("ours").bind(room=7).info("counted", by={1: 2, None: 3}, of=object)
    (line,) = _lines(stream)
    assert (line["room"], line["by"], line["of"]) == (7, {"1": 2, "null": 3}, "<class 'object'>")
