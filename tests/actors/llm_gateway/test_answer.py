import msgspec
import pytest

from actors.llm_gateway.answer import MAX_PARTS, Assembly
from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, RefusalDelta, ToolCallDelta, VendorBlock
from protocol.llm import ReasoningPart, RefusalPart, TextPart, ToolCallPart
from protocol.parts import Piece
from protocol.upstream import Deltas


def test_pieces_become_a_whole() -> None:
    """The parts have the order in which they begin; texts and calls are joined, a signature ends a thought."""
    assembly = Assembly(100)
    assert not assembly.tool_calls
    assembly.add([Delta(text="a"), ToolCallDelta(index=1, id="c2", name="two")])
    assembly.add([ToolCallDelta(index=0, id="c1", name="one", arguments='{"a"'), Delta(text="b")])
    assembly.add([ToolCallDelta(index=0, arguments=":1}")])
    assembly.add([ReasoningDelta(text="h"), ReasoningDelta(text="m"), ReasoningDelta(signature="s")])
    assembly.add([ReasoningDelta(signature="x", redacted=True), ReasoningDelta(text="so"), RefusalDelta(text="no")])
    assert assembly.finish() == [ToolCallDelta(index=0, arguments="{}", part=1)]
    assert assembly.parts == (
        TextPart(text="a"),
        ToolCallPart(id="c2", name="two", arguments="{}"),
        ToolCallPart(id="c1", name="one", arguments='{"a":1}'),
        TextPart(text="b"),
        ReasoningPart(text="hm", signature="s"),
        ReasoningPart(signature="x", redacted=True),
        ReasoningPart(text="so"),
        RefusalPart(text="no"),
    )
    assert (assembly.text, [call.id for call in assembly.tool_calls]) == ("ab", ["c2", "c1"])


def test_pieces_are_numbered_by_their_places() -> None:
    """Whatever the provider's numbers are, ``part`` is the place of the part, and calls count from 0."""
    assembly = Assembly(100)
    pieces: Deltas = [
        ReasoningDelta(text="h", part=7),
        Delta(text="a", part=7),
        Delta(text="b", part=8),
        ToolCallDelta(index=-3, id="c1", name="one"),
        ToolCallDelta(index=5, id="c2", name="two", part=3),
        ToolCallDelta(index=-3, arguments="{}"),
        Delta(text="", part=9),
        VendorBlock(dialect="openai", value=msgspec.Raw(b'{"annotations":[]}')),
    ]
    assembly.add(pieces)
    assert [piece.part for piece in pieces] == [0, 1, 2, 3, 4, 3, 9, 5]
    assert [piece.index for piece in pieces if isinstance(piece, ToolCallDelta)] == [0, 1, 0]
    assert assembly.chars == len("hab{}")


@pytest.mark.parametrize(
    "piece",
    [
        Delta(text="x" * 11),
        ToolCallDelta(index=0, arguments="x" * 11),
        ReasoningDelta(text="x" * 11),
        ReasoningDelta(signature="x" * 11),
        RefusalDelta(text="x" * 11),
        VendorBlock(dialect="openai", value=msgspec.Raw(b'{"a": "xxxx"}')),
    ],
)
def test_an_answer_is_bounded(piece: Piece) -> None:
    """Beyond the bound it fails."""
    with pytest.raises(ProviderError) as caught:
        Assembly(10).add([piece])
    assert caught.value.code == "response_too_large"


def test_the_numbers_of_calls_and_parts_are_bounded() -> None:
    """Too many of them fail, too."""
    with pytest.raises(ProviderError):
        Assembly(10).add([ToolCallDelta(index=index, id="c") for index in range(1000)])
    with pytest.raises(ProviderError):
        Assembly(1_000_000).add([Delta(text="x", part=part) for part in range(MAX_PARTS + 1)])


def test_probabilities_are_joined_and_bounded() -> None:
    """They are far longer than the text, so only a share of them counts."""
    assembly = Assembly(100)
    assembly.add([Delta(text="a", logprobs='[{"token":"a"}]'), Delta(text="b")])
    assembly.add([Delta(text="cd", logprobs='[{"token":"c"},{"token":"d"}]')])
    assert assembly.logprobs == '[{"token":"a"},{"token":"c"},{"token":"d"}]'
    with pytest.raises(ProviderError):
        assembly.add([Delta(text="e", logprobs=f"[{'x' * 4000}]")])
    assert Assembly(1).logprobs == ""
