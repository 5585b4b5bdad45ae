"""Text and tool calls of a result."""

import msgspec
import pytest

from protocol.answer import content_of
from protocol.events import Completed
from protocol.llm import ToolCall

CALL = {"id": "c1", "name": "look", "arguments": "{}"}


def completed(result: object) -> Completed:
    """Return the end of a log with this result."""
    return Completed(result=msgspec.Raw(msgspec.json.encode(result)))


def test_plain_text_and_calls_come_back() -> None:
    """Without a schema the result has the text and the tool calls."""
    assert content_of(completed({"text": "hi", "toolCalls": []}), structured=False) == ("hi", ())
    calls = (ToolCall(id="c1", name="look"),)
    assert content_of(completed({"text": "", "toolCalls": [CALL]}), structured=False) == ("", calls)


def test_a_structured_answer_is_its_json_even_where_it_looks_like_text() -> None:
    """With a schema the text is the result's JSON."""
    assert content_of(completed({"text": "x"}), structured=True) == ('{"text":"x"}', ())
    assert content_of(completed([1, 2]), structured=True) == ("[1,2]", ())


def test_calls_of_a_structured_answer() -> None:
    """With a schema, a result with tool calls has calls, whatever the finish reason."""
    text, calls = content_of(completed({"text": "", "toolCalls": [CALL]}), structured=True)
    assert (text, [call.name for call in calls]) == ("", ["look"])


def test_a_result_of_another_shape_is_an_error() -> None:
    """Without a schema, a result of another shape is an error."""
    with pytest.raises(msgspec.ValidationError):
        content_of(completed({"other": 1}), structured=False)
