"""A whole answer: its text, its native form, and the message that it becomes."""

import msgspec
import pytest

from protocol.answer import core_result, message_of, with_result
from protocol.events import Completed
from protocol.llm import AnswerPart, ChatMessage, ReasoningPart, RefusalPart, TextPart, ToolCallPart, VendorPart

THOUGHT = ReasoningPart(text="hm", signature="s")
TEXT = TextPart(text="hi")
CALL = ToolCallPart(id="c1", name="look")


def native(end: Completed) -> object:
    """Return the native form as a client decodes it."""
    return msgspec.json.decode(msgspec.json.encode(core_result(end)))


def test_the_native_form_has_the_parts_in_order() -> None:
    """Text and tool calls stand beside the parts, and no field is left out that each part of its type has."""
    vendor = VendorPart(dialect="anthropic", value={"type": "x"})
    end = Completed(parts=(THOUGHT, CALL, ReasoningPart(), TEXT, RefusalPart(text="no"), vendor))
    call = {"id": "c1", "name": "look", "arguments": "{}"}
    assert native(end) == {
        "text": "hi",
        "toolCalls": [call],
        "parts": [
            {"type": "reasoning", "text": "hm", "signature": "s"},
            {"type": "tool_call", **call},
            {"type": "reasoning", "text": ""},
            {"type": "text", "text": "hi"},
            {"type": "refusal", "text": "no"},
            {"type": "vendor", "dialect": "anthropic", "value": {"type": "x"}},
        ],
    }
    assert (end.text, end.thoughts, end.refusal) == ("hi", (THOUGHT, ReasoningPart()), "no")
    assert [found.id for found in end.tool_calls] == ["c1"]


def test_a_result_is_the_native_form() -> None:
    """With a schema it is the result's JSON, in any shape."""
    assert native(Completed(parts=(TEXT,), result=msgspec.Raw(b'{"text": "x"}'))) == {"text": "x"}


def test_the_native_form_is_a_message() -> None:
    """An assistant's message can have the parts as they are."""
    end = Completed(parts=(THOUGHT, CALL, TEXT, CALL))
    form = {"role": "assistant", "content": msgspec.json.decode(msgspec.json.encode(core_result(end)))["parts"]}
    assert msgspec.convert(form, ChatMessage).content == end.parts


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((TEXT,), ChatMessage(role="assistant", content="hi")),
        ((), ChatMessage(role="assistant")),
        ((THOUGHT, TEXT), ChatMessage(role="assistant", content=(THOUGHT, TEXT))),
        ((CALL, TEXT), ChatMessage(role="assistant", content=(CALL, TEXT))),
        (
            (TextPart(text="hi", extra={"anthropic": {"citations": []}}),),
            ChatMessage(role="assistant", content=(TextPart(text="hi", extra={"anthropic": {"citations": []}}),)),
        ),
    ],
)
def test_an_answer_becomes_a_message(parts: tuple[AnswerPart, ...], message: ChatMessage) -> None:
    """A plain text is a string; everything else keeps its order."""
    assert message_of(parts) == message


def test_a_result_takes_the_place_of_the_text() -> None:
    """Once, where the text begins; a text that is the result already stays as it is."""
    result = msgspec.Raw(b'{"a":1}')
    same = (TextPart(text=' {"a":1} '), THOUGHT)
    assert with_result(same, result) == same
    pruned = (THOUGHT, TextPart(text='{"a":1,'), THOUGHT, TextPart(text='"b":null}'))
    assert with_result(pruned, result) == (THOUGHT, TextPart(text='{"a":1}'), THOUGHT)
    assert with_result((THOUGHT,), result) == (THOUGHT, TextPart(text='{"a":1}'))
