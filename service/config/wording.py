"""The words for invalid settings: what a value may be, never the value itself."""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError
from pydantic.fields import FieldInfo

SECRET: Final = re.compile(
    r"\b(?:sk|gsk|pk|rk|xai|tg|hf|ghp|r8)[-_][A-Za-z0-9_-]{8,}|\bAIza[A-Za-z0-9_-]{16,}|\beyJ[\w.-]{16,}|\b[0-9a-fA-F]{32,}\b"
)
HIDDEN: Final = "…"

_UNITS: Final = {"seconds": " of seconds", "bytes": " of bytes"}  # by the end of a setting's name
_NUMBERS: Final = frozenset(
    {
        "finite_number",
        "float_parsing",
        "float_type",
        "greater_than",
        "greater_than_equal",
        "int_from_float",
        "int_parsing",
        "int_parsing_size",
        "int_type",
        "less_than",
        "less_than_equal",
    }
)
_BOOLEANS: Final = frozenset({"bool_parsing", "bool_type"})
_SHORT: Final = frozenset({"string_too_short", "too_short"})
_PREFIXES: Final = ("Value error, ", "Input ", "String ", "Value ")


def masked(text: str) -> str:
    """Return ``text`` without what looks like a key."""
    return SECRET.sub(HIDDEN, text)


def setting_faults(error: ValidationError, fields: Mapping[str, FieldInfo]) -> Iterable[tuple[str, str]]:
    """Return the name of each invalid setting, and what it should be."""
    for fault in error.errors(include_input=False):
        name = str(fault["loc"][0]) if fault["loc"] else "settings"
        if fault["type"] in _NUMBERS and name in fields:
            words = _number(name, fields[name])
        elif fault["type"] in _SHORT:
            words = f"should have at least {fault['ctx']['min_length']} characters"
        elif fault["type"] in _BOOLEANS:
            words = "should be true or false"
        else:
            words = _words(fault["msg"])
        yield name.upper(), masked(words)


def one_of(names: Iterable[Any]) -> str:
    """Return the names as ``'a', 'b' or 'c'``."""
    *others, last = (f"'{name}'" for name in names)
    return f"{', '.join(others)} or {last}" if others else last


def _number(name: str, field: FieldInfo) -> str:
    unit = next((words for end, words in _UNITS.items() if name.endswith(end)), "")
    kind = "a whole number" if field.annotation is int else "a number"
    low, high = _bound(field, "ge"), _bound(field, "le")
    above = _bound(field, "gt")
    bounds = [] if above is None else [f"above {_plain(above)}"]
    if low is not None:
        bounds.append(f"at least {_plain(low)}")
    if high is not None:
        bounds.append(f"at most {_plain(high)}")
    return ", ".join((f"should be {kind}{unit}", *bounds, *(("written without a unit",) if unit else ())))


def _bound(field: FieldInfo, key: str) -> float | None:
    found = (getattr(constraint, key, None) for constraint in field.metadata)
    return next((bound for bound in found if bound is not None), None)


def _plain(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)


def _words(message: str) -> str:
    for prefix in _PREFIXES:
        message = message.removeprefix(prefix)
    return message
