import json
from typing import Any

import msgspec
import pytest
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from pydantic import TypeAdapter

from protocol.anthropic.answer import (
    ERROR_TYPES,
    PING_EVENT,
    EventEncoder,
    count_body,
    error_body,
    error_status,
    message_body,
)
from protocol.anthropic.upstream import MessagesReader
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
    Started,
    ToolCallDelta,
)
from protocol.llm import FinishReason, ReasoningPart, Usage
from protocol.upstream import Pieces

USAGE = Usage(input_tokens=7, output_tokens=3, cached_input_tokens=2, reasoning_tokens=1)
STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
STARTED = Started(model="m", created=1)


def encoder() -> EventEncoder:
    """A stream of a client that has seen nothing."""
    return EventEncoder("req_1", "m", "call_1")


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


def completed(result: object = None, finish_reason: FinishReason = "stop") -> Completed:
    """The end of a good answer."""
    raw = {"text": "Hello"} if result is None else result
    return Completed(result=msgspec.Raw(msgspec.json.encode(raw)), usage=USAGE, finish_reason=finish_reason)


def whole(end: Completed, *, structured: bool = False) -> Message:
    """A whole answer as the SDK reads it."""
    return Message.model_validate_json(message_body("req_1", "m", end, structured=structured), strict=True)


def test_a_streams_events_satisfy_the_sdk() -> None:
    """Start, a block for the text and one for each call, the reason with the usage, and the end, in this order."""
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


def test_our_own_reader_understands_it() -> None:
    """What this side of the dialect writes, the other side reads: a gateway behind a gateway loses nothing."""
    content: Pieces = [
        ReasoningDelta(text="h"),
        ReasoningDelta(text="m"),
        ReasoningDelta(signature="s"),
        ReasoningDelta(signature="x", redacted=True),
        ReasoningDelta(signature="s2"),
        Delta(text="Hé"),
        ToolCallDelta(index=0, id="c1", name="look"),
        ToolCallDelta(index=0, arguments="{}"),
        Delta(text="!"),
    ]
    reader, pieces = MessagesReader(), Pieces()
    for event in events(encoder().encode(log(STARTED, *content, completed(finish_reason="length")))):
        reader.feed(json.dumps(event).encode(), pieces)
    assert pieces == content
    assert (reader.finish_reason, reader.ended, reader.response_id) == ("length", True, "msg_req_1")
    assert reader.usage == Usage(input_tokens=7, output_tokens=3, cached_input_tokens=2, reasoning_tokens=1)


def test_thoughts_are_blocks_with_their_signatures() -> None:
    """Streamed and whole, the SDK sees the same thoughts before the text."""
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
    message = whole(msgspec.structs.replace(completed(), reasoning=thoughts))
    assert [block.model_dump() for block in message.content][:2] == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
    ]


def test_calls_whose_pieces_are_mixed_are_put_together_by_their_index() -> None:
    """A late piece is still its own call's."""
    stream = encoder().encode(
        log(
            ToolCallDelta(index=0, id="c1", name="look", arguments="{"),
            ToolCallDelta(index=1, id="c2", name="look", arguments="{"),
            ToolCallDelta(index=0, arguments="}"),
            ToolCallDelta(index=1, arguments="}"),
        )
    )
    said = {0: "", 1: ""}
    for event in events(stream):
        if event["type"] == "content_block_delta":
            said[event["index"]] += event["delta"]["partial_json"]
    assert said == {0: "{}", 1: "{}"}


def test_nothing_is_sent_before_the_first_content() -> None:
    """The first entry alone gives no bytes, so that a failure can still be an HTTP error; nor does a boundary."""
    boundary = AttemptFailed(provider="p", model="m", code="provider_error")
    assert encoder().encode(log(STARTED, boundary)) == b""


def test_an_answer_without_content_is_whole_all_the_same() -> None:
    """It starts and it ends."""
    assert kinds(encoder().encode(log(STARTED, completed()))) == ["message_start", "message_delta", "message_stop"]


def test_clients_of_one_log_share_the_tails() -> None:
    """A delta is encoded once; only what stands before it differs."""
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
    """In mid-stream a failure is an error event that names the call, and nothing follows it."""
    last = events(encoder().encode(log(Delta(text="a"), event)))[-1]
    assert (last["type"], last["request_id"]) == ("error", "call_1")
    assert (last["error"]["type"], last["error"]["details"]["error_code"]) == (kind, code)


def test_a_ping_is_an_event() -> None:
    """By its name, as the vendor sends it."""
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
@pytest.mark.parametrize("structured", [True, False])
def test_tool_calls_satisfy_the_sdk(arguments: str, read: dict[str, Any], structured: bool) -> None:
    """Arguments are an object, also where the model has not written one; a schema does not change that."""
    result = {"text": "", "toolCalls": [{"id": "c1", "name": "look", "arguments": arguments}]}
    (block,) = whole(completed(result, "tool_calls"), structured=structured).content
    assert block.type == "tool_use"
    assert (block.id, block.name, block.input) == ("c1", "look", read)


def test_a_structured_answer_is_its_json() -> None:
    """With a schema the text is the validated JSON, also where that looks like a plain answer."""
    for result in ({"isFoodRelated": True}, {"text": "x"}):
        (block,) = whole(completed(result), structured=True).content
        assert block.type == "text"
        assert json.loads(block.text) == result


@pytest.mark.parametrize(
    ("finish_reason", "stop_reason"), [("length", "max_tokens"), ("content_filter", "refusal"), ("stop", "end_turn")]
)
def test_stop_reasons(finish_reason: FinishReason, stop_reason: str) -> None:
    """Each canonical reason has one of the dialect's."""
    assert whole(completed(finish_reason=finish_reason)).stop_reason == stop_reason


def test_a_count_satisfies_the_sdk() -> None:
    """It is one number."""
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
def test_errors_wear_anthropics_envelope(error: TidegateError, status: int, kind: str) -> None:
    """Each family has the vendor's name and status, and the code is ours."""
    assert error_status(error, error.problem.status) == status
    assert json.loads(error_body(error, "call_1")) == {
        "type": "error",
        "error": {"type": kind, "message": "no", "details": {"error_code": error.code}},
        "request_id": "call_1",
    }


def test_every_family_has_a_name() -> None:
    """Whatever can fail can be said."""
    assert {problem.family for problem in PROBLEMS.values()} <= set(ERROR_TYPES)
