"""Checks of what a caller sends to channels: names, and free JSON."""

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from protocol.errors import FieldError, InvalidRequest

MAX_NAME: Final = 128  # characters of a channel's, a user's or a client's name
MAX_DEPTH: Final = 64  # levels of nesting in JSON, far below any parser's recursion limit


def check_name(name: str, path: str, most: int = MAX_NAME) -> None:
    """Check a name.

    Raises:
        InvalidRequest: the name is not 1 to ``most`` printable characters.
    """
    if not 0 < len(name) <= most or not name.isprintable():
        raise refused(path, f"must be 1 to {most} printable characters")


def check_json(raw: msgspec.Raw, path: str, most: int) -> None:
    """Check free JSON.

    Raises:
        InvalidRequest: it is longer than ``most`` bytes, is not JSON in UTF-8, or is nested too deeply.
    """
    if len(memoryview(raw)) > most:
        raise refused(path, f"must be at most {most} bytes of JSON")
    try:
        level, depth = [msgspec.json.decode(raw)], 0
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise refused(path, "must be JSON in UTF-8") from None
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise refused(path, f"must not be nested deeper than {MAX_DEPTH} levels")
        level = [child for item in level if isinstance(item, dict | list) for child in _children(item)]


def refused(path: str, reason: str) -> InvalidRequest:
    """Return the error of one field."""
    return InvalidRequest(f"`{path}` {reason}", errors=(FieldError(path, reason),))


def _children(item: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return item.values() if isinstance(item, dict) else item
