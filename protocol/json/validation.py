"""What msgspec says of a value that does not fit, as a failure that names the place."""

import re

from protocol.errors import FieldError, InvalidRequest

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"missing required field `(?P<name>[^`]*)`")


def invalid_value(message: str) -> InvalidRequest:
    """Return ``invalid_request`` with the path that the text of a ``msgspec.ValidationError`` names."""
    found = _AT.match(message)
    what, path = (found["what"], found["path"] or "$") if found else (message, "$")
    missing = _MISSING.search(what)
    if missing:
        path = f"{path}.{missing['name']}"
    return invalid_field(path, what)


def invalid_field(path: str, what: str) -> InvalidRequest:
    """Return ``invalid_request`` for what is wrong at ``path``."""
    return InvalidRequest(f"{what} at `{path}`", errors=(FieldError(path, what),))
