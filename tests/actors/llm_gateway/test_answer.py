import pytest

from actors.llm_gateway.answer import Assembly
from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, ToolCallDelta
from protocol.llm import ReasoningPart, ToolCall


def test_pieces_become_a_whole() -> None:
    """Texts are joined; calls are joined by their index, and reasoning parts end with their signatures."""
    assembly = Assembly(100)
    assembly.add([Delta(text="a"), ToolCallDelta(index=1, id="c2", name="two")])
    assembly.add([ToolCallDelta(index=0, id="c1", name="one", arguments='{"a"'), Delta(text="b")])
    assembly.add([ToolCallDelta(index=0, arguments=":1}")])
    assembly.add([ReasoningDelta(text="h"), ReasoningDelta(text="m"), ReasoningDelta(signature="s")])
    assembly.add([ReasoningDelta(signature="x", redacted=True), ReasoningDelta(text="so")])
    assert assembly.reasoning == (
        ReasoningPart(text="hm", signature="s"),
        ReasoningPart(signature="x", redacted=True),
        ReasoningPart(text="so"),
    )
    assert assembly.text == "ab"
    assert assembly.tool_calls == (ToolCall("c1", "one", '{"a":1}'), ToolCall("c2", "two", "{}"))


@pytest.mark.parametrize(
    "piece",
    [
        Delta(text="x" * 11),
        ToolCallDelta(index=0, arguments="x" * 11),
        ReasoningDelta(text="x" * 11),
        ReasoningDelta(signature="x" * 11),
    ],
)
def test_an_answer_is_bounded(piece: Delta | ReasoningDelta | ToolCallDelta) -> None:
    """Beyond the bound it fails."""
    with pytest.raises(ProviderError) as caught:
        Assembly(10).add([piece])
    assert caught.value.code == "response_too_large"


def test_the_number_of_calls_is_bounded() -> None:
    """Too many calls fail, too."""
    with pytest.raises(ProviderError):
        Assembly(10).add([ToolCallDelta(index=index) for index in range(1000)])


def test_probabilities_are_joined_and_bounded() -> None:
    """They are far longer than the text, so only a share of them counts."""
    assembly = Assembly(100)
    assembly.add([Delta(text="a", logprobs='[{"token":"a"}]'), Delta(text="b")])
    assembly.add([Delta(text="cd", logprobs='[{"token":"c"},{"token":"d"}]')])
    assert assembly.logprobs == '[{"token":"a"},{"token":"c"},{"token":"d"}]'
    with pytest.raises(ProviderError):
        assembly.add([Delta(text="e", logprobs=f"[{'x' * 4000}]")])
    assert Assembly(1).logprobs == ""
