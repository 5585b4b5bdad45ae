import pytest

from actors.llm_gateway.answer import Assembly
from protocol.errors import ProviderError
from protocol.events import Delta, ToolCallDelta
from protocol.llm import ToolCall


def test_pieces_become_a_whole() -> None:
    """Texts are joined; calls are put together by their index."""
    assembly = Assembly(100)
    assembly.add([Delta(text="a"), ToolCallDelta(index=1, id="c2", name="two")])
    assembly.add([ToolCallDelta(index=0, id="c1", name="one", arguments='{"a"'), Delta(text="b")])
    assembly.add([ToolCallDelta(index=0, arguments=":1}")])
    assert assembly.text == "ab"
    assert assembly.tool_calls == (ToolCall("c1", "one", '{"a":1}'), ToolCall("c2", "two", "{}"))


@pytest.mark.parametrize("piece", [Delta(text="x" * 11), ToolCallDelta(index=0, arguments="x" * 11)])
def test_an_answer_is_bounded(piece: Delta | ToolCallDelta) -> None:
    """Beyond the bound it is a failure."""
    with pytest.raises(ProviderError) as caught:
        Assembly(10).add([piece])
    assert caught.value.code == "response_too_large"


def test_the_number_of_calls_is_bounded() -> None:
    """A row of calls without end is a failure too."""
    with pytest.raises(ProviderError):
        Assembly(10).add([ToolCallDelta(index=index) for index in range(1000)])
