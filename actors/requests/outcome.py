"""Log lines of requests: one at the end of each, and one for a call whose usage is known only afterwards.

They go to the standard library's logger ``tidegate.requests``; the record's attribute ``fields``, a dict, has their
content. No line holds a prompt, a user's text or an answer.
"""

import logging
import time
from typing import Any, Final

from actors.requests.record import RequestRecord
from actors.requests.run import NO_CALL, Run
from protocol.errors import PROBLEMS
from protocol.events import Cancelled, Completed, Failed
from protocol.llm import Attempt, Cost, Usage
from protocol.log_fields import OutsideTexts, log_fields

LOGGER: Final = "tidegate.requests"
SERVER_ERROR: Final = 500  # itself a fault of ours; those above are an upstream's, or pass

OUTSIDE: Final = OutsideTexts(
    ("trace_id", "account", "model", "provider", "provider_model", "code", "session_id", "tenant")
)

_log = logging.getLogger(LOGGER)


def log_end(record: RequestRecord) -> None:
    """Write ``request_ended`` for a request that has ended.

    It is a warning where its code's status is 5xx, and an error for an internal one. ``tokens`` are those of the
    answer, also where it was joined or replayed; ``cost`` is what this request has cost, in US dollars, null where a
    price is unknown. Times are in milliseconds, from the submission.
    """
    stream = record.stream
    terminal = stream.terminal
    event = None if terminal is None else terminal.event
    level = level_of(event.code) if type(event) is Failed else logging.INFO
    if not _log.isEnabledFor(level):
        return
    now, run, source = time.time(), record.run, record.source
    attempts = record.attempts
    number, called = _last_call(record, whole=type(event) is Completed)
    first = 0.0 if source == "cache" else None
    if run.first_content:
        first = round(max(0.0, run.first_content - record.created) * 1000, 2)
    fields: dict[str, Any] = {
        "status": "completed",
        "ms": round(max(0.0, now - record.created) * 1000, 2),
        "request_id": stream.request_id,
        "trace_id": record.trace_id,
        "account": record.account or record.tenant,
        "surface": record.surface,
        "model": run.request.model,
        "provider": run.provider or run.called[1] or None,
        "provider_model": called,
        "attempts": number,
        "source": source,
        "first_token_ms": first,
        "tokens": tokens_of(record.usage),
        "cost": cost_of(run.cost) if source == "upstream" else "0",
    }
    if type(event) is Completed:
        fields["finish"] = event.finish_reason
    elif type(event) is Failed:
        fields["status"], fields["code"] = "failed", event.code
    elif type(event) is Cancelled:
        fields["status"], fields["code"] = "cancelled", event.reason
    if record.tenant:
        fields["tenant"] = record.tenant
    if record.delivery.session_id:
        fields["session_id"] = record.delivery.session_id
    for attempt in attempts:
        if attempt.estimated:
            fields["estimated"] = True
    log_fields(_log, level, "request_ended", fields, OUTSIDE)


def _last_call(record: RequestRecord, *, whole: bool) -> tuple[int, str | None]:
    """Return the number of calls, also of one that was running at the end, and the model that was called last.

    Args:
        record: the request.
        whole: whether its answer is whole: then the model is that of the last call that has ended.
    """
    attempts = record.attempts
    number, _, model = record.run.called if record.source == "upstream" else NO_CALL
    if attempts and (whole or number <= len(attempts)):
        model = attempts[-1].model
    return max(number, len(attempts)), model or None


def log_late_call(run: Run, attempt: Attempt) -> None:
    """Write ``call_settled`` for a call that was counted after its run's end: a cancelled one, or one that has lost."""
    if attempt.usage is None or not _log.isEnabledFor(logging.INFO):
        return
    fields = {
        "request_id": run.key,
        "trace_id": run.trace_id,
        "provider": attempt.provider,
        "model": attempt.model,
        "code": attempt.error,
        "ms": attempt.duration_ms,
        "tokens": tokens_of(attempt.usage),
        "cost": cost_of(attempt.cost),
        "estimated": attempt.estimated,
    }
    log_fields(_log, logging.INFO, "call_settled", fields, OUTSIDE)


def tokens_of(usage: Usage) -> dict[str, int]:
    """Return the tokens by class, with their total; cached and written ones are part of the input."""
    return {
        "input": usage.input_tokens,
        "output": usage.output_tokens,
        "cached_input": usage.cached_input_tokens,
        "cache_write": usage.cache_write_input_tokens,
        "reasoning": usage.reasoning_tokens,
        "total": usage.input_tokens + usage.output_tokens,
    }


def cost_of(cost: Cost | None) -> str | None:
    """Return US dollars as a decimal number; None where the cost is unknown."""
    return None if cost is None else f"{cost.usd:f}"


def level_of(code: str) -> int:
    """Return the level of a failure: a warning for a status of 5xx, an error for a fault of ours."""
    problem = PROBLEMS.get(code)
    status = SERVER_ERROR if problem is None else problem.status
    if status < SERVER_ERROR:
        return logging.INFO
    return logging.ERROR if status == SERVER_ERROR else logging.WARNING
