"""One rate limit of a target, as an answer has told it."""

from typing import Final

from protocol.upstream import Allowance, Unit

LONGEST: Final = 60.0  # seconds for which an answer is believed, and so the longest that it keeps calls waiting


class Limit:
    """What remained of a limit at ``seen``, by how much that grows each second, and until when we go by it."""

    __slots__ = ("_rate", "_remaining", "_seen", "unit", "until")

    def __init__(self, unit: Unit, remaining: float, rate: float, seen: float, until: float) -> None:
        self.unit = unit
        self.until = until
        self._remaining = remaining
        self._rate = rate
        self._seen = seen

    def opens(self, need: float) -> float:
        """Return when there is room for ``need``, with all that has been sent since included in it."""
        short = need - self._remaining
        if short <= 0:
            return self._seen
        return min(self.until, self._seen + short / self._rate) if self._rate else self.until


def said_limit(said: Allowance, now: float) -> Limit:
    """Return what an answer says as of ``now``: a limit that fills up steadily until its reset."""
    rate = max(0, said.limit - said.remaining) / said.reset
    return Limit(said.unit, said.remaining, rate, now, now + min(said.reset, LONGEST))


def shut(now: float, seconds: float) -> Limit:
    """Return what a refusal says: nothing, for so many seconds."""
    return Limit("calls", 0, 0, now, now + min(seconds, LONGEST))
