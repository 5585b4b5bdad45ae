"""Log lines for failures that only the operator can mend."""

import logging
from typing import Final

from protocol.errors import ProviderError
from protocol.upstream_error import UpstreamError

LOG_SECONDS: Final = 60.0  # between two lines of a provider with the same code
OPERATORS: Final = frozenset({"provider_billing", "provider_credentials", "model_not_found"})
"""Codes of these failures: callers see no more of the first two than whose they are."""

_log = logging.getLogger("tidegate.gateway")


class OperatorLog:
    """Logs the failures of one provider that its operator has to mend: a line a minute for each code.

    Args:
        provider: its name.
    """

    __slots__ = ("_due", "_provider")

    def __init__(self, provider: str) -> None:
        self._provider = provider
        self._due: dict[str, float] = {}

    def report(self, model: str, error: ProviderError, now: float) -> None:
        """Log the failure of a call to ``model``, if it is one of these and its line is due."""
        code = error.code
        if code not in OPERATORS or not isinstance(error, UpstreamError) or now < self._due.get(code, now):
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
