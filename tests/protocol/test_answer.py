"""A whole answer, taken apart again."""

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
    """Without a schema the result holds both."""
    assert content_of(completed({"text": "hi", "toolCalls": []}), structured=False) == ("hi", ())
    calls = (ToolCall(id="c1", name="look"),)
    assert content_of(completed({"text": "", "toolCalls": [CALL]}), structured=False) == ("", calls)


def test_a_structured_answer_is_its_json_even_where_it_looks_like_text() -> None:
    """What the schema asked for is not taken apart."""
    assert content_of(completed({"text": "x"}), structured=True) == ('{"text":"x"}', ())
    assert content_of(completed([1, 2]), structured=True) == ("[1,2]", ())


def test_a_call_comes_before_the_schema() -> None:
    """A model that asks for a tool first has not answered yet, whatever reason it gave for stopping."""
    text, calls = content_of(completed({"text": "", "toolCalls": [CALL]}), structured=True)
    assert (text, [call.name for call in calls]) == ("", ["look"])


def test_a_result_that_is_neither_is_a_fault_of_ours() -> None:
    """Without a schema there is only one shape."""
    with pytest.raises(msgspec.ValidationError):
        content_of(completed({"other": 1}), structured=False)
