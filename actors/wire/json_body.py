"""Bodies of JSON: one value, one a line, or one with something behind it."""

import json
import re
from typing import Final

import msgspec

from protocol.errors import ProviderError

MAX_VALUES: Final = 65_536  # of one body
MAX_PARTS: Final = 131_072  # values within one value, counted by the bytes that begin one, in texts too
MAX_PARTS_OF_ALL: Final = 4 * MAX_PARTS  # values within all values of a body
UNCHECKED: Final = 64 * 1024  # bytes of a value up to which its parts are not counted
_BEGINNINGS: Final = (b",", b"[", b"{")
_check: Final = msgspec.json.Decoder(msgspec.Raw).decode
_BEGIN: Final = re.compile(r"\S")
_loose: Final = json.JSONDecoder(strict=False).raw_decode


def whole_values(body: bytes) -> list[bytes]:
    """Return the JSON values that ``body`` consists of: one, or one a line. Empty where it is anything else.

    Raises:
        ProviderError: ``response_too_large``: too many values.
    """
    body = body.strip()
    if _is_json(body):
        check_values(body)
        return [body]
    if not _is_json(body.partition(b"\n")[0]):
        return []
    if body.count(b"\n") > MAX_VALUES:
        raise ProviderError(code="response_too_large")
    lines = [line for line in body.splitlines() if line.strip()]
    if not all(map(_is_json, lines)):
        return []
    for line in lines:
        check_values(line)
    return lines


def check_values(value: bytes, most: int = MAX_PARTS) -> None:
    """Check that a JSON value is not made of so many values that reading it would take long, and much memory.

    Raises:
        ProviderError: ``response_too_large``.
    """
    if len(value) > UNCHECKED and sum(map(value.count, _BEGINNINGS)) > most:
        raise ProviderError(code="response_too_large")


def without_rest(body: bytes) -> list[bytes]:
    """Return the JSON values at the beginning of ``body``, one after the other, and what is left, which is none.

    Raises:
        ProviderError: ``response_too_large``: too many values.
    """
    check_values(body, MAX_PARTS_OF_ALL)
    text = body.decode("utf-8", "surrogateescape")
    values: list[bytes] = []
    at = 0
    while begin := _BEGIN.search(text, at):
        at = begin.start()
        try:
            end = _loose(text, at)[1]
        except (ValueError, RecursionError):
            end = len(text)
        values.append(text[at:end].encode("utf-8", "surrogateescape"))
        if len(values) > MAX_VALUES:
            raise ProviderError(code="response_too_large")
        at = end
    return values


def _is_json(data: bytes) -> bool:
    try:
        _check(data)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
