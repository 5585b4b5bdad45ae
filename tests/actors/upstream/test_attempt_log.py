"""Log lines of failed calls, and of breakers."""

import logging
from collections.abc import Callable
from typing import Any

import pytest

from actors.runtime.testing import ManualClock
from actors.upstream.admission import AdmissionTerms
from actors.upstream.attempt_log import AttemptLog
from actors.upstream.breaker import IN_A_ROW, OPEN_SECONDS, Breaker
from protocol.errors import FieldError, ProviderError, SchemaMismatch, TidegateError
from protocol.refusals import refusal_of

Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """Return the fields of the lines."""
    caplog.set_level(logging.DEBUG, "tidegate.gateway")
    return lambda: [record.__dict__["fields"] for record in caplog.records]


@pytest.fixture
def log() -> AttemptLog:
    """A log whose request is at second 10."""
    return AttemptLog(AdmissionTerms(ManualClock(10.0), 100.0, request_id="r", trace_id="t"))


def test_a_line_says_what_follows(log: AttemptLog, lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    """The same target again, another one, or nothing; with the time until then."""
    error = refusal_of(500, {"error": {"message": "It has failed"}})
    calls: tuple[Callable[[], None], ...] = (
        lambda: log.follows(target="p/m", due=10.5),
        lambda: log.follows(target="q/n", due=0.0),
        lambda: log.follows("repair", target="p/m"),
        lambda: log.follows("hedge"),
        lambda: log.follows("end"),
    )
    for follow in calls:
        log.failed("p/m", 2, error, 0.25)
        assert log.knows(error)
        follow()
        assert not log.knows(error)
    log.follows("end")
    assert [(line["follows"], line.get("delayMs"), line.get("next")) for line in lines()] == [
        ("retry", 500, None),
        ("fallback", 0, "q/n"),
        ("repair", 0, None),
        ("hedge", None, None),
        ("end", None, None),
    ]
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert lines()[-1] == {
        "code": "provider_error",
        "ms": 250.0,
        "provider": "p",
        "model": "m",
        "attempt": 2,
        "upstream_status": 500,
        "reason": "It has failed",
        "request_id": "r",
        "trace_id": "t",
        "follows": "end",
    }


def _caused(cause: BaseException) -> TidegateError:
    error = ProviderError(code="provider_unavailable")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (_caused(ConnectionRefusedError("refused")), "ConnectionRefusedError: refused"),
        (_caused(TimeoutError()), "TimeoutError"),
        (ProviderError("It is closed"), "It is closed"),
        (
            SchemaMismatch(
                "'a secret' is no number", raw="a secret", errors=[FieldError("$.a", "'a secret' is no number")]
            ),
            "The answer does not match the schema: $.a",
        ),
    ],
)
def test_a_line_has_a_reason(log: AttemptLog, lines: Lines, error: TidegateError, reason: str) -> None:
    """The cause, or what the caller sees, and nothing of an answer."""
    log.failed("p/m", 0, error, 0.0)
    log.follows("end")
    (line,) = lines()
    assert (line["reason"], line["attempt"], line["upstream_status"]) == (reason, None, None)


@pytest.mark.parametrize(
    ("error", "number", "shown"),
    [
        (_caused(ConnectionRefusedError("refused")), 1, True),
        (_caused(ConnectionRefusedError("refused")), 0, False),
        (refusal_of(404, b"not here"), 1, True),
        (refusal_of(405, b"not so"), 1, True),
        (ProviderError(code="provider_bad_response"), 1, True),
        (ProviderError(code="provider_timeout"), 1, True),
        (refusal_of(401, b"no"), 1, False),
        (refusal_of(500, b"no"), 1, False),
        (refusal_of(503, b"no"), 1, False),
    ],
)
def test_a_line_has_the_address_where_it_may_be_wrong(
    log: AttemptLog, lines: Lines, error: TidegateError, number: int, *, shown: bool
) -> None:
    """Where the way to the provider fails, or something else answers there; not for a call that was not made."""
    log.failed("p/m", number, error, 0.0, url="http://127.0.0.1:9/v1")
    log.follows("end")
    (line,) = lines()
    assert line.get("url") == ("http://127.0.0.1:9/v1" if shown else None)


def test_each_change_of_a_breaker_has_its_fields(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    """From, to, the failures, and until when; probes that fail are of no interest above DEBUG."""
    clock = ManualClock()
    breaker = Breaker("p/some/m", clock)

    def call(*, good: bool) -> None:
        generation = breaker.enter()
        assert generation is not None
        breaker.leave(generation, good=good)

    for _ in range(IN_A_ROW):
        call(good=False)
    clock.step(OPEN_SECONDS)
    call(good=False)
    clock.step(2 * OPEN_SECONDS)
    call(good=True)
    assert [(line["from"], line["to"], bool(line["until"])) for line in lines()] == [
        ("closed", "open", True),
        ("open", "half-open", False),
        ("half-open", "open", True),
        ("open", "half-open", False),
        ("half-open", "closed", False),
    ]
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "DEBUG", "DEBUG", "DEBUG", "INFO"]
    assert all((line["provider"], line["model"]) == ("p", "some/m") for line in lines())
    assert all(line["failures"] == IN_A_ROW for line in lines())
    assert {record.__dict__["event"] for record in caplog.records} == {"breaker_changed"}
