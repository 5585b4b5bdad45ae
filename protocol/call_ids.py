"""Ids of tool calls that an upstream does not take, in a form that it takes."""

import hashlib
import re
from typing import Final

_DIGEST: Final = 16  # hexadecimal digits at the end of such an id
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")
_ODD: Final = re.compile(r"[^A-Za-z0-9_-]")


def fitting_id(call_id: str, length: int) -> str:
    """Return an id of at most ``length`` characters: the id itself, or its beginning and a digest of it.

    The result depends on the id alone, so that a call and its result still match, in every turn of a conversation.
    """
    return call_id if len(call_id) <= length else _digested(call_id, call_id, length)


def plain_id(call_id: str, length: int) -> str:
    """Return an id of letters, digits, ``_`` and ``-``: the id itself, or one as ``fitting_id`` makes it."""
    return call_id if _PLAIN.fullmatch(call_id) else _digested(call_id, _ODD.sub("_", call_id), length)


def _digested(call_id: str, start: str, length: int) -> str:
    digest = hashlib.blake2b(call_id.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
    return f"{start[: length - _DIGEST - 1]}_{digest}"
