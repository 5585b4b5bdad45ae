"""The JSON value of an unfinished answer's text."""

import json

import pytest

from actors.log import partial_text
from actors.log.partial_text import EACH_TIME, MAX_CHARACTERS, PartialText
from protocol.json.partial import PartialJson


def test_a_text_that_begins_anew_has_a_new_value() -> None:
    """Nothing of the void text is in it, however short or long the new one is."""
    partial = PartialText()
    assert partial.value('{"name": "Nap') == b'{"name": "Nap"}'
    assert partial.value('{"nam') == b"{}"
    assert partial.value("[tru") == b"[]"
    assert partial.value("[true, 12,") == b"[true, 12]"
    assert partial.value("no JSON") is None
    assert partial.value("") is None


def test_the_value_is_parsed_once_per_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers share it, and only new text is parsed."""
    read: list[str] = []

    class Counting(PartialJson):
        __slots__ = ()

        def advance(self, text: str) -> str | None:
            read.append(text)
            return super().advance(text)

    monkeypatch.setattr(partial_text, "PartialJson", Counting)
    partial = PartialText()
    assert [partial.value(text) for text in ('["a', '["a', '["ab', '["ab')] == [
        b'["a"]',
        b'["a"]',
        b'["ab"]',
        b'["ab"]',
    ]
    assert read == ['["a', '["ab']


def test_the_value_is_in_utf_8() -> None:
    """Whatever characters the text has."""
    assert PartialText().value('["шу') == '["шу"]'.encode()


def test_each_piece_of_a_short_text_comes_with_the_value() -> None:
    """Except a piece without text."""
    partial, text = PartialText(), '["'
    while len(text) < EACH_TIME - 1:
        text += "x"
        assert partial.value(text, 1) is not None
        assert partial.value(text, 0) is None


def test_a_long_text_is_not_sent_with_each_piece() -> None:
    """What is sent for a text in pieces is about a hundred times its size, not its square."""
    partial, text, sent, values = PartialText(), '["', 0, 0
    while len(text) < 8 * EACH_TIME:
        text += "word"
        value = partial.value(text, 4)
        if value is not None:
            sent += len(value)
            values += 1
    assert values > 1000
    assert sent < 100 * len(text) + EACH_TIME * EACH_TIME // 4
    assert partial.value(text, len(text)) is not None


def test_a_text_that_is_too_long_has_no_value() -> None:
    """A late reader would have to wait until all of it is parsed."""
    text = '["' + "x" * (MAX_CHARACTERS - 2)
    partial = PartialText()
    assert json.loads(partial.value(text) or b"") == [text[2:]]
    assert partial.value(text + "x") is None
    assert partial.value('["x') == b'["x"]'
