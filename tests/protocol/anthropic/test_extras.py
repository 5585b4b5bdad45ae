"""Fields of an answer and of its usage that only Anthropic has: read from both forms, and written in both."""

import json
from typing import Any

import pytest
from anthropic.types import Message
from anthropic.types.beta import BetaRawMessageDeltaEvent

from protocol.anthropic.answer import MessagesEventEncoder, message_body
from protocol.anthropic.extras import MAX_BYTES
from protocol.anthropic.reader import MessagesReader
from protocol.events import Completed, Entry, Started
from protocol.llm import Extra, Usage
from protocol.upstream import Deltas

CONTAINER = {"id": "container_1", "expires_at": "2026-12-01T00:00:00Z"}
DETAILS = {"type": "refusal", "category": "cyber", "explanation": None}
EDITS = {"applied_edits": [{"type": "clear_tool_uses_20250919", "cleared_tool_uses": 1, "cleared_input_tokens": 2}]}
COUNTS = {
    "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 0},
    "service_tier": "standard",
    "cache_creation": {"ephemeral_5m_input_tokens": 1, "ephemeral_1h_input_tokens": 0},
}
OWN = {"container": CONTAINER, "stop_details": DETAILS, "context_management": EDITS}
USAGE = {"input_tokens": 7, "output_tokens": 3, "cache_read_input_tokens": 0, **COUNTS}
HEAD = {"id": "x", "type": "message", "role": "assistant", "model": "m", "content": []}
EXTRA: Extra = {"anthropic": {**OWN, "usage": COUNTS}}


def read(*events: Any) -> MessagesReader:  # noqa: ANN401
    """Read an answer."""
    reader = MessagesReader()
    for event in events:
        reader.feed(json.dumps(event).encode(), Deltas())
    return reader


def streamed(*, early: bool) -> list[Any]:
    """A stream that says it at its begin, or at its end."""
    delta: dict[str, Any] = {"stop_reason": "refusal", "stop_sequence": None}
    beside = {"context_management": EDITS}
    if early:
        start = {"type": "message_start", "message": {**HEAD, **OWN, "usage": USAGE}}
        delta |= {"container": None}
        end = {"type": "message_delta", "delta": delta, "usage": {"output_tokens": 3, "server_tool_use": None}}
    else:
        start = {"type": "message_start", "message": {**HEAD, "container": None, "usage": {"input_tokens": 7}}}
        delta |= {"container": CONTAINER, "stop_details": DETAILS}
        end = {"type": "message_delta", "delta": delta, "usage": USAGE, **beside}
    return [start, end, {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 7}}]


@pytest.mark.parametrize(
    "events",
    [streamed(early=True), streamed(early=False), [{**HEAD, **OWN, "stop_reason": "refusal", "usage": USAGE}]],
    ids=["early", "late", "whole"],
)
def test_they_are_read_wherever_they_come(events: list[Any]) -> None:
    """What both dialects have is no such field, and null is absent."""
    reader = read(*events)
    assert reader.extra == EXTRA
    assert reader.usage == Usage(input_tokens=7, output_tokens=3)


def test_a_usual_answer_has_none() -> None:
    """Nothing but what is read."""
    usage = {"input_tokens": 1, "output_tokens": 2, "output_tokens_details": {"thinking_tokens": 1}}
    assert read({**HEAD, "content": [], "stop_reason": "end_turn", "stop_sequence": None, "usage": usage}).extra == {}


def test_they_cannot_fail_an_answer() -> None:
    """Large ones are dropped, odd numbers are null."""
    odd = {**HEAD, "stop_reason": "end_turn", "container": {"id": float("nan")}, "more": "x" * MAX_BYTES, "z": 1}
    assert read(odd).extra == {"anthropic": {"container": {"id": None}}}


def test_they_are_written_where_the_vendor_has_them() -> None:
    """Whole and streamed, and the SDK finds them."""
    end = Completed(usage=Usage(input_tokens=7, output_tokens=3), finish_reason="content_filter", extra=EXTRA)
    message = Message.model_validate_json(message_body("req_1", "m", end))
    assert message.container is not None
    assert (message.container.id, message.stop_reason) == ("container_1", "refusal")
    assert message.stop_details is not None
    assert message.usage.server_tool_use is not None
    assert message.usage.server_tool_use.web_search_requests == 3
    assert (message.usage.input_tokens, message.usage.service_tier) == (7, "standard")
    encoder = MessagesEventEncoder("req_1", "m", "call_1")
    stream = encoder.encode([Entry(1, Started(model="m", created=1)), Entry(2, end)]).decode()
    data = next(line for line in stream.split("\n") if line.startswith('data: {"type":"message_delta"'))
    event = BetaRawMessageDeltaEvent.model_validate_json(data.removeprefix("data: "))
    assert event.delta.container is not None
    assert event.delta.stop_details is not None
    assert event.context_management is not None
    assert event.usage.server_tool_use is not None
    assert (event.delta.stop_reason, event.usage.output_tokens) == ("refusal", 3)
    again = read(*[json.loads(line[6:]) for line in stream.split("\n") if line.startswith("data: ")])
    assert again.extra == EXTRA
    assert end.size() > len(json.dumps(EXTRA, separators=(",", ":"))) - 1
