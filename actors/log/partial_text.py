"""The JSON value of an answer's text while it is being written, for all who follow one request."""

from typing import Final

from protocol.json.partial import PartialJson

MAX_CHARACTERS: Final = 131_072  # of a text that has a value: a reader that comes late has all of it read at once
EACH_TIME: Final = 4096  # characters up to which every piece of text is worth the whole value


class PartialText:
    """A text that grows, or begins anew. Its value is made once for all who ask before the next change."""

    __slots__ = ("_json", "_text", "_value")

    def __init__(self) -> None:
        self._json = PartialJson()
        self._text = ""
        self._value: bytes | None = None

    def value(self, text: str, new: int | None = None) -> bytes | None:
        """Return the JSON value that ``text`` has, on one line; None while it has none, and where it is too long.

        With ``new``, the number of characters at its end that are news to the reader, None also where those are not
        worth it. To send the value with each piece is quadratic work, so a text that is longer than ``EACH_TIME`` has
        it each time that about a hundredth has been added.
        """
        length = len(text)
        if length > MAX_CHARACTERS or (new is not None and not _worth(length, new)):
            return None
        if text != self._text:
            if not text.startswith(self._text):
                self._json = PartialJson()
            value = self._json.advance(text)
            self._text, self._value = text, None if value is None else value.encode()
        return self._value


def _worth(length: int, new: int) -> bool:
    step = 1 if length < EACH_TIME else 1 << (length.bit_length() - 7)
    return length // step != (length - new) // step
