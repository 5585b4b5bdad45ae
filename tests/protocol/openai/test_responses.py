"""OpenAI's responses dialect: bodies of calls, responses, and numbered events."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from actors.requests.record import RequestRecord
from actors.requests.run import Run
from actors.requests.stream import RequestStream
from protocol.errors import InvalidRequest
from protocol.events import (
    AttemptFailed,
    Cancelled,
    Completed,
    Delta,
    Event,
    Failed,
    ReasoningDelta,
    Started,
    ToolCallDelta,
)
from protocol.llm import (
    AnswerPart,
    ChatMessage,
    ChatRequest,
    ImagePart,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCall,
    ToolCallPart,
    Usage,
    parts_of,
)
from protocol.openai.responses import parse_response
from protocol.openai.responses_answer import history_of, response_of
from protocol.openai.responses_events import NO_EVENT, ResponseEventEncoder
from protocol.requests import Delivery, Submit

STARTED = Started(model="m", created=1)
CALL = ToolCallPart(id="c1", name="look", arguments='{"at": 1}')
PIECES = (
    ToolCallDelta(index=0, id="c1", name="look"),
    ToolCallDelta(index=0, arguments='{"at"'),
    ToolCallDelta(index=0, arguments=": 1}"),
)
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def body(**fields: Any) -> bytes:  # noqa: ANN401
    """A call's body, changed by `fields`."""
    return json.dumps({"model": "m", "input": "hi", **fields}).encode()


def ended(*parts: AnswerPart, **fields: Any) -> Completed:  # noqa: ANN401
    """The end of a good answer; a text by default."""
    return Completed(parts=parts or (TextPart(text="Hello"),), usage=Usage(input_tokens=7, output_tokens=3), **fields)


def record(*events: Event, request: ChatRequest | None = None, **echo: Any) -> RequestRecord:  # noqa: ANN401
    """A request with these events in its log."""
    delivery = Delivery(echo=echo, metadata={"k": "v"})
    asked = request or ChatRequest(model="m", messages=(ChatMessage(role="user", content="hi"),))
    run = Run("req_1", Submit(request=asked, delivery=delivery))
    log = run.log
    stream = RequestStream("req_1", log)
    kept = RequestRecord(
        request_id=stream.request_id,
        tenant="",
        trace_id="",
        delivery=delivery,
        source="upstream",
        run=run,
        stream=stream,
    )
    for event in events:
        log.append(event)
    kept.created, log.changed = 1.0, 2.0
    return kept


def frames(data: bytes) -> list[Any]:
    """The events of a stream, each validated by the SDK's model."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        kind, line = block.split("\n")
        event = json.loads(line.removeprefix("data: "))
        assert kind == f"event: {event['type']}"
        EVENTS.validate_python(event)
        found.append(event)
    return found


def events_of(handle: RequestRecord, after: int = NO_EVENT) -> list[Any]:
    """The events after number `after`, as a reader gets them."""
    encoder = ResponseEventEncoder(handle, after=after)
    return frames(encoder.encode(handle.stream.since(0)))


def test_a_whole_call_becomes_canonical() -> None:
    """Each canonical field is read from this dialect's field."""
    call = parse_response(
        body(
            instructions="be brief",
            input=[
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "what is this"},
                        {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
                    ],
                },
                {"type": "reasoning", "id": "rs_1", "summary": []},
                {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "let me see"}]},
                {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
                {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "a cat"},
            ],
            temperature=0,
            top_p=0.5,
            max_output_tokens=6,
            seed=7,
            tools=[{"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True}],
            tool_choice={"type": "function", "name": "look"},
            metadata={"a": "b"},
            stream=True,
        )
    )
    request = call.request
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool"]
    assert request.messages[1].content == (
        TextPart(text="what is this"),
        ImagePart(url="data:image/png;base64,AA==", detail="low"),
    )
    assert request.messages[2] == ChatMessage(
        role="assistant",
        content="let me see",
        tool_calls=(ToolCall("c1", "look", "{}"), ToolCall("c2", "look", "{}")),
    )
    assert (request.messages[3].tool_call_id, request.messages[3].content) == ("c1", "a cat")
    assert (request.temperature, request.top_p, request.max_tokens, request.seed) == (0, 0.5, 6, 7)
    assert (request.tools[0].name, request.tool_choice) == ("look", "look")
    assert (call.stream, call.background, call.metadata) == (True, False, {"a": "b"})
    assert (request.extra, request.dialect) == ({}, "openai")


def test_fields_that_chat_names_otherwise() -> None:
    """Effort, verbosity and format get the chat dialect's names; unknown fields are kept, hosted ones are not."""
    text = {"format": {"type": "json_schema", "name": "gate", "strict": True, "schema": {"type": "object"}}}
    call = parse_response(
        body(
            text={**text, "verbosity": "low"},
            reasoning={"effort": "low", "summary": "auto"},
            user="u",
            include=["reasoning.encrypted_content"],
            truncation="auto",
        )
    )
    assert call.request.schema == {"type": "object"}
    assert call.request.extra == {
        "response_format": {"type": "json_schema", "json_schema": {"name": "gate", "strict": True}},
        "verbosity": "low",
        "reasoning_effort": "low",
        "user": "u",
    }
    assert call.echo["text"] == {**text, "verbosity": "low"}
    loose = parse_response(body(text={"format": {"type": "json_object"}})).request
    assert loose.extra == {"response_format": {"type": "json_object"}}


def test_one_text_in_two_notations_is_one_request() -> None:
    """A text as a string and as a part gives the same canonical request."""
    parts = [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]
    assert parse_response(body(input=parts)).request == parse_response(body()).request


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"input": []}, "$.input"),
        ({"input": [{"role": "king", "content": "x"}]}, "$.input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "input_video"}]}]}, "$.input[0].content[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "$.input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "image_url"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "$.input[0].type"),
        ({"model": 7}, "$.model"),
        ({"tools": [{"type": "web_search"}]}, "$.tools[0].type"),
        ({"tool_choice": {"type": "web_search"}}, "$.tool_choice"),
        ({"conversation": "conv_1"}, "$.conversation"),
        ({"prompt": {"id": "p"}}, "$.prompt"),
        ({"background": True, "store": False}, "$.store"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "$.text.format.schema"),
    ],
)
def test_bad_input_is_named_by_its_path(change: dict[str, Any], path: str) -> None:
    """An invalid field is named by its path, and so is a feature of the vendor that is not supported."""
    with pytest.raises(InvalidRequest) as caught:
        parse_response(body(**change))
    assert caught.value.errors[0].path.endswith(path)


@pytest.mark.parametrize("data", [b"", b"[", b"\xff"])
def test_a_body_that_is_no_json_is_malformed(data: bytes) -> None:
    """A body that is not JSON is ``malformed_json``."""
    with pytest.raises(InvalidRequest) as caught:
        parse_response(data)
    assert caught.value.code == "malformed_json"


def test_a_response_repeats_the_call() -> None:
    """A response repeats the canonical fields, the metadata and this dialect's own fields."""
    request = ChatRequest(
        model="m",
        messages=(ChatMessage(role="system", content="be brief"), ChatMessage(role="user", content="hi")),
        tools=(Tool(name="look", parameters={"type": "object"}),),
        tool_choice="look",
        temperature=0.5,
        max_tokens=9,
    )
    handle = record(STARTED, Delta(text="Hello"), ended(), request=request, instructions="be brief")
    response = response_of(handle)
    assert Response.model_validate(response).output_text == "Hello"
    assert (response["id"], response["status"], response["instructions"]) == ("resp_req_1", "completed", "be brief")
    assert (response["temperature"], response["max_output_tokens"], response["metadata"]) == (0.5, 9, {"k": "v"})
    assert response["tool_choice"] == {"type": "function", "name": "look"}
    assert (response["tools"][0]["name"], response["usage"]["total_tokens"]) == ("look", 10)


@pytest.mark.parametrize(
    ("events", "status", "output"),
    [
        ((STARTED,), "in_progress", []),
        ((STARTED, Delta(text="Hel")), "in_progress", ["Hel"]),
        ((STARTED, Delta(text="Hel"), Cancelled()), "cancelled", ["Hel"]),
        ((STARTED, Failed(code="provider_error", message="it fell over")), "failed", []),
        ((STARTED, Delta(text="Hello"), ended(finish_reason="length")), "incomplete", ["Hello"]),
        ((STARTED, Delta(text="Hello"), ended()), "completed", ["Hello"]),
    ],
)
def test_a_response_has_a_status_at_any_time(events: Sequence[Event], status: str, output: list[str]) -> None:
    """A response has a status and its output so far in every state."""
    response = response_of(record(*events))
    Response.model_validate(response)
    assert response["status"] == status
    assert [item["content"][0]["text"] for item in response["output"]] == output


def test_a_response_in_the_background_is_queued_first() -> None:
    """A response in the background is ``queued`` until the first event of the provider."""
    assert response_of(record(STARTED, background=True))["status"] == "queued"
    assert response_of(record(STARTED, Delta(text="x"), background=True))["status"] == "in_progress"


@pytest.mark.parametrize(
    ("code", "vendors"),
    [
        ("provider_rate_limited", "rate_limit_exceeded"),
        ("provider_rejected", "invalid_prompt"),
        ("schema_mismatch", "server_error"),
    ],
)
def test_a_failure_has_the_vendors_code_and_ours(code: str, vendors: str) -> None:
    """A failure has one of the vendor's codes, and our code as its type."""
    response = response_of(record(STARTED, Failed(code=code, message="why")))
    assert response["error"] == {"code": vendors, "message": "why", "type": code}


def test_the_events_of_a_text() -> None:
    """A text has the events of the response, its item and its part, with contiguous numbers."""
    events = events_of(record(STARTED, Delta(text="Hel"), Delta(text="lo"), ended()))
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(10))
    assert (events[6]["text"], events[-1]["response"]["output"]) == ("Hello", [events[8]["item"]])


def test_the_events_of_a_text_and_a_call() -> None:
    """Each item has its own index in order of its start; the last event has the items of the retrieved response."""
    handle = record(STARTED, Delta(text="so"), *PIECES, ended(TextPart(text="so"), CALL, finish_reason="tool_calls"))
    events = events_of(handle)
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[5:11] == [
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        *["function_call_arguments.delta"] * 2,
    ]
    assert kinds[-3:] == ["function_call_arguments.done", "output_item.done", "completed"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-3]["arguments"] == CALL.arguments
    assert events[-1]["response"] == response_of(handle)


@pytest.mark.parametrize("end", [Cancelled(), Failed(code="provider_error", message="it fell over")])
def test_an_answer_that_breaks_off_ends_with_a_failed_response(end: Event) -> None:
    """After a boundary the response is in progress; the failure has the output so far."""
    broken = AttemptFailed(provider="p", model="m", code="provider_error")
    events = events_of(record(STARTED, Delta(text="Hel"), broken, end))
    assert [event["type"] for event in events[-2:]] == ["response.in_progress", "response.failed"]
    last = events[-1]["response"]
    assert (last["status"], last["output"][0]["status"]) == (
        "cancelled" if isinstance(end, Cancelled) else "failed",
        "incomplete",
    )


LOG: tuple[Event, ...] = (
    STARTED,
    *(Delta(text=f"{number} ") for number in range(20)),
    *PIECES,
    AttemptFailed(provider="p", model="m", code="provider_error"),
    ended(TextPart(text="".join(f"{number} " for number in range(20))), CALL, finish_reason="tool_calls"),
)

THOUGHT: tuple[Event, ...] = (
    STARTED,
    *(ReasoningDelta(text=f"{number} ") for number in range(7)),
    ReasoningDelta(signature="s"),
    *(Delta(text=f"{number} ") for number in range(7)),
    ended(
        ReasoningPart(text="".join(f"{number} " for number in range(7)), signature="s"),
        TextPart(text="".join(f"{number} " for number in range(7))),
    ),
)


def test_the_events_of_a_thought() -> None:
    """Reasoning is an item of its own, before the message."""
    events = events_of(record(*THOUGHT))
    assert [event["type"].removeprefix("response.") for event in events if event.get("output_index") == 0] == [
        "output_item.added",
        "content_part.added",
        *["reasoning_text.delta"] * 7,
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
    ]
    reasoning, message = events[-1]["response"]["output"]
    assert (reasoning["id"], reasoning["summary"], message["type"]) == ("rs_req_1", [], "message")
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "0 1 2 3 4 5 6 "}]
    assert response_of(record(*THOUGHT))["output"][0] == reasoning
    assert response_of(record(*THOUGHT[:4]))["output"][0]["content"][0]["text"] == "0 1 2 "


@pytest.mark.parametrize("log", [LOG, THOUGHT])
def test_every_reader_gets_the_same_events(log: tuple[Event, ...]) -> None:
    """A late reader, a resumed reader and a reader entry by entry get the same events."""
    handle = record(*log)
    everything = events_of(handle)
    encoder = ResponseEventEncoder(handle)
    piecemeal = b"".join(encoder.encode([entry]) for entry in handle.stream.since(0))
    assert frames(piecemeal) == everything
    for after in range(NO_EVENT, len(everything)):
        assert events_of(handle, after) == everything[after + 1 :]


def test_the_first_events_can_wait_for_content() -> None:
    """Held events are sent with the first content, so that a failure before it can be an HTTP error."""
    handle = record(STARTED, Delta(text="Hello"), ended())
    entries = handle.stream.since(0)
    encoder = ResponseEventEncoder(handle, held=True)
    assert encoder.encode(entries[:1]) == b""
    assert frames(encoder.encode(entries[1:])) == events_of(handle)


def test_the_history_has_no_instructions() -> None:
    """The history of a response has its answer and not its instructions."""
    request = parse_response(body(instructions="be brief")).request
    handle = record(STARTED, ended(TextPart(text="Hello"), CALL), request=request, instructions="be brief")
    history = history_of(handle)
    assert [message.role for message in history] == ["user", "assistant"]
    assert (history[1].content, [call.id for call in history[1].tool_calls]) == ("Hello", ["c1"])
    following = parse_response(body(instructions="be long", input="and now?")).after(history)
    assert [message.content for message in following.messages] == ["be long", "hi", "Hello", "and now?"]


def test_the_history_has_the_parts_in_their_order() -> None:
    """Calls behind all other parts are the message's calls; others stay in their place."""
    thought = ReasoningPart(text="hm", signature="s")
    turn = history_of(record(STARTED, ended(thought, CALL)))[-1]
    assert (turn.content, [call.id for call in turn.tool_calls]) == ((thought,), ["c1"])
    mixed = (thought, CALL, thought, TextPart(text="so"))
    assert history_of(record(STARTED, ended(*mixed)))[-1] == ChatMessage(role="assistant", content=mixed)
    assert parts_of(turn) == (thought, CALL)


@pytest.mark.parametrize("events", [(STARTED,), (STARTED, Cancelled())])
def test_a_response_without_an_answer_has_no_history(events: Sequence[Event]) -> None:
    """A response without a complete answer is refused as ``previous_response_id``, with its status."""
    with pytest.raises(InvalidRequest, match=r"in_progress|cancelled"):
        history_of(record(*events))
