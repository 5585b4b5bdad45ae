"""Odd answers of Anthropic's dialect, as the reader returns them; their rows are those of the conformance table."""

import json
from typing import Any

import msgspec
import pytest

from protocol.anthropic.reader import MessagesReader
from protocol.errors import ProviderError
from protocol.events import Delta, ToolCallDelta, VendorBlock
from protocol.upstream import Deltas
from tests.contracts.conformance.forms import ANTHROPIC_FORMS, HELLO, SAID, WEIRD, Form, begin, ends, piece, start


def read(*events: Any) -> Deltas:  # noqa: ANN401 - JSON
    """The pieces of an answer."""
    reader, pieces = MessagesReader(), Deltas()
    for event in events:
        reader.feed(json.dumps(event).encode(), pieces)
        if reader.ended:
            break
    assert reader.whole
    return pieces


@pytest.mark.parametrize("form", ANTHROPIC_FORMS, ids=lambda form: form.name)
def test_a_form_is_read_or_fails(form: Form) -> None:
    """What has one meaning is read; the gateway refuses an answer that ends for a call and has none."""
    if form.code and form.name != "no call":
        with pytest.raises(ProviderError) as caught:
            read(*form.events)
        assert caught.value.code == form.code
        return
    pieces = read(*form.events)
    assert "".join(piece.text for piece in pieces if isinstance(piece, Delta)) == form.text
    calls = [piece.name for piece in pieces if isinstance(piece, ToolCallDelta) and piece.name]
    assert calls == [name for name, _ in form.calls]


def test_an_unknown_delta_is_a_field_of_its_text() -> None:
    """Its pieces are joined; the text is given on once more, in the vendor's own form."""
    pieces = read(start(), begin(), SAID, WEIRD, WEIRD, *ends())
    (block,) = [piece for piece in pieces if isinstance(piece, VendorBlock)]
    assert msgspec.json.decode(block.value) == {**HELLO, "weird": "newsnews"}


def test_blocks_of_the_start_come_first() -> None:
    """Those that come again, one by one, are read once; the others keep their places."""
    events = (start(HELLO, {"type": "text", "text": "You"}), begin(1), piece({"type": "text_delta", "text": "You!"}, 1))
    pieces = read(*events, *ends())
    assert [(item.text, item.part) for item in pieces if isinstance(item, Delta)] == [("Hello", 0), ("You!", 1)]


def test_an_unknown_delta_of_a_thought_is_dropped() -> None:
    """A thought is not the answer."""
    thought = {"type": "thinking_delta", "thinking": "hm"}
    pieces = read(start(), begin(kind="thinking"), piece(thought), WEIRD, begin(1), piece({"text": "Hi"}, 1), *ends())
    assert len(pieces) == 2
