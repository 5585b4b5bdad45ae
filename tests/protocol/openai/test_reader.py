"""Odd answers of OpenAI's dialect, as the reader returns them; their rows are those of the conformance table."""

import json
from typing import Any

import msgspec
import pytest

from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, RefusalDelta, ToolCallDelta, VendorBlock
from protocol.openai.calls import MAX_CALLS, MAX_EXTRA_BYTES
from protocol.openai.reader import ChatReader
from protocol.openai.vendor_fields import MAX_KEPT_BYTES, VendorFields, folded
from protocol.upstream import Deltas
from tests.contracts.conformance.forms import CUSTOM, IMAGE, OPENAI_FORMS, SIGNED, Form, calls, chunk, flow, message

JSON = dict[str, Any]


def read(*events: Any) -> Deltas:  # noqa: ANN401 - JSON
    """The pieces of an answer."""
    reader, pieces = ChatReader(), Deltas()
    for event in events:
        reader.feed(json.dumps(event).encode(), pieces)
    reader.close(pieces, proper=True)
    assert reader.whole
    return pieces


def text_of(pieces: Deltas) -> str:
    """The text of the pieces."""
    return "".join(piece.text for piece in pieces if isinstance(piece, Delta))


def blocks_of(pieces: Deltas) -> list[JSON]:
    """The vendor's own parts."""
    return [msgspec.json.decode(piece.value) for piece in pieces if isinstance(piece, VendorBlock)]


def calls_in(pieces: Deltas) -> list[tuple[str, str]]:
    """The names and the arguments of the calls; their ids differ."""
    found: dict[int, list[str]] = {}
    ids = set()
    for piece in pieces:
        if isinstance(piece, ToolCallDelta):
            known = found.setdefault(piece.index, [piece.name, ""])
            known[1] += piece.arguments
            ids |= {piece.id} if piece.id else set()
    assert len(ids) == len(found)
    return [(name, arguments) for name, arguments in found.values()]


@pytest.mark.parametrize("form", OPENAI_FORMS, ids=lambda form: form.name)
@pytest.mark.parametrize("known", [False, True])
def test_a_form_is_read_or_fails(form: Form, *, known: bool) -> None:
    """Before the answer's id is known, and after it, when chunks are expected to be plain."""
    before = [chunk({"role": "assistant", "content": ""})] if known else []
    if form.code and form.name != "no call":  # which the gateway refuses
        with pytest.raises(ProviderError) as caught:
            read(*before, *form.events)
        assert caught.value.code == form.code
        return
    pieces = read(*before, *form.events)
    assert text_of(pieces) == form.text
    assert [(name, json.loads(arguments)) for name, arguments in calls_in(pieces)] == list(form.calls)
    fields = {name: value for block in blocks_of(pieces) for name, value in block.items()}
    if form.fields is not None and not {"content_parts", "tool_calls"} & form.fields.keys():
        assert fields == form.fields


def test_a_custom_call_has_its_whole_self_in_its_extras() -> None:
    """It is given on once, when it is whole, and other dialects have its input as an argument."""
    (call,) = read(*calls({"index": 0, **CUSTOM}))
    assert call == ToolCallDelta(
        index=0, id="c1", name="run", arguments='{"input":"x = 1"}', extra={"openai": {**CUSTOM}}
    )
    kinds = [type(piece) for piece in read(*flow({"tool_calls": [CUSTOM]}, {"content": "Hi"}, finish="tool_calls"))]
    assert kinds == [ToolCallDelta, Delta]


def test_a_custom_call_that_goes_on_after_its_end_fails() -> None:
    """What was given on can't be changed."""
    piece = {"tool_calls": [{"index": 0, **CUSTOM}]}
    with pytest.raises(ProviderError):
        read(*flow(piece, {"content": "Hi"}, {"tool_calls": [{"index": 0, "custom": {"input": "!"}}]}))


def test_fields_of_a_function_come_back() -> None:
    """Those that nobody knows are extras of the call."""
    function = {"name": "f", "arguments": "{}", "thought_signature": "S"}
    (call,) = read(*calls({"id": "a", "function": function, "more": 1}))
    assert isinstance(call, ToolCallDelta)
    assert call.extra == {"openai": {"more": 1, "function": {"thought_signature": "S"}}}


def test_a_repeated_whole_message_adds_nothing() -> None:
    """Neither its reasoning, nor its refusal, its details and its calls."""
    details = [{"type": "reasoning.encrypted", "data": "AA", "index": 0}]
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    streamed = flow({"reasoning_content": "hm"}, {"reasoning_details": details}, {"refusal": "No"}, {"content": "Hi"})
    once = read(*streamed[:4], *calls(call)[:1], chunk({}, "tool_calls"))
    said = {"content": "Hi", "reasoning_content": "hm", "reasoning_details": details, "refusal": "No"}
    nameless = {**call, "id": "other"}
    twice = read(
        *streamed[:4],
        *calls(call)[:1],
        *message("tool_calls", **said, tool_calls=[nameless], thinking=""),
    )
    assert twice == once
    assert [type(piece) for piece in once] == [ReasoningDelta, VendorBlock, RefusalDelta, Delta, ToolCallDelta]


def test_messages_in_place_of_deltas_are_pieces() -> None:
    """Also where one is the same as the one before; only all of the text once more, at the end, is none."""
    pieces = [{"choices": [{"index": 0, "message": {"content": text}}]} for text in ("ha", "ha", "!")]
    end = {"choices": [{"index": 0, "message": {"content": "haha!"}, "finish_reason": "stop"}]}
    assert text_of(read(*pieces, end)) == "haha!"


def test_an_upstream_that_sends_nulls_is_read_plainly() -> None:
    """From its second chunk on."""
    reader, pieces = ChatReader(), Deltas()
    for text in "abc":
        delta = {"role": "assistant", "content": text, "refusal": None, "function_call": None, "audio": None}
        reader.feed(json.dumps(chunk(delta)).encode(), pieces)
    assert text_of(pieces) == "abc"
    assert reader._decode != ChatReader()._decode


@pytest.mark.parametrize(
    ("values", "whole"),
    [
        (["a", "b"], "ab"),
        (["a", "a"], "a"),
        (["a", "b", "ab"], "ab"),
        ([1, 2], 2),
        ([[1], [2]], [1, 2]),
        ([[1], [1]], [1]),
        ([{"id": "x", "data": "A"}, {"id": "x", "data": "B"}, {"n": 1}], {"id": "x", "data": "AB", "n": 1}),
        ([[{"index": 0, "text": "a"}], [{"index": 0, "text": "b"}]], [{"index": 0, "text": "ab"}]),
        ([[{**IMAGE, "index": 0}], [{**IMAGE, "n": 1}]], [{**IMAGE, "index": 0}, {**IMAGE, "n": 1}]),
        ([[SIGNED], [{"type": "thinking", "thinking": "so"}]], [SIGNED, {"type": "thinking", "thinking": "so"}]),
    ],
)
def test_pieces_of_a_field_are_joined(values: list[Any], whole: object) -> None:
    """Texts, lists, and entries of lists; names and repetitions are not."""
    assert folded(values) == whole


def test_equal_pieces_of_thoughts_are_pieces() -> None:
    """Of a text that is known to come in pieces."""
    assert folded(["ha", "ha"], "thinking") == "haha"


def test_what_is_kept_is_bounded() -> None:
    """Fields, custom calls, and the number of calls."""
    fields = VendorFields()
    with pytest.raises(ProviderError) as caught:
        fields.add({"images": ["x" * MAX_KEPT_BYTES]}, whole=False)
    assert caught.value.code == "response_too_large"
    long = {**CUSTOM, "custom": {"name": "run", "input": "x" * MAX_EXTRA_BYTES}}
    for entries in ([long], [{"id": str(number), "name": "f"} for number in range(MAX_CALLS + 1)]):
        with pytest.raises(ProviderError) as caught:
            read(*flow({"tool_calls": entries}, finish="tool_calls"))
        assert caught.value.code == "response_too_large"


@pytest.mark.parametrize(
    ("events", "kept"),
    [
        ([chunk({"role": "assistant", "content": None, "reasoning_content": ""}), chunk({"content": "a"})], True),
        ([chunk({"reasoning_content": ""}), chunk({"reasoning_content": "hm"}), chunk({"content": "a"})], False),
        ([chunk({"reasoning_content": None, "content": "a"}), chunk({"content": "b"})], False),
        ([{"choices": [{"message": {"content": "a", "reasoning_content": ""}, "finish_reason": "stop"}]}], True),
    ],
    ids=["streamed", "not the last", "null", "whole"],
)
def test_reasoning_that_was_empty_comes_back(events: list[dict[str, Any]], kept: bool) -> None:
    """Some vendors refuse a history without the field that they have sent."""
    reader, pieces = ChatReader(), Deltas()
    for event in events:
        reader.feed(json.dumps(event).encode(), pieces)
    reader.feed(b"[DONE]", pieces)
    blocks = [bytes(piece.value) for piece in pieces if isinstance(piece, VendorBlock)]
    assert blocks == ([b'{"reasoning_content":""}'] if kept else [])
