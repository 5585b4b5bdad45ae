"""The blocks of an answer: their order, signatures in pieces, blocks without a type, and arguments without a block."""

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.anthropic.block_reader import MAX_HELD
from protocol.anthropic.reader import MessagesReader
from protocol.errors import ProviderError
from protocol.llm import AnswerPart, ReasoningPart, TextPart, ToolCallPart, VendorPart
from protocol.parts import PartsBuilder
from protocol.upstream import Deltas

Event = dict[str, Any]
BLOCKS: dict[str, Event] = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": ""},
    "tool_use": {"type": "tool_use", "name": "f", "input": {}},
    "server_tool_use": {"type": "server_tool_use", "id": "s", "name": "web", "input": {}},
}


def start(index: int | None, kind: str = "", **block: Any) -> Event:  # noqa: ANN401
    """The beginning of a block."""
    value = {**BLOCKS.get(kind, {}), **({"id": f"c{index}"} if kind == "tool_use" else {}), **block}
    return {"type": "content_block_start", "index": index, "content_block": value}


def delta(index: int | None, **fields: Any) -> Event:  # noqa: ANN401
    """A piece of a block."""
    return {"type": "content_block_delta", "index": index, "delta": fields}


def stop(index: int | None) -> Event:
    """The end of a block."""
    return {"type": "content_block_stop", "index": index}


def read(*events: Event, reason: str = "end_turn") -> tuple[MessagesReader, Deltas]:
    """Read an answer to its end."""
    reader, pieces = MessagesReader(), Deltas()
    end = {"type": "message_delta", "delta": {"stop_reason": reason}}
    for event in (*events, end, {"type": "message_stop"}):
        reader.feed(json.dumps(event).encode(), pieces)
    return reader, pieces


def parts(*events: Event) -> list[AnswerPart]:
    """The parts of an answer."""
    builder = PartsBuilder()
    for piece in read(*events)[1]:
        builder.add(piece)
    return [*builder.parts]


def shown(part: AnswerPart) -> tuple[str, str]:
    """The type of a part, and its content."""
    if isinstance(part, ToolCallPart):
        return "tool_use", part.arguments
    if isinstance(part, VendorPart):
        return part.value["type"], json.dumps(part.value.get("input"))
    return ("thinking" if isinstance(part, ReasoningPart) else "text"), part.text


def pieces_of(index: int, kind: str) -> list[Event]:
    """Two pieces of a block, which differ for each index."""
    if kind == "text":
        return [delta(index, type="text_delta", text=text) for text in (f"t{index}", "!")]
    if kind == "thinking":
        return [delta(index, type="thinking_delta", thinking=text) for text in (f"h{index}", "!")]
    return [delta(index, type="input_json_delta", partial_json=text) for text in ('{"a":', f"{index}}}")]


def content(index: int, kind: str) -> tuple[str, str]:
    """What is shown of these pieces."""
    texts = {"text": f"t{index}!", "thinking": f"h{index}!", "tool_use": f'{{"a":{index}}}'}
    return kind, texts.get(kind, f'{{"a": {index}}}')


@given(st.lists(st.sampled_from([*BLOCKS]), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_parts_have_the_order_of_their_blocks(kinds: list[str], dice: Any) -> None:  # noqa: ANN401
    """However the pieces of blocks that have all begun are mixed, and whenever each of them ends."""
    rows = [[*pieces_of(index, kind), stop(index)] for index, kind in enumerate(kinds)]
    places = [index for index, row in enumerate(rows) for _ in row]
    dice.shuffle(places)
    mixed = [rows[place].pop(0) for place in places]
    found = parts(*[start(index, kind) for index, kind in enumerate(kinds)], *mixed)
    assert [shown(part) for part in found] == [content(index, kind) for index, kind in enumerate(kinds)]


@given(st.lists(st.sampled_from([*BLOCKS]), min_size=1, max_size=5), st.booleans())
def test_blocks_one_after_the_other_need_no_end(kinds: list[str], ends: bool) -> None:
    """Each piece is given on as it comes."""
    events = [
        [start(index, kind), *pieces_of(index, kind), *([stop(index)] if ends else [])]
        for index, kind in enumerate(kinds)
    ]
    found = parts(*itertools.chain(*events))
    assert [shown(part) for part in found] == [content(index, kind) for index, kind in enumerate(kinds)]
    reader, pieces = MessagesReader(), Deltas()
    for index, kind in enumerate(kinds):
        for event in events[index][:3]:
            reader.feed(json.dumps(event).encode(), pieces)
        assert kind == "server_tool_use" or pieces[-1].part == index


def test_a_block_that_never_gets_content_holds_little() -> None:
    """An empty block without an end is given up after some events; what comes later for it is a part of its own."""
    texts = [f"{number} " for number in range(MAX_HELD + 9)]
    events = [start(0, "text"), start(1, "text"), *[delta(1, type="text_delta", text=text) for text in texts]]
    reader, pieces = MessagesReader(), Deltas()
    for event in events:
        reader.feed(json.dumps(event).encode(), pieces)
    assert len(pieces) == MAX_HELD + 9
    late = [shown(part) for part in parts(*events, delta(0, type="text_delta", text="late"))]
    assert late == [("text", "".join(texts)), ("text", "late")]
    large = [start(0, "text"), start(1, "text"), *[delta(1, type="text_delta", text="x" * 600_000)] * 3]
    assert [len(part.text) for part in parts(*large) if isinstance(part, TextPart)] == [1_800_000]


def test_an_empty_block_is_no_part() -> None:
    """Whether or not it is said where it ends."""
    for ends in ([stop(0)], []):
        events = [start(0, "text"), *ends, start(1, "tool_use"), *pieces_of(1, "tool_use"), stop(1)]
        assert [shown(part) for part in parts(*events)] == [content(1, "tool_use")]


@pytest.mark.parametrize("signatures", [["SIG"], ["S", "IG"], ["S", "", "I", "G"], ["SIG", "SIG"]])
@pytest.mark.parametrize("begun", ["", "SIG"])
@pytest.mark.parametrize("ends", [True, False])
def test_a_signature_in_pieces_is_one(signatures: list[str], begun: str, ends: bool) -> None:
    """Also one that is said twice; and the thought stays one part, whatever comes behind its signature."""
    if begun:
        signatures = ["SIG"]
    events = [start(0, "thinking", signature=begun), delta(0, type="thinking_delta", thinking="h")]
    events += [delta(0, type="signature_delta", signature=signature) for signature in signatures]
    events += [delta(0, type="thinking_delta", thinking="m"), *([stop(0)] if ends else [])]
    found = parts(*events, start(1, "text"), *pieces_of(1, "text"))
    assert found == [ReasoningPart(text="hm", signature="SIG"), TextPart(text="t1!")]


def test_a_thought_that_is_a_signature_alone() -> None:
    """It is a part."""
    events = [start(0, "thinking"), delta(0, type="signature_delta", signature="S"), start(1, "text", text="Hi")]
    assert parts(*events) == [ReasoningPart(signature="S"), TextPart(text="Hi")]


@pytest.mark.parametrize("kind", [None, "", 7, [], {}])
def test_a_block_without_a_type_is_what_its_fields_say(kind: object) -> None:
    """Or what its pieces say."""
    events = [
        start(0, type=kind, text="a"),
        delta(0, type="text_delta", text="b"),
        start(1, type=kind, thinking="h", signature="S"),
        start(2, type=kind, id="c", name="f"),
        delta(2, type="input_json_delta", partial_json='{"a":2}'),
        start(3, type=kind, data="D"),
        start(4, type=kind),
        delta(4, thinking="m"),
        start(5, type=kind, text="", citations=[{"url": "u"}]),
        delta(5, text="e"),
    ]
    assert [shown(part) for part in parts(*events)] == [
        ("text", "ab"),
        ("thinking", "h"),
        ("tool_use", '{"a":2}'),
        ("thinking", ""),
        ("thinking", "m"),
        ("text", "e"),
    ]
    _, pieces = read(*events)
    assert msgspec.json.decode(pieces[-1].value)["type"] == "text"  # type: ignore[union-attr]


def test_a_text_in_parts() -> None:
    """At the begin of its block, and in its pieces."""
    row = [{"type": "text", "text": "a"}, {"text": "b"}]
    assert parts(start(0, "text", text=row), delta(0, type="text_delta", text=row)) == [TextPart(text="abab")]


def test_arguments_at_the_index_of_no_block_are_the_last_calls() -> None:
    """Where it has none yet; a stop of either index ends it."""
    row = [delta(1, type="input_json_delta", partial_json=text) for text in ('{"a":', "1}")]
    for events in ([start(0, "tool_use"), *row, stop(0), stop(1)], [start(0, "tool_use"), *row]):
        assert [shown(part) for part in parts(*events)] == [("tool_use", '{"a":1}')]
    two = [start(0, "tool_use"), *pieces_of(0, "tool_use"), start(1, "tool_use"), delta(5, partial_json='{"b":1}')]
    assert [shown(part) for part in parts(*two)] == [("tool_use", '{"a":0}'), ("tool_use", '{"b":1}')]


@pytest.mark.parametrize(
    "events",
    [
        [],
        [start(0, "text", text="Hi")],
        [start(0, "tool_use"), *pieces_of(0, "tool_use")],
    ],
)
@pytest.mark.parametrize("index", [3, None])
def test_arguments_of_no_call_are_no_answer(events: list[Event], index: int | None) -> None:
    """A call has been lost."""
    if index is None and len(events) > 1:
        return
    with pytest.raises(ProviderError) as caught:
        read(*events, delta(index, type="input_json_delta", partial_json='{"a":1}'))
    assert caught.value.code == "provider_bad_response"


@pytest.mark.parametrize("text", ["", " ", "{}", '{"a":1}'])
def test_arguments_of_a_call_that_has_ended_are_dropped(text: str) -> None:
    """Its arguments are whole; blank ones belong to anything."""
    events = [start(0, "tool_use"), *pieces_of(0, "tool_use"), stop(0)]
    found = parts(*events, delta(0, type="input_json_delta", partial_json=text))
    assert [shown(part) for part in found] == [("tool_use", '{"a":0}')]
    if not text.strip():
        assert parts(start(0, "text", text="Hi"), delta(0, partial_json=text)) == [TextPart(text="Hi")]
