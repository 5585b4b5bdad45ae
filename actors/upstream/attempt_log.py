"""Log lines for failed calls: what has failed, and what follows."""

import asyncio
import logging
from typing import Any, Final, Literal

from actors.upstream.admission import AdmissionTerms
from actors.upstream.operator_log import ELSEWHERE
from protocol.errors import SchemaMismatch, TidegateError
from protocol.upstream_error import UpstreamError

MAX_CAUSE: Final = 200  # characters
TRANSPORT: Final = frozenset({"provider_unavailable", "provider_timeout", "provider_stream_broken"})
"""Codes of failures of the way to a provider, where it has given no status."""

Follows = Literal["retry", "fallback", "repair", "hedge", "end"]
"""Another call to the same target, or to the next one; the same answer once more; a parallel call; nothing."""

_log = logging.getLogger("tidegate.gateway")
_log.addHandler(logging.NullHandler())  # a program that has set up no logging gets no lines on its stderr


class AttemptLog:
    """The failed calls of one request. Each is one warning, ``attempt_failed``, written when it is known what follows.

    Args:
        terms: of the request.
    """

    __slots__ = ("_failed", "_known", "_terms")

    def __init__(self, terms: AdmissionTerms) -> None:
        self._terms = terms
        self._failed: list[tuple[str, dict[str, Any]]] = []
        self._known: set[int] = set()

    def failed(self, target: str, number: int, error: TidegateError, seconds: float, *, url: str = "") -> None:
        """Record a call that has failed.

        Args:
            target: ``provider/model``.
            number: which call of the request it was, from 1; 0 for one that was refused before it was made.
            error: its failure.
            seconds: from sending to the failure.
            url: the provider's base URL; it is in the line where the way to the provider, or its address, may be wrong.
        """
        provider, _, model = target.partition("/")
        fields: dict[str, Any] = {
            "code": error.code,
            "ms": round(seconds * 1000, 2),
            "provider": provider,
            "model": model,
            "attempt": number or None,
            "upstream_status": (error.status or None) if isinstance(error, UpstreamError) else None,
            "reason": _reason(error),
        }
        if url and number and _is_of_the_address(error):
            fields["url"] = url
        if self._terms.request_id:
            fields["request_id"] = self._terms.request_id
        if self._terms.trace_id:
            fields["trace_id"] = self._terms.trace_id
        if error.retry_after is not None:
            fields["retry_after_ms"] = round(error.retry_after * 1000)
        self._failed.append((target, fields))
        self._known.add(id(error))

    def knows(self, error: TidegateError) -> bool:
        """Return whether this failure has been recorded, while it is handled."""
        return id(error) in self._known

    def follows(self, follows: Follows | None = None, *, target: str = "", due: float = 0.0) -> None:
        """Write the lines of the recorded calls.

        Args:
            follows: what comes next; None where it is a call to ``target``.
            target: of the next call; empty for none.
            due: when it is made, by the request's clock.
        """
        delay = max(0.0, due - self._terms.clock.time()) if target else None
        for failed, fields in self._failed:
            fields["follows"] = follows or ("retry" if failed == target else "fallback")
            if delay is not None:
                fields["delayMs"] = round(delay * 1000)
            if target and failed != target:
                fields["next"] = target
            _log.warning("attempt_failed", extra={"fields": fields})
        self._failed.clear()
        self._known.clear()


def _is_of_the_address(error: TidegateError) -> bool:
    """Whether the way to the provider has failed, or its answer shows that the address may be wrong."""
    status = error.status if isinstance(error, UpstreamError) else 0
    if not status and error.code in TRANSPORT:
        return True
    return error.code == "provider_bad_response" or status in ELSEWHERE


def _reason(error: TidegateError) -> str:
    """Return the upstream's own words, else the cause, else what the caller sees; nothing of an answer."""
    if isinstance(error, UpstreamError) and error.reason:
        return error.reason
    if isinstance(error, SchemaMismatch):
        places = ", ".join([fault.path for fault in error.errors])
        return f"{error.problem.title}: {places}"[:MAX_CAUSE] if places else error.problem.title
    cause = error.__cause__
    if cause is None or isinstance(cause, asyncio.CancelledError):
        return error.detail
    said = str(cause)
    name = type(cause).__name__
    return f"{name}: {said}"[:MAX_CAUSE] if said else name
