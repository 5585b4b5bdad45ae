"""The log line at the end of each request."""

import logging
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from actors.requests.outcome import LOGGER, level_of, log_end, log_late_call
from actors.requests.record import RequestRecord
from actors.requests.run import Run
from actors.requests.stream import RequestStream
from protocol.budgets import Account
from protocol.events import Cancelled, Completed, Delta, Failed
from protocol.llm import Attempt, ChatMessage, ChatRequest, Cost, TextPart, Usage
from protocol.requests import Delivery, Source, Submit

USAGE = Usage(input_tokens=9, output_tokens=2, cached_input_tokens=4, cache_write_input_tokens=1, reasoning_tokens=1)
CALL = Attempt(provider="p", model="m-1", duration_ms=2.5, usage=USAGE, cost=Cost(usd=Decimal("0.002")))
DONE = Completed(parts=(TextPart(text="a secret"),), finish_reason="stop", usage=USAGE, provider="p", model="m-1")
Lines = Callable[[], list[tuple[int, str, dict[str, Any]]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """Return level, event and fields of the lines."""
    caplog.set_level(logging.DEBUG, LOGGER)
    return lambda: [(record.levelno, record.message, record.__dict__["fields"]) for record in caplog.records]


def record(source: Source = "upstream", **delivery: Any) -> RequestRecord:  # noqa: ANN401 - of the delivery
    """Return a request that has begun."""
    request = ChatRequest(model="alias", messages=(ChatMessage(role="user", content="a secret"),))
    account = Account("web", ())
    submit = Submit(request=request, tenant="acme", account=account, trace_id="t", delivery=Delivery(**delivery))
    run = Run("req_1", submit, on_late=log_late_call)
    stream = RequestStream("req_1", run.log)
    made = RequestRecord(
        request_id="req_1",
        tenant="acme",
        trace_id="t",
        surface="openai",
        account="web",
        delivery=submit.delivery,
        source=source,
        run=run,
        stream=stream,
    )
    run.begin(stream, made.created)
    return made


def test_a_whole_answer_has_all_its_facts(lines: Lines) -> None:
    """Who has asked for what, who has answered, when, with which tokens, and at what cost; and no text."""
    made = record(session_id="s-1")
    made.run.write((Delta(text="a secret"),), 1e-6)
    made.run.count(CALL, 1)
    made.run.finish(DONE)
    log_end(made)
    ((level, event, fields),) = lines()
    assert (level, event) == (logging.INFO, "request_ended")
    assert 0 <= fields.pop("first_token_ms") <= fields.pop("ms")
    assert fields == {
        "status": "completed",
        "request_id": "req_1",
        "trace_id": "t",
        "account": "web",
        "tenant": "acme",
        "surface": "openai",
        "model": "alias",
        "provider": "p",
        "provider_model": "m-1",
        "attempts": 1,
        "source": "upstream",
        "tokens": {"input": 9, "output": 2, "cached_input": 4, "cache_write": 1, "reasoning": 1, "total": 11},
        "cost": "0.002",
        "finish": "stop",
        "session_id": "s-1",
    }


@pytest.mark.parametrize(
    ("event", "status", "code", "level"),
    [
        (Failed(code="provider_timeout", message="m"), "failed", "provider_timeout", logging.WARNING),
        (Failed(code="provider_rejected", message="m"), "failed", "provider_rejected", logging.INFO),
        (Failed(code="internal_error", message="m"), "failed", "internal_error", logging.ERROR),
        (Cancelled(reason="abandoned"), "cancelled", "abandoned", logging.INFO),
    ],
)
def test_a_failure_has_its_code(lines: Lines, event: Failed | Cancelled, status: str, code: str, level: int) -> None:
    """A status of 5xx is a warning, a fault of ours an error."""
    made = record()
    made.run.finish(event)
    log_end(made)
    ((logged, _, fields),) = lines()
    assert (logged, fields["status"], fields["code"]) == (level, status, code)
    assert (fields["first_token_ms"], fields["attempts"], fields["cost"]) == (None, 0, None)
    assert "finish" not in fields


@pytest.mark.parametrize(("source", "first"), [("cache", 0.0), ("joined", None)])
def test_a_shared_answer_costs_nothing(lines: Lines, source: Source, first: float | None) -> None:
    """A joined or replayed request has no calls of its own; the tokens are the answer's."""
    made = record(source)
    made.run.count(CALL, 1)
    made.run.finish(DONE)
    log_end(made)
    ((_, _, fields),) = lines()
    assert (fields["attempts"], fields["provider"], fields["provider_model"]) == (0, "p", None)
    assert (fields["cost"], fields["tokens"]["total"], fields["first_token_ms"]) == ("0", 11, first)


def test_what_a_cancelled_call_has_used_follows(lines: Lines) -> None:
    """Usage that is known only after the end has a line of its own; a report without usage has none."""
    made = record()
    made.run.finish(Cancelled(reason="cancelled"))
    made.run.count(msgspec.structs.replace(CALL, usage=None, error="cancelled"), 1)
    made.run.count(msgspec.structs.replace(CALL, error="cancelled", estimated=True), 1)
    ((level, event, fields),) = lines()
    assert (level, event) == (logging.INFO, "call_settled")
    assert (fields["request_id"], fields["trace_id"], fields["code"]) == ("req_1", "t", "cancelled")
    assert (fields["tokens"]["total"], fields["cost"], fields["estimated"]) == (11, "0.002", True)


@pytest.mark.parametrize("before", [0, 1])
def test_a_call_that_was_running_at_the_end_counts(lines: Lines, before: int) -> None:
    """Cancelled or cut off, the line names the call that began last, also after others that had ended."""
    made = record()
    for number in range(1, before + 1):
        made.run.begin_call(number, "p", "m-1")
        made.run.count(msgspec.structs.replace(CALL, error="provider_error"), number)
    made.run.begin_call(before + 1, "q", "m-2")
    made.run.finish(Cancelled(reason="cancelled"))
    log_end(made)
    ((_, _, fields),) = lines()
    assert (fields["provider"], fields["provider_model"], fields["attempts"]) == ("q", "m-2", before + 1)


def test_a_whole_answer_names_its_own_call(lines: Lines) -> None:
    """A parallel call that still ran is counted, but it has not answered."""
    made = record()
    made.run.begin_call(1, "p", "m-1")
    made.run.begin_call(2, "q", "m-2")
    made.run.count(CALL, 1)
    made.run.provider = "p"
    made.run.finish(DONE)
    log_end(made)
    ((_, _, fields),) = lines()
    assert (fields["provider"], fields["provider_model"], fields["attempts"]) == ("p", "m-1", 2)


def test_nothing_is_made_where_nothing_is_logged(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    """Below the level no line is written."""
    caplog.set_level(logging.ERROR, LOGGER)
    made = record()
    made.run.finish(Failed(code="provider_timeout", message="m"))
    made.run.count(CALL, 1)
    log_end(made)
    assert lines() == []


def test_an_unknown_code_is_ours() -> None:
    """A failure that is in no table is a fault of ours."""
    assert level_of("made_up") == logging.ERROR
