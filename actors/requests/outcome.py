"""Log lines of requests: one at the end of each, and one for a call whose usage is known only afterwards.

They go to the standard library's logger ``tidegate.requests``; the record's attribute ``fields``, a dict, has their
content. No line holds a prompt, a user's text or an answer.
"""

import logging
import time
from typing import Any, Final

from actors.requests.record import RequestRecord
from actors.requests.run import Run
from protocol.errors import PROBLEMS
from protocol.events import Cancelled, Completed, Failed
from protocol.llm import Attempt, Cost, Usage

LOGGER: Final = "tidegate.requests"
SERVER_ERROR: Final = 500  # itself a fault of ours; those above are an upstream's, or pass

_log = logging.getLogger(LOGGER)


def log_end(record: RequestRecord) -> None:
    """Write ``request_ended`` for a request that has ended.

    It is a warning where its code's status is 5xx, and an error for an internal one. ``tokens`` are those of the
    answer, also where it was joined or replayed; ``cost`` is what this request has cost, in US dollars, null where a
    price is unknown. Times are in milliseconds, from the submission.
    """
    event = _event_of(record)
    level = level_of(event.code) if isinstance(event, Failed) else logging.INFO
    if not _log.isEnabledFor(level):
        return
    run, attempts = record.run, record.attempts
    first: float | None = 0.0 if record.source == "cache" else None
    if run.first_content:
        first = round(max(0.0, run.first_content - record.created) * 1000, 2)
    fields: dict[str, Any] = {
        "status": "completed",
        "ms": round(max(0.0, time.time() - record.created) * 1000, 2),
        "request_id": record.request_id,
        "trace_id": record.trace_id,
        "account": record.account or record.tenant,
        "surface": record.surface,
        "model": run.request.model,
        "provider": run.provider,
        "provider_model": attempts[-1].model if attempts else None,
        "attempts": len(attempts),
        "source": record.source,
        "first_token_ms": first,
        "tokens": tokens_of(record.usage),
        "cost": cost_of(record.cost),
    }
    if isinstance(event, Completed):
        fields["finish"] = event.finish_reason
    elif isinstance(event, Failed):
        fields["status"], fields["code"] = "failed", event.code
    else:
        fields["status"], fields["code"] = "cancelled", event.reason
    if record.delivery.session_id:
        fields["session_id"] = record.delivery.session_id
    if any([attempt.estimated for attempt in attempts]):  # noqa: C419 - a list is faster for one or two
        fields["estimated"] = True
    _log.log(level, "request_ended", extra={"fields": fields})


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
    _log.info("call_settled", extra={"fields": fields})


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


def _event_of(record: RequestRecord) -> Completed | Failed | Cancelled:
    terminal = record.stream.terminal
    event = None if terminal is None else terminal.event
    return event if isinstance(event, Completed | Failed | Cancelled) else Cancelled(reason="unknown")
