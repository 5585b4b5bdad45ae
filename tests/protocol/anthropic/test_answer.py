import json
from typing import Any

import msgspec
import pytest
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from pydantic import TypeAdapter

from actors.llm_gateway.answer import Assembly
from protocol.anthropic.answer import (
    ERROR_TYPES,
    PING_EVENT,
    MessagesEventEncoder,
    count_body,
    error_body,
    error_status,
    message_body,
)
from protocol.anthropic.reader import MessagesReader
from protocol.errors import PROBLEMS, InvalidRequest, Overloaded, ProviderError, TidegateError, TryAgainLater
from protocol.events import (
    AttemptFailed,
    Cancelled,
    Completed,
    Delta,
    Entry,
    Event,
    Failed,
    ReasoningDelta,
    RefusalDelta,
    Started,
    ToolCallDelta,
    VendorBlock,
)
from protocol.llm import AnswerPart, FinishReason, ReasoningPart, RefusalPart, TextPart, ToolCallPart, Usage
from protocol.parts import PartsBuilder
from protocol.upstream import Deltas

USAGE = Usage(input_tokens=7, output_tokens=3, cached_input_tokens=2, reasoning_tokens=1)
STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
STARTED = Started(model="m", created=1)


def encoder() -> MessagesEventEncoder:
    """A stream of a client that has seen nothing."""
    return MessagesEventEncoder("req_1", "m", "call_1")


def log(*events: Event) -> list[Entry]:
    """Entries with their offsets."""
    return [Entry(offset, event) for offset, event in enumerate(events, 1)]


def events(stream: bytes) -> list[Any]:
    """The data of each SSE event, whose name is its type."""
    assert stream.endswith(b"\n\n")
    found = []
    for frame in stream.decode().split("\n\n")[:-1]:
        name, data = frame.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def kinds(stream: bytes) -> list[str]:
    """The types of the events, with the index of a block's."""
    return [f"{event['type']} {event['index']}" if "index" in event else event["type"] for event in events(stream)]


def completed(*parts: AnswerPart, finish_reason: FinishReason = "stop") -> Completed:
    """The end of a good answer."""
    return Completed(parts=parts or (TextPart(text="Hello"),), usage=USAGE, finish_reason=finish_reason)


def whole(end: Completed) -> Message:
    """A whole answer as the SDK reads it."""
    return Message.model_validate_json(message_body("req_1", "m", end), strict=True)


def test_a_streams_events_satisfy_the_sdk() -> None:
    """The SDK accepts the start, the blocks of text and calls, the stop reason with the usage, and the end."""
    into = encoder()
    entries = log(
        STARTED,
        Delta(text='Hé"\n'),
        Delta(text="llo"),
        ToolCallDelta(index=0, id="c1", name="look"),
        ToolCallDelta(index=0, arguments='{"a"'),
        ToolCallDelta(index=0, arguments=":1}"),
        ToolCallDelta(index=1, id="c2", name="look", arguments="{}"),
        completed(finish_reason="tool_calls"),
    )
    stream = into.encode(entries[:2]) + into.encode(entries[2:])
    assert kinds(stream) == [
        "message_start",
        "content_block_start 0",
        "content_block_delta 0",
        "content_block_delta 0",
        "content_block_stop 0",
        "content_block_start 1",
        "content_block_delta 1",
        "content_block_delta 1",
        "content_block_stop 1",
        "content_block_start 2",
        "content_block_delta 2",
        "content_block_stop 2",
        "message_delta",
        "message_stop",
    ]
    for event in events(stream):
        STREAM_EVENT.validate_python(event, strict=True)
    start, *_, delta, _ = events(stream)
    assert (start["message"]["id"], start["message"]["model"]) == ("msg_req_1", "m")
    assert delta["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    assert (delta["usage"]["input_tokens"], delta["usage"]["cache_read_input_tokens"]) == (5, 2)
    assert delta["usage"]["output_tokens"] == 3


def test_our_own_reader_reads_it() -> None:
    """Our upstream reader reads what our client's encoder writes, without loss."""
    content: Deltas = [
        ReasoningDelta(text="h"),
        ReasoningDelta(text="m"),
        ReasoningDelta(signature="s"),
        ReasoningDelta(signature="x", redacted=True, part=1),
        ReasoningDelta(signature="s2", part=2),
        Delta(text="Hé", part=3),
        ToolCallDelta(index=0, id="c1", name="look", part=4),
        ToolCallDelta(index=0, arguments="{}", part=4),
        Delta(text="!", part=5),
    ]
    reader, pieces = MessagesReader(), Deltas()
    for event in events(encoder().encode(log(STARTED, *content, completed(finish_reason="length")))):
        reader.feed(json.dumps(event).encode(), pieces)
    for told in (pieces, content):
        Assembly(1000).add(told)  # numbers the parts
    assert pieces == content
    assert (reader.finish_reason, reader.ended, reader.response_id) == ("length", True, "msg_req_1")
    assert reader.usage == Usage(input_tokens=7, output_tokens=3, cached_input_tokens=2, reasoning_tokens=1)


def test_thoughts_are_blocks_with_their_signatures() -> None:
    """The SDK reads the same thinking blocks from the stream and the whole answer."""
    stream = encoder().encode(
        log(
            STARTED,
            ReasoningDelta(text="hm"),
            ReasoningDelta(signature="s"),
            ReasoningDelta(signature="x", redacted=True),
            Delta(text="Hello"),
            completed(),
        )
    )
    thoughts = (ReasoningPart(text="hm", signature="s"), ReasoningPart(signature="x", redacted=True))
    for event in events(stream):
        STREAM_EVENT.validate_python(event, strict=True)
    starts = [event["content_block"]["type"] for event in events(stream) if event["type"] == "content_block_start"]
    assert starts == ["thinking", "redacted_thinking", "text"]
    message = whole(completed(*thoughts, TextPart(text="Hello")))
    assert [block.model_dump() for block in message.content][:2] == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
    ]


def test_mixed_pieces_of_calls_are_one_block_after_the_other() -> None:
    """What comes between the pieces of a call waits for the end of that call's block."""
    into = encoder()
    first = log(
        ToolCallDelta(index=0, id="c1", name="look", arguments="{"),
        ToolCallDelta(index=1, id="c2", name="look", arguments="{"),
        ToolCallDelta(index=0, arguments="}"),
        ToolCallDelta(index=1, arguments="}"),
    )
    assert kinds(into.encode(first)) == [
        "message_start",
        "content_block_start 0",
        "content_block_delta 0",
        "content_block_delta 0",
    ]
    assert kinds(into.encode(log(Delta("so"), Delta("!")))) == [
        "content_block_stop 0",
        "content_block_start 1",
        "content_block_delta 1",
        "content_block_delta 1",
        "content_block_stop 1",
        "content_block_start 2",
        "content_block_delta 2",
        "content_block_delta 2",
    ]


def test_a_call_that_never_ends_is_followed_by_the_rest() -> None:
    """At the end the entries that were held come in the order of their parts, before a failure, too."""
    cut = (ToolCallDelta(index=0, id="c1", name="look", arguments="{"), Delta(text="so"))
    for end in (completed(), Failed(code="provider_error", message="it fell over")):
        starts = [event for event in events(encoder().encode(log(*cut, end))) if event["type"] == "content_block_start"]
        assert [start["content_block"]["type"] for start in starts] == ["tool_use", "text"]


def test_a_vendors_own_blocks_come_back_as_they_came() -> None:
    """A block of the dialect is verbatim, citations belong to their text, and other dialects' blocks are left out."""
    search = '{"type":"server_tool_use","id":"s","name":"web_search","input":{"q":  1.50}}'
    cited = {"type": "text", "text": "Hi", "citations": [{"type": "char_location", "cited_text": "x"}]}
    content = (
        VendorBlock(dialect="anthropic", value=msgspec.Raw(search.encode()), part=0),
        Delta(text="Hi", part=1),
        VendorBlock(dialect="anthropic", value=msgspec.Raw(json.dumps(cited).encode()), part=1),
        VendorBlock(dialect="openai", value=msgspec.Raw(b'{"annotations":[]}'), part=2),
    )
    stream = encoder().encode(log(*content, completed()))
    assert search.encode() in stream
    assert kinds(stream) == [
        "message_start",
        "content_block_start 0",
        "content_block_stop 0",
        "content_block_start 1",
        "content_block_delta 1",
        "content_block_delta 1",
        "content_block_stop 1",
        "message_delta",
        "message_stop",
    ]
    assert events(stream)[5]["delta"] == {"type": "citations_delta", "citation": cited["citations"][0]}
    builder = PartsBuilder()
    for piece in content:
        builder.add(piece)
    assert json.loads(message_body("r", "m", completed(*builder.parts)))["content"] == [json.loads(search), cited]


def test_a_refusal_is_a_text() -> None:
    """The dialect has no refusals but a stop reason; an answer of nothing has no blocks."""
    assert whole(completed(RefusalPart(text="No."), finish_reason="content_filter")).content[0].type == "text"
    assert json.loads(message_body("r", "m", Completed()))["content"] == []
    stream = encoder().encode(log(RefusalDelta(text="No."), completed(finish_reason="content_filter")))
    assert events(stream)[2]["delta"] == {"type": "text_delta", "text": "No."}


def test_an_unknown_finish_reason_is_the_providers_own_word() -> None:
    """No reason that is not known becomes `end_turn`."""
    end = completed(finish_reason="other")
    assert json.loads(message_body("r", "m", end))["stop_reason"] == "other"
    for raw in ("vendor_done", "pause_turn"):
        named = msgspec.structs.replace(end, raw_finish_reason=raw)
        assert json.loads(message_body("r", "m", named))["stop_reason"] == raw
        assert events(encoder().encode(log(Delta("a"), named)))[-2]["delta"]["stop_reason"] == raw


def test_nothing_is_sent_before_the_first_content() -> None:
    """The first entry and a boundary give no bytes, so that a failure can still be an HTTP error."""
    boundary = AttemptFailed(provider="p", model="m", code="provider_error")
    assert encoder().encode(log(STARTED, boundary)) == b""


def test_a_stream_begins_with_the_tokens_that_are_counted() -> None:
    """``message_start`` has the input that the provider has counted by then, and never the final output."""
    counted = MessagesEventEncoder("req_1", "m", "call_1", lambda: USAGE)
    start = events(counted.encode(log(Delta(text="a"))))[0]["message"]["usage"]
    assert start == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 2,
        "output_tokens": 1,
    }


def test_an_answer_without_content() -> None:
    """An answer without content has a start and an end."""
    assert kinds(encoder().encode(log(STARTED, completed()))) == ["message_start", "message_delta", "message_stop"]


def test_clients_of_one_log_share_the_tails() -> None:
    """A delta is encoded once; only its prefix differs by client."""
    entries = log(Delta(text="a"))
    encoder().encode(entries)
    assert entries[0].frames is not None
    entries[0].frames["anthropic"] = entries[0].frames["anthropic"].replace(b'"a"', b'"shared"')
    assert events(encoder().encode(entries))[-1]["delta"]["text"] == "shared"


@pytest.mark.parametrize(
    ("event", "kind", "code"),
    [
        (Failed(code="provider_stream_broken", message="broke off"), "api_error", "provider_stream_broken"),
        (Failed(code="slow_consumer", message="too slow"), "overloaded_error", "slow_consumer"),
        (Cancelled(), "invalid_request_error", "cancelled"),
    ],
)
def test_a_failure_ends_the_stream_with_an_error(event: Event, kind: str, code: str) -> None:
    """A failure in the stream is an error event with the call's id, and ends it."""
    last = events(encoder().encode(log(Delta(text="a"), event)))[-1]
    assert (last["type"], last["request_id"]) == ("error", "call_1")
    assert (last["error"]["type"], last["error"]["details"]["error_code"]) == (kind, code)


def test_a_ping_is_an_event() -> None:
    """A ping is an event of its own type."""
    assert events(PING_EVENT) == [{"type": "ping"}]


def test_a_whole_answer_satisfies_the_sdk() -> None:
    """Text and usage come back as the SDK's typed message."""
    message = whole(completed())
    assert (message.id, message.content[0].type, message.stop_reason) == ("msg_req_1", "text", "end_turn")
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (5, 2)
    assert message.usage.output_tokens_details is not None
    assert message.usage.output_tokens_details.thinking_tokens == 1


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ('{"a": 12345678901234567890123}', {"a": 12345678901234567890123}),
        ("", {}),
        ("[1]", {"INVALID_JSON": "[1]"}),
        ('{"cut o', {"INVALID_JSON": '{"cut o'}),
    ],
)
def test_tool_calls_satisfy_the_sdk(arguments: str, read: dict[str, Any]) -> None:
    """Arguments are always an object, also where the model did not write one."""
    call = ToolCallPart(id="c1", name="look", arguments=arguments)
    (block,) = whole(completed(call, finish_reason="tool_calls")).content
    assert block.type == "tool_use"
    assert (block.id, block.name, block.input) == ("c1", "look", read)


@pytest.mark.parametrize(
    ("finish_reason", "stop_reason"), [("length", "max_tokens"), ("content_filter", "refusal"), ("stop", "end_turn")]
)
def test_stop_reasons(finish_reason: FinishReason, stop_reason: str) -> None:
    """Each canonical finish reason has a stop reason."""
    assert whole(completed(finish_reason=finish_reason)).stop_reason == stop_reason


def test_a_count_satisfies_the_sdk() -> None:
    """The SDK accepts the count of tokens."""
    assert MessageTokensCount.model_validate_json(count_body(5), strict=True).input_tokens == 5


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest("no"), 400, "invalid_request_error"),
        (InvalidRequest("no", code="body_too_large"), 413, "request_too_large"),
        (InvalidRequest("no", code="model_not_found"), 404, "not_found_error"),
        (TryAgainLater("no"), 429, "rate_limit_error"),
        (Overloaded("no"), 529, "overloaded_error"),
        (ProviderError("no"), 502, "api_error"),
        (ProviderError("no", code="provider_timeout"), 504, "timeout_error"),
    ],
)
def test_errors_have_anthropics_envelope(error: TidegateError, status: int, kind: str) -> None:
    """Each family has Anthropic's error type and status, with our code in the details."""
    assert error_status(error, error.problem.status) == status
    assert json.loads(error_body(error, "call_1")) == {
        "type": "error",
        "error": {"type": kind, "message": "no", "details": {"error_code": error.code}},
        "request_id": "call_1",
    }


def test_every_family_has_a_name() -> None:
    """Each family has an error type."""
    assert {problem.family for problem in PROBLEMS.values()} <= set(ERROR_TYPES)
