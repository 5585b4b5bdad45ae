"""Failures that only the operator can mend: their log lines, and the present one."""

import logging
from datetime import UTC, datetime
from typing import Final

from protocol.errors import ProviderError
from protocol.gateway import ProviderFault
from protocol.upstream_error import UpstreamError

LOG_SECONDS: Final = 60.0  # between two lines of a provider with the same code
OPERATORS: Final = frozenset({"provider_billing", "provider_credentials", "model_not_found"})
"""Codes of these failures: callers see no more of the first two than whose they are."""

ELSEWHERE: Final = frozenset({404, 405, 407, 410, 421, 426, 497})  # statuses of an address that has no such service

_log = logging.getLogger("tidegate.gateway")


class OperatorLog:
    """Logs the failures of one provider that its operator has to mend: a line a minute for each code.

    Args:
        provider: its name.

    Attributes:
        fault: the present fault of this kind that is not of one model alone; None after a call has succeeded.
    """

    __slots__ = ("_due", "_provider", "fault")

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._due: dict[str, float] = {}
        self.fault: ProviderFault | None = None

    def clear(self) -> None:
        """Forget the fault: a call has succeeded."""
        self.fault = None

    def report(self, model: str, error: ProviderError, now: float) -> None:
        """Log the failure of a call to ``model``, if it is one of these and its line is due."""
        code = error.code
        if not isinstance(error, UpstreamError) or not (code in OPERATORS or is_elsewhere(error)):
            return
        if code != "model_not_found":  # which says nothing of the other models
            since = datetime.now(UTC).isoformat(timespec="seconds") if self.fault is None else self.fault.since
            self.fault = ProviderFault(code, error.status, since)
        if now < self._due.get(code, now):
            return
        self._due[code] = now + LOG_SECONDS
        _log.warning(
            "%s refuses calls: %s, upstream status %s, model %s: %s",
            self._provider,
            code,
            error.status or "unknown",
            model,
            error.reason or error.problem.title,
            extra={
                "event": "provider_refuses_calls",
                "fields": {
                    "code": code,
                    "provider": self._provider,
                    "model": model,
                    "upstream_status": error.status or None,
                    "reason": error.reason or error.problem.title,
                },
            },
        )


def is_elsewhere(error: ProviderError) -> bool:
    """Whether a status says that the address has no such service."""
    return isinstance(error, UpstreamError) and error.code == "provider_bad_response" and error.status in ELSEWHERE
