"""Maps an upstream's refusal to an error with a code. Nothing of the upstream's text is passed on."""

from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from actors.wire.limits import allowances
from protocol.upstream import Refusal, code_of

MAX_RETRY_AFTER: Final = 3600.0  # seconds


def refusal(status: int, headers: Mapping[str, str], now: float) -> Refusal:
    """Return the error for an HTTP status other than 200; ``now`` is Unix time, for dates in the headers."""
    return Refusal(code=code_of(status), retry_after=retry_after(headers, now), limits=allowances(headers, now))


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds of ``retry-after-ms`` or ``retry-after``; None where neither has a valid value."""
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        seconds /= 1000
    else:
        value = headers.get("retry-after")
        seconds = _number(value)
        if seconds is None and value:
            seconds = _date(value, now)
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _date(text: str, now: float) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() - now
    except ValueError:
        return None
