"""Finds keys, tickets and tokens in a text by their form: plain, percent-encoded, and in base64."""

import re
from typing import Final
from urllib.parse import unquote

from protocol.errors import FieldError, TidegateError

REDACTED: Final = "[redacted]"
ROUNDS: Final = 3  # of percent-encoding that are taken off

ENCODED_MARKS: Final = ("%", "dGdf", "dGtf", "c2st", "RnX", "RrX", "NrL", "0Z1", "0a1", "zay")
"""Every match that is not plain contains one of them."""

_MARKS: Final = ("sk-", "tg_", "tk_", "eyJ", *ENCODED_MARKS)
_PLAIN: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:sk-|tg_|tk_)[A-Za-z0-9_-]{8,}|(?:tg_|tk_)[A-Za-z0-9_-]{30,}|(?<![\w-])eyJ[\w-]{8,}\.[\w.-]+"
)
_BASE64: Final = re.compile(r"(?:dG[dt]f|c2st|[HXn3]R[nr]X|[HXn3]NrL|0[Za]1[89]|zay[01])[A-Za-z0-9+/=_-]{8,}")
"""Base64 of ``tg_``, ``tk_`` and ``sk-`` with 3n, 3n + 1 and 3n + 2 bytes before, and of what follows."""
_SEPARATORS: Final = re.compile(r"([\s\"'<>/?&=,;]+)")


def hide_keys(text: str) -> str:
    """Return ``text`` with ``REDACTED`` for each key, ticket and token."""
    for mark in _MARKS:
        if mark in text:
            break
    else:
        return text
    text = _hidden(text)
    return _without_quoted(text) if "%" in text else text


def hide_in(error: TidegateError) -> None:
    """Hide keys in the texts of a failure that is going to be shown: a caller may have sent one as something else."""
    error.detail = hide_keys(error.detail)
    if error.errors:
        error.errors = tuple([FieldError(hide_keys(fault.path), hide_keys(fault.message)) for fault in error.errors])


def _hidden(text: str) -> str:
    return _BASE64.sub(REDACTED, _PLAIN.sub(REDACTED, text))


def _without_quoted(text: str) -> str:
    """Return ``text`` without the words that are a key once their percent-encoding is taken off."""
    words = _SEPARATORS.split(text)
    for index, word in enumerate(words):
        plain = word
        for _ in range(ROUNDS):
            if "%" not in plain:
                break
            plain = unquote(plain)
            if _hidden(plain) != plain:
                words[index] = REDACTED
                break
    return "".join(words)
