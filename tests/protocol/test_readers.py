"""Both readers, with everything that an upstream may say: unknown values of each field that decides, and any JSON."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.anthropic.reader import MessagesReader
from protocol.errors import PROBLEMS, ProviderError
from protocol.events import Delta, ReasoningDelta, RefusalDelta, ToolCallDelta, VendorBlock
from protocol.llm import Usage
from protocol.openai.reader import ChatReader
from protocol.reading.loose import named
from protocol.upstream import AnswerReader, Deltas
from tests.protocol.reading.test_loose import ANY_JSON

Events = list[dict[str, Any]]
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 1}}
CALL = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
CHAT: Events = [
    {"id": "x", "model": "m", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "Hi"}}]},
    {"choices": [{"index": 0, "delta": {"reasoning_content": "hm"}, "logprobs": None, "finish_reason": None}]},
    {"choices": [{"index": 0, "delta": {"content": [{"type": "text", "text": "!"}], "refusal": None}}]},
    {"choices": [{"index": 0, "delta": {"content": "?"}, "logprobs": {"content": [{"token": "?", "logprob": -1.0}]}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [CALL]}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    {"choices": [], "usage": USAGE},
]
MESSAGES: Events = [
    {"type": "message_start", "message": {"id": "x", "model": "m", "usage": {"input_tokens": 7, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "S"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": "", "citations": []}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hi"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "citations_delta", "citation": {"url": "u"}}},
    {"type": "content_block_stop", "index": 1},
    {"type": "content_block_start", "index": 2, "content_block": {"type": "server_tool_use", "id": "s", "name": "web"}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"q":1}'}},
    {"type": "content_block_stop", "index": 2},
    {"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use", "id": "c", "name": "f"}},
    {"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": '{"a":1}'}},
    {"type": "content_block_stop", "index": 3},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 3}},
    {"type": "message_stop"},
]
WHOLE_CHAT = {
    "id": "x",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"content": "Hi", "tool_calls": [CALL]}, "finish_reason": "stop"}],
    "usage": USAGE,
}
WHOLE_MESSAGE = {
    "type": "message",
    "content": [{"type": "text", "text": "Hi"}, {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}}],
    "stop_reason": "tool_use",
    "usage": {"input_tokens": 7, "output_tokens": 3},
}
READERS: dict[str, tuple[Callable[[], AnswerReader], Events]] = {
    "chat": (ChatReader, CHAT),
    "messages": (MessagesReader, MESSAGES),
    "whole chat": (ChatReader, [WHOLE_CHAT]),
    "whole message": (MessagesReader, [WHOLE_MESSAGE]),
}
UNKNOWN: tuple[object, ...] = (
    "news",
    "",
    "NEWS",
    7,
    1.5,
    True,
    False,
    None,
    [],
    {},
    {"a": 1},
    ["stop"],
    "stop\n\ud800",
)


def read(make: Callable[[], AnswerReader], *events: Any, proper: bool = True) -> tuple[AnswerReader, Deltas]:  # noqa: ANN401
    """Read events to the end of the stream."""
    reader, pieces = make(), Deltas()
    for event in events:
        reader.feed(event if isinstance(event, bytes) else json.dumps(event).encode(), pieces)
        if reader.ended:
            break
    reader.close(pieces, proper=proper)
    return reader, pieces


def outcome(make: Callable[[], AnswerReader], *events: Any, proper: bool = True) -> tuple[AnswerReader, Deltas] | str:  # noqa: ANN401
    """What ``read`` returns; where it fails, the failure's code."""
    try:
        return read(make, *events, proper=proper)
    except ProviderError as error:
        return error.code


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401
    """The path of each value within a JSON value."""
    yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def get(events: Events, path: tuple[Any, ...]) -> object:
    """The value at this place."""
    at: Any = events
    for key in path:
        at = at[key]
    return at


def put(events: Events, path: tuple[Any, ...], value: object) -> Events:
    """The events with another value at this place."""
    changed = deepcopy(events)
    at: Any = get(changed, path[:-1])
    at[path[-1]] = value
    return changed


def check(reader: AnswerReader, pieces: Deltas) -> None:
    """What was read is whole: parts count up, calls can be answered, usage is not negative, all can be encoded."""
    begun = -1
    calls: dict[int, int] = {}
    for piece in pieces:
        msgspec.json.encode(piece)
        if isinstance(piece, ToolCallDelta):
            assert (piece.index in calls) == (not piece.id)
            assert calls.setdefault(piece.index, piece.part) == piece.part
        begun = max(begun, piece.part) if piece.part <= begun + 1 else begun + 99
    assert begun < 99
    assert [*calls] == [*range(len(calls))]
    usage = reader.usage or Usage()
    assert min(usage.input_tokens, usage.output_tokens, usage.cached_input_tokens, usage.reasoning_tokens) >= 0
    for name in (reader.model, reader.response_id, reader.raw_finish_reason, reader.stop_sequence):
        name.encode()


@pytest.mark.parametrize("name", READERS)
def test_the_plain_answer(name: str) -> None:
    """The answers of the other tests are read as they are meant."""
    reader, pieces = read(READERS[name][0], *READERS[name][1])
    check(reader, pieces)
    assert (reader.finish_reason, reader.raw_finish_reason, reader.whole, reader.counted) == (
        "tool_calls",
        "",
        True,
        True,
    )
    assert "".join(piece.text for piece in pieces if isinstance(piece, Delta)).startswith("Hi")
    arguments = "".join(piece.arguments for piece in pieces if isinstance(piece, ToolCallDelta))
    assert json.loads(arguments) == {"a": 1}
    assert reader.usage is not None
    assert (reader.usage.input_tokens, reader.usage.output_tokens) == (7, 3)


DECIDING = ("finish_reason", "stop_reason", "type", "object", "status", "error")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("value", UNKNOWN, ids=repr)
def test_an_unknown_value_never_makes_a_good_answer(name: str, value: object) -> None:
    """A deciding field with any other value: a failure, no end, ``other``, or the answer as it is."""
    make, events = READERS[name]
    for path in places(events):
        if not path or path[-1] not in DECIDING:
            continue
        found = outcome(make, *put(events, path, value))
        if isinstance(found, str):
            assert found in PROBLEMS
            continue
        check(*found)
        if path[-1] in ("finish_reason", "stop_reason") and get(events, path) is not None:
            reader = found[0]
            assert reader.finish_reason in (None, "other")
            assert reader.whole == bool(reader.raw_finish_reason) == (reader.finish_reason == "other")


@pytest.mark.parametrize(("make", "end"), [(ChatReader, CHAT[:1]), (MessagesReader, MESSAGES[:9])])
def test_an_unknown_reason_needs_the_end(make: Callable[[], AnswerReader], end: Events) -> None:
    """A stream that breaks off after an unknown reason is not whole; after a known one it is."""
    for word, whole in (("news", False), ("stop", True), ("MAX_TOKENS", True)):
        last: Any = {"choices": [{"delta": {}, "finish_reason": word}]}
        if make is MessagesReader:
            last = {"type": "message_delta", "delta": {"stop_reason": word}}
        assert read(make, *end, last, proper=False)[0].whole == whole
        assert read(make, *end, last, proper=True)[0].whole


@pytest.mark.parametrize("name", ["error", "ping", "content_block_delta", "message_stop", "news"])
@pytest.mark.parametrize("make", [ChatReader, MessagesReader])
def test_the_names_of_events(make: Callable[[], AnswerReader], name: str) -> None:
    """An event that is named ``error`` is a failure whatever it says; no name makes an answer whole."""
    for data in (b"", b"null", b"{}", b"some text", b'{"message":"boom","code":500}'):
        if name == "error":
            with pytest.raises(ProviderError):
                read(make, named(data, name))
            continue
        found = outcome(make, named(data, name))
        assert found in PROBLEMS if isinstance(found, str) else (found[0].whole, found[1]) == (False, [])


@settings(max_examples=400)
@given(st.data())
@pytest.mark.parametrize("name", READERS)
def test_any_json_at_any_place(name: str, data: st.DataObject) -> None:
    """Nothing but a ``ProviderError`` comes out of a reader, and what it has read is whole."""
    make, events = READERS[name]
    path = data.draw(st.sampled_from([path for path in places(events) if path]))
    changed = put(events, path, data.draw(ANY_JSON))
    found = outcome(make, *changed, proper=data.draw(st.booleans()))
    if isinstance(found, str):
        assert found in PROBLEMS
    else:
        check(*found)


@settings(max_examples=200)
@given(st.lists(ANY_JSON, max_size=4))
@pytest.mark.parametrize("make", [ChatReader, MessagesReader])
def test_any_json_as_an_event(make: Callable[[], AnswerReader], values: list[Any]) -> None:
    """The same for whole events."""
    found = outcome(make, *values)
    if isinstance(found, str):
        assert found in PROBLEMS
    else:
        check(*found)
        assert not found[0].whole


@given(st.binary(max_size=40))
@pytest.mark.parametrize("make", [ChatReader, MessagesReader])
def test_any_bytes_as_an_event(make: Callable[[], AnswerReader], data: bytes) -> None:
    """The same for any bytes."""
    found = outcome(make, data)
    assert found in PROBLEMS if isinstance(found, str) else not found[0].whole


KINDS = st.lists(
    st.tuples(st.sampled_from(["text", "reasoning", "refusal", "call"]), st.text("ab", min_size=1)), max_size=9
)


@given(KINDS)
def test_parts_of_a_chat_come_in_their_order(row: list[tuple[str, str]]) -> None:
    """Pieces of a kind that follow each other are one part; each call is a part of its own."""
    names = {"text": "content", "reasoning": "reasoning", "refusal": "refusal"}
    chunks: Events = []
    for number, (kind, text) in enumerate(row):
        delta: dict[str, Any] = {names.get(kind, ""): text}
        if kind == "call":
            delta = {"tool_calls": [{"index": number, "id": f"c{number}", "function": {"name": text}}]}
        chunks.append({"choices": [{"delta": delta}]})
    _, pieces = read(ChatReader, *chunks, {"choices": [{"delta": {}, "finish_reason": "stop"}]})
    found: dict[int, tuple[str, str]] = {}
    kinds = {Delta: "text", ReasoningDelta: "reasoning", RefusalDelta: "refusal", ToolCallDelta: "call"}
    for piece in pieces:
        text = piece.name if isinstance(piece, ToolCallDelta) else getattr(piece, "text", "")
        found[piece.part] = kinds[type(piece)], found.get(piece.part, ("", ""))[1] + text
    expected: list[tuple[str, str]] = []
    for kind, text in row:
        goes_on = expected and kind == expected[-1][0] != "call"
        expected.append((kind, expected.pop()[1] + text if goes_on else text))
    assert [found[part] for part in sorted(found)] == expected


def test_blocks_are_parts_in_the_vendors_own_form() -> None:
    """A server tool comes whole when it ends, and a text with citations once more, with them."""
    _, pieces = read(MessagesReader, *MESSAGES)
    blocks = [(piece.part, msgspec.json.decode(piece.value)) for piece in pieces if isinstance(piece, VendorBlock)]
    assert blocks == [
        (1, {"type": "text", "text": "Hi", "citations": [{"url": "u"}]}),
        (2, {"type": "server_tool_use", "id": "s", "name": "web", "input": {"q": 1}}),
    ]


@pytest.mark.parametrize("kind", [None, "", 7])
def test_events_without_a_type_are_what_their_fields_say(kind: object) -> None:
    """All but those that have no fields: an end, which an answer with a finish reason does not need."""
    for events in (MESSAGES[:-1], [WHOLE_MESSAGE]):
        bare = [{**event, "type": kind} if "index" not in event or "delta" in event else event for event in events]
        reader, pieces = read(MessagesReader, *bare)
        assert pieces == read(MessagesReader, *events)[1]
        assert (reader.finish_reason, reader.whole) == ("tool_calls", True)
    with pytest.raises(ProviderError):
        read(MessagesReader, {**MESSAGES[-1], "type": kind, "more": 1})
