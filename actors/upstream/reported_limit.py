"""One rate limit of a target, as an answer has reported it."""

from typing import Final

from protocol.upstream import Allowance, Unit

LONGEST: Final = 60.0  # seconds for which a report holds, and so the longest that it keeps calls waiting


class ReportedLimit:
    """What remained of a limit at ``seen``, how much is added each second, and until when the report holds."""

    __slots__ = ("_rate", "_remaining", "_seen", "unit", "until")

    def __init__(self, unit: Unit, remaining: float, rate: float, seen: float, until: float) -> None:
        self.unit = unit
        self.until = until
        self._remaining = remaining
        self._rate = rate
        self._seen = seen

    def opens(self, need: float) -> float:
        """Return when there is room for ``need``, which includes all that has been sent since the report."""
        short = need - self._remaining
        if short <= 0:
            return self._seen
        return min(self.until, self._seen + short / self._rate) if self._rate else self.until


def refilling_limit(allowance: Allowance, now: float) -> ReportedLimit:
    """Return the limit that an answer reports as of ``now``: it fills up steadily until its reset."""
    rate = max(0, allowance.limit - allowance.remaining) / allowance.reset
    return ReportedLimit(allowance.unit, allowance.remaining, rate, now, now + min(allowance.reset, LONGEST))


def closed_limit(now: float, seconds: float) -> ReportedLimit:
    """Return the limit that a refusal reports: no calls, for so many seconds."""
    return ReportedLimit("calls", 0, 0, now, now + min(seconds, LONGEST))
