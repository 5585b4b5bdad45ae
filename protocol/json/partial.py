"""Parses JSON that is still being written: the value so far, closed to valid JSON.

Everything that is certain is in the value. What may still change is left out: a key without the start of its value, an
escape that is cut off, an incomplete literal, a number whose end has not been seen.
"""

import math
import re
from collections.abc import Callable
from typing import Final

MAX_DEPTH: Final = 128  # far below any parser's recursion limit
MAX_NUMBER: Final = 1024  # characters; no parser keeps more digits

_BLANK: Final = re.compile(r"[ \t\n\r]*")
_CHARACTER = r'[^"\\\x00-\x1f\ud800-\udfff]'
_CHARACTERS: Final = re.compile(rf"{_CHARACTER}*")
_PLAIN_TEXT: Final = re.compile(rf'[ \t\n\r]*"{_CHARACTER}*"')
_PLAIN_KEY: Final = re.compile(rf"{_PLAIN_TEXT.pattern}[ \t\n\r]*:")
_HIGH = r"u[dD][89abAB][0-9a-fA-F]{2}"
_LOW = r"u[dD][c-fC-F][0-9a-fA-F]{2}"
_ESCAPE: Final = re.compile(rf'\\(?:["\\/bfnrt]|(?!u[dD][89a-fA-F])u[0-9a-fA-F]{{4}}|{_HIGH}\\{_LOW})')
_ESCAPE_LENGTH: Final = 12  # of the longest one, a pair of surrogates
_DIGITS: Final = re.compile(r"[-+.0-9eE]*")
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WORDS: Final = {"t": "true", "f": "false", "n": "null"}
_CLOSES: Final = {"{": "}", "[": "]"}


class PartialJson:
    r"""An incremental parser: it reads each character once, and its memory does not grow with the text.

    ::

        value --quote--> text --quote--> after
        value --digit--> number --its end--> after
        value --true, false, null--> after
        value --{--> first key --quote--> key text --quote--> colon --:--> value
        value --[--> first item --> value
        after --comma--> key or value
        after, first key, first item --closing bracket--> after
        any --no JSON, or deeper than MAX_DEPTH--> broken: no value from then on
    """

    __slots__ = ("_at", "_closing", "_cut", "_quoted", "_start", "_state")

    def __init__(self) -> None:
        self._at = 0  # the next character to read
        self._start = 0  # of the current number
        self._cut = 0  # everything before it is certain
        self._quoted = False  # whether the cut is inside a string value
        self._closing: list[str] = []  # the brackets that close the value, the outermost first
        self._state: Callable[[PartialJson, str], bool] = PartialJson._value

    def advance(self, text: str) -> str | None:
        """Return the value of ``text`` so far, as JSON on one line; None while there is none.

        ``text`` is the whole text so far, not only the new part. A number at its end counts as incomplete, also where
        it is the whole text.
        """
        while self._at < len(text) and self._state(self, text):
            pass
        if not self._cut:
            return None
        value = "".join((text[: self._cut], '"' if self._quoted else "", *reversed(self._closing)))
        return value.replace("\n", " ").replace("\r", " ")

    # -------------------------------------------- states: each reads on, and returns whether it reached another state

    def _value(self, text: str) -> bool:
        if plain := _PLAIN_TEXT.match(text, self._at):
            return self._go(PartialJson._after, plain.end() - self._at, certain=True)
        first = self._skip(_BLANK, text)
        if not first:
            return False
        if first == '"':
            self._quoted = True
            return self._go(PartialJson._text, certain=True)
        if first in _CLOSES and len(self._closing) < MAX_DEPTH:
            self._closing.append(_CLOSES[first])
            return self._go(PartialJson._first_key if first == "{" else PartialJson._first_item, certain=True)
        if first in "-0123456789":
            self._start = self._at
            return self._go(PartialJson._number, 0)
        return self._literal(text, _WORDS.get(first, ""))

    def _literal(self, text: str, word: str) -> bool:
        written = text[self._at : self._at + len(word)]
        if not word or not word.startswith(written):
            return self._break()
        return written == word and self._go(PartialJson._after, len(word), certain=True)

    def _first_item(self, text: str) -> bool:
        return self._close() if self._skip(_BLANK, text) == "]" else self._value(text)

    def _first_key(self, text: str) -> bool:
        return self._close() if self._skip(_BLANK, text) == "}" else self._key(text)

    def _key(self, text: str) -> bool:
        if plain := _PLAIN_KEY.match(text, self._at):
            return self._go(PartialJson._value, plain.end() - self._at)
        first = self._skip(_BLANK, text)
        return self._go(PartialJson._key_text) if first == '"' else bool(first) and self._break()

    def _key_text(self, text: str) -> bool:
        first = self._skip(_CHARACTERS, text)
        if first == "\\":
            return self._escape(text)
        return self._go(PartialJson._colon) if first == '"' else bool(first) and self._break()

    def _colon(self, text: str) -> bool:
        first = self._skip(_BLANK, text)
        return self._go(PartialJson._value) if first == ":" else bool(first) and self._break()

    def _text(self, text: str) -> bool:
        first = self._skip(_CHARACTERS, text)
        self._cut = self._at
        if first == "\\":
            return self._escape(text)
        self._quoted = first != '"'
        if self._quoted:
            return bool(first) and self._break()
        return self._go(PartialJson._after, certain=True)

    def _number(self, text: str) -> bool:
        following = self._skip(_DIGITS, text)
        if self._at - self._start > MAX_NUMBER:
            return self._break()
        if not following:
            return False
        number = text[self._start : self._at]
        if not _NUMBER.fullmatch(number) or not math.isfinite(float(number)):
            return self._break()
        return self._go(PartialJson._after, 0, certain=True)

    def _after(self, text: str) -> bool:
        first = self._skip(_BLANK, text)
        closing = self._closing[-1] if self._closing else ""
        if first and first == closing:
            return self._close()
        if first == "," and closing:
            return self._go(PartialJson._key if closing == "}" else PartialJson._value)
        return bool(first) and self._break()

    def _broken(self, _text: str) -> bool:
        return False

    # ------------------------------------------------------------------------------------------------ transitions

    def _skip(self, pattern: re.Pattern[str], text: str) -> str:
        """Skip what matches ``pattern``, and return the next character; empty where there is none yet."""
        found = pattern.match(text, self._at)
        self._at = found.end() if found else self._at
        return text[self._at : self._at + 1]

    def _go(self, state: "Callable[[PartialJson, str], bool]", taken: int = 1, *, certain: bool = False) -> bool:
        self._at += taken
        self._state = state
        if certain:
            self._cut = self._at
        return True

    def _close(self) -> bool:
        self._closing.pop()
        return self._go(PartialJson._after, certain=True)

    def _escape(self, text: str) -> bool:
        """Skip a complete escape; wait for an incomplete one."""
        found = _ESCAPE.match(text, self._at)
        if found:
            return self._go(self._state, found.end() - self._at, certain=self._quoted)
        return len(text) - self._at >= _ESCAPE_LENGTH and self._break()

    def _break(self) -> bool:
        self._cut = 0
        return self._go(PartialJson._broken, 0)
