"""Turns msgspec's validation errors into ``InvalidRequest`` with the path of the field."""

import re

from protocol.errors import FieldError, InvalidRequest, shortened

_AT = re.compile(r"^(?P<reason>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(?P<name>[^`]*)`")


def invalid_value(message: str, at: str = "$") -> InvalidRequest:
    """Return ``invalid_request`` for the text of a ``msgspec.ValidationError``, with the path that it names.

    Args:
        message: the text.
        at: the path of the value that was decoded.
    """
    message = shortened(message)
    found = _AT.match(message)
    reason, path = (found["reason"], found["path"] or "$") if found else (message, "$")
    missing = _MISSING.search(reason)
    if missing:
        path = f"{path}.{missing['name']}"
    return invalid_field(at + path.removeprefix("$"), reason)


def invalid_field(path: str, reason: str) -> InvalidRequest:
    """Return ``invalid_request`` for the field at ``path``; ``reason`` says what is wrong."""
    return InvalidRequest(f"{reason} at `{path}`", errors=(FieldError(path, reason),))
