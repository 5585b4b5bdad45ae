"""The log of a process: content of its lines, levels, and what is set back at the end."""

import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pytest
import structlog
from structlog.testing import capture_logs

from protocol.errors import ConfigurationError
from protocol.log_fields import OutsideTexts
from service.config.settings import load_settings
from service.context import CURRENT_CALL, CallContext
from service.logging import LogLine, open_logging

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


def test_a_value_may_have_keys_that_are_no_texts(stream: io.StringIO) -> None:
    """Keys that are not strings become strings; values that are not JSON become their ``repr``."""
    with open_logging(load_settings(None, log_format="json"), stream):
        structlog.get_logger("ours").bind(room=7).info("counted", by={1: 2, None: 3}, of=object)
    (line,) = _lines(stream)
    assert (line["room"], line["by"], line["of"]) == (7, {"1": 2, "null": 3}, "<class 'object'>")


def test_time_level_and_event_come_first(stream: io.StringIO) -> None:
    """A line begins with its time, level and event, from both kinds of loggers; fields can't replace them."""
    with open_logging(load_settings(None, log_format="json"), stream):
        structlog.get_logger("ours").warning("said", status=200, level="mine", timestamp=1)
        logging.getLogger("theirs").error("said", extra={"fields": {"event": "mine"}, "status": 200})
    for line in _lines(stream):
        assert list(line)[:3] == ["timestamp", "level", "event"]
        assert line["event"] == "said"
        assert line["level"] in {"warning", "error"}
        assert line["status"] == 200


def test_a_terminal_shows_event_status_and_ms_first(stream: io.StringIO) -> None:
    """For a person the event is followed by status and duration, then the other fields; ids and logger are last."""
    with open_logging(load_settings(None, log_format="pretty"), stream):
        structlog.get_logger("ours").info("http", method="GET", path="/x\ny", ms=1.5, request_id="r", status=200)
    line = stream.getvalue()
    assert line.count("\n") == 1
    after = line.split("http", 1)[1].split()
    assert after == ["status=200", "ms=1.5", "method=GET", "path='/x\\ny'", "request_id=r", "logger=ours"]


def test_extra_of_the_standard_library_is_in_the_line(stream: io.StringIO) -> None:
    """Attributes of a record are fields; a name in `event` makes the message a field."""
    with open_logging(load_settings(None, log_format="json"), stream):
        log = logging.getLogger("theirs")
        log.warning("retrying", extra={"attempt": 2, "headers": {"Authorization": "Basic abc"}})
        log.warning("%s is open", "p", extra={"event": "breaker_changed", "fields": {"to": "open"}})
    retrying, changed = _lines(stream)
    assert (retrying["attempt"], retrying["headers"]) == (2, {"Authorization": "[redacted]"})
    assert (changed["event"], changed["message"], changed["to"]) == ("breaker_changed", "p is open", "open")


def test_a_logger_inherits_its_parents_level(stream: io.StringIO) -> None:
    """`LOG_LEVELS` covers a name and those below it, in both kinds of loggers, with and without `tidegate.`."""
    settings = load_settings(
        None, log_format="json", log_level="error", log_levels="service.http=debug, wire=Trace,a=fatal"
    )
    with open_logging(settings, stream):
        for name in ("service", "service.http", "service.http.inner", "wire.pool", "a.b"):
            structlog.get_logger(name).debug(name)
            structlog.get_logger(name).error(name)
        structlog.get_logger("wire").trace("wire")
        structlog.get_logger("service.http").trace("no")
        for name in ("service.http", "tidegate.wire.pool", "tidegate.gateway"):
            assert logging.getLogger(name).isEnabledFor(5) is (name == "tidegate.wire.pool")
            logging.getLogger(name).debug(name)
        logging.getLogger("tidegate.wire").log(5, "wire")
        logging.getLogger("a").critical("a")
        structlog.get_logger("a").critical("a")
    assert [(line["level"], line["event"]) for line in _lines(stream)] == [
        ("error", "service"),
        ("debug", "service.http"),
        ("error", "service.http"),
        ("debug", "service.http.inner"),
        ("error", "service.http.inner"),
        ("debug", "wire.pool"),
        ("error", "wire.pool"),
        ("trace", "wire"),
        ("debug", "service.http"),
        ("debug", "tidegate.wire.pool"),
        ("trace", "wire"),
        ("fatal", "a"),
        ("fatal", "a"),
    ]
    assert logging.getLogger("tidegate.wire").level == logging.NOTSET


@pytest.mark.parametrize("levels", ["service", "service=loud", "=debug"])
def test_a_wrong_level_is_refused(levels: str) -> None:
    """The message names the variable."""
    with pytest.raises(ConfigurationError, match="LOG_LEVELS: "):
        load_settings(None, log_levels=levels)


def test_a_level_may_be_written_in_any_case() -> None:
    """Names of other loggers mean ours."""
    for written, level in (("warn", "WARNING"), ("Trace", "TRACE"), ("fatal", "FATAL"), ("critical", "FATAL")):
        assert load_settings(None, log_level=written).log_level == level


def test_a_test_can_capture_the_log(stream: io.StringIO) -> None:
    """`capture_logs` works inside, also for a logger that was bound before; afterwards lines are written again."""
    with open_logging(load_settings(None, log_format="json"), stream):
        log = structlog.get_logger("ours")
        early = log.bind(room=7)
        with capture_logs() as logs:
            log.warning("one", size=1)
            early.info("two")
            log.debug("below the level")
        early.info("three")
    assert logs == [
        {"event": "one", "log_level": "warning", "size": 1},
        {"event": "two", "log_level": "info", "room": 7},
    ]
    assert [line["event"] for line in _lines(stream)] == ["three"]


class _Memory:
    name = "memory"

    def __init__(self) -> None:
        self.lines: list[LogLine] = []
        self.closed = False

    def write(self, lines: Sequence[LogLine]) -> None:
        self.lines += lines

    def close(self) -> None:
        self.closed = True


def test_outputs_stand_side_by_side(stream: io.StringIO, tmp_path: Path) -> None:
    """Terminal, file and further outputs get the same lines, all of them redacted."""
    memory = _Memory()
    settings = load_settings(None, log_format="pretty", log_to_file="true", log_dir=tmp_path / "a" / "logs")
    with open_logging(settings, stream, outputs=[memory]):
        structlog.get_logger("ours").info("hello", apiKey="k", size=3)
    (line,) = (tmp_path / "a" / "logs" / "server.log").read_text("utf-8").splitlines()
    (seen,) = memory.lines
    assert orjson.loads(line) == seen.fields
    assert (seen.fields["apiKey"], seen.fields["size"]) == ("[redacted]", 3)
    assert "apiKey=[redacted] size=3" in stream.getvalue()
    assert memory.closed


def test_a_folder_that_can_not_be_written_is_reported_at_the_start(tmp_path: Path) -> None:
    """The message names the setting."""
    (tmp_path / "file").touch()
    settings = load_settings(None, log_to_file=True, log_dir=tmp_path / "file")
    with pytest.raises(ConfigurationError, match=r"LOG_DIR=.* can't be written"), open_logging(settings):
        pytest.fail("it must not open")


def test_a_short_key_breaks_no_line(stream: io.StringIO) -> None:
    """A configured secret that can't be told from a word is not searched for; each line is JSON."""
    with open_logging(load_settings(None, log_format="json", openai_api_key="e", anthropic_api_key='"'), stream):
        structlog.get_logger("ours").info("hello there", name="eve")
    (line,) = _lines(stream)
    assert (line["event"], line["name"]) == ("hello there", "eve")


def test_a_line_may_say_where_secrets_may_stand(stream: io.StringIO) -> None:
    """Only the fields that a record names are searched; any other value of that name is a field."""
    fields = {"model": "sk-proj-0123456789abc", "size": 3}
    with open_logging(load_settings(None, log_format="json"), stream):
        log = logging.getLogger("theirs")
        for outside in (OutsideTexts(("model", "absent")), ("size",)):
            log.info("said", extra={"fields": fields, "outside": outside})
        log.info("said %d", 1, extra={"fields": {"size": 3}, "outside": OutsideTexts(("size",))})
    for line in _lines(stream)[:2]:
        assert (line["model"], line["size"]) == ("[redacted]", 3)
    assert [line.get("outside") for line in _lines(stream)] == [None, ["size"], None]
    assert [line["event"] for line in _lines(stream)] == ["said", "said", "said 1"]
