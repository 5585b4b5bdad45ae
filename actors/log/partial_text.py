"""The JSON value of an unfinished answer's text, shared by all followers of a request."""

from typing import Final

from protocol.json.partial import PartialJson

MAX_CHARACTERS: Final = 131_072  # of a text that is parsed: a late reader needs all of it parsed at once
EACH_TIME: Final = 4096  # characters of text up to which each piece comes with the value


class PartialText:
    """The JSON value of a text that grows or begins anew. It is parsed once per change, whoever asks."""

    __slots__ = ("_json", "_text", "_value")

    def __init__(self) -> None:
        self._json = PartialJson()
        self._text = ""
        self._value: bytes | None = None

    def value(self, text: str, new: int | None = None) -> bytes | None:
        """Return the JSON value of ``text``, on one line; None while it has none, and where it is too long.

        ``new`` is the number of characters at its end that the reader does not have yet. Sending the value with each
        piece is quadratic work, so for a text longer than ``EACH_TIME`` the result is None until about a hundredth of
        it is new.
        """
        length = len(text)
        if length > MAX_CHARACTERS or (new is not None and not _due(length, new)):
            return None
        if text != self._text:
            if not text.startswith(self._text):
                self._json = PartialJson()
            value = self._json.advance(text)
            self._text, self._value = text, None if value is None else value.encode()
        return self._value


def _due(length: int, new: int) -> bool:
    step = 1 if length < EACH_TIME else 1 << (length.bit_length() - 7)
    return length // step != (length - new) // step
