"""Rate limit headers of OpenAI and Anthropic: how much remains, and when the limit resets."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from protocol.upstream import Allowance, Unit

MAX_DIGITS: Final = 15
_DURATION: Final = re.compile(r"(?:(\d{1,4})d)?(?:(\d{1,6})h)?(?:(\d{1,9})m)?(?:(\d{1,9}(?:\.\d{1,9})?)(m?)s)?")


class _Family(msgspec.Struct, frozen=True):
    """The names of one limit's headers, and the parser of its reset."""

    unit: Unit
    remaining: str
    limit: str
    reset: str
    seconds: Callable[[str, float], float | None]


def allowances(headers: Mapping[str, str], now: float) -> tuple[Allowance, ...]:
    """Return the limits that ``headers`` report, by lower-case names. Values that can't be parsed are ignored.

    ``now`` is Unix time.
    """
    found: tuple[Allowance, ...] = ()
    if _REMAINING.isdisjoint(headers):
        return found
    for family in _FAMILIES:
        value = headers.get(family.remaining)
        if value is not None:
            remaining = _count(value)
            reset = family.seconds(headers.get(family.reset, ""), now)
            if remaining is not None and reset is not None and reset > 0:
                limit = _count(headers.get(family.limit, "")) or 0
                found = (*found, Allowance(family.unit, remaining, limit, reset))
    return found


def duration(text: str, _now: float = 0.0) -> float | None:
    """Return the seconds of a duration such as ``6m0s``, ``1s`` or ``120ms``; None for any other text."""
    read = _DURATION.fullmatch(text)
    if not text or read is None:
        return None
    days, hours, minutes, seconds, milli = read.groups()
    whole = int(days or 0) * 86_400 + int(hours or 0) * 3600 + int(minutes or 0) * 60
    return whole + float(seconds or 0) / (1000 if milli else 1)


def moment(text: str, now: float) -> float | None:
    """Return the seconds from ``now`` until an RFC 3339 time; None for any other text."""
    try:
        then = datetime.fromisoformat(text)
        return None if then.tzinfo is None else then.timestamp() - now
    except (ValueError, OverflowError):
        return None


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS else None


def _openai(unit: Unit, counted: str) -> _Family:
    names = "x-ratelimit-{}-" + counted
    return _Family(unit, names.format("remaining"), names.format("limit"), names.format("reset"), duration)


def _anthropic(unit: Unit, counted: str) -> _Family:
    names = f"anthropic-ratelimit-{counted}-{{}}"
    return _Family(unit, names.format("remaining"), names.format("limit"), names.format("reset"), moment)


_FAMILIES: Final = (
    _openai("calls", "requests"),
    _openai("tokens", "tokens"),
    _anthropic("calls", "requests"),
    _anthropic("tokens", "tokens"),
    _anthropic("tokens", "input-tokens"),
    _anthropic("output", "output-tokens"),
)
_REMAINING: Final = frozenset(family.remaining for family in _FAMILIES)
