import json
from typing import Any

import msgspec
import pytest

from protocol.anthropic.reader import MessagesReader
from protocol.anthropic.upstream import messages_body, tool_input
from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, ToolCallDelta
from protocol.llm import ChatMessage, ChatRequest, ImagePart, ReasoningPart, TextPart, Tool, ToolCall, Usage
from protocol.parts import PartsBuilder
from protocol.upstream import Deltas


def sent(*messages: ChatMessage, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    """The body that an upstream gets."""
    body = json.loads(messages_body(ChatRequest(model="m", messages=messages, **fields), "claude"))
    assert isinstance(body, dict)
    return body


def read(*events: dict[str, Any]) -> tuple[MessagesReader, Deltas]:
    """What a reader makes of ``events``."""
    reader, pieces = MessagesReader(), Deltas()
    for event in events:
        reader.feed(json.dumps(event).encode(), pieces)
    return reader, pieces


def test_a_conversation_with_tools_and_images() -> None:
    """System texts become the system prompt, calls and results become blocks, results of one turn are joined."""
    body = sent(
        ChatMessage(role="system", content="be brief"),
        ChatMessage(
            role="user",
            content=(TextPart(text="look"), ImagePart(url="data:image/png;base64,AA=="), ImagePart(url="https://x/y")),
        ),
        ChatMessage(
            role="assistant",
            tool_calls=(ToolCall("c1", "look", '{"a":1}'), ToolCall("c2", "look", "not json")),
        ),
        ChatMessage(role="tool", tool_call_id="c1", content="one"),
        ChatMessage(role="tool", tool_call_id="c2", content="two"),
        ChatMessage(role="system", content="and kind"),
        tools=(Tool(name="look"),),
        tool_choice="required",
    )
    assert body["system"] == "be brief\n\nand kind"
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert [part.get("source") for part in body["messages"][0]["content"]] == [
        None,
        {"type": "base64", "media_type": "image/png", "data": "AA=="},
        {"type": "url", "url": "https://x/y"},
    ]
    assert [block["input"] for block in body["messages"][1]["content"]] == [{"a": 1}, {"INVALID_JSON": "not json"}]
    assert [block["tool_use_id"] for block in body["messages"][2]["content"]] == ["c1", "c2"]
    assert body["tool_choice"] == {"type": "any"}
    assert body["tools"][0]["input_schema"] == {"type": "object"}


@pytest.mark.parametrize(
    ("arguments", "sent_as"),
    [
        ('{"a": 1.50}', '{"a": 1.50}'),
        (" ", "{}"),
        ("[1]", '{"INVALID_JSON":"[1]"}'),
        ("[" * 9000, f'{{"INVALID_JSON":"{"[" * 9000}"}}'),
    ],
)
def test_arguments_are_an_object(arguments: str, sent_as: str) -> None:
    """Arguments that are an object stay unchanged; other text is sent under ``INVALID_JSON``."""
    assert msgspec.json.encode(tool_input(arguments)).decode() == sent_as


def test_options_have_the_dialects_names() -> None:
    """``max_tokens`` is always sent; fields that the dialect does not have are left out."""
    body = sent(ChatMessage(role="user", content="hi"), temperature=2, seed=1, stop=("END",), schema={"type": "object"})
    assert body["max_tokens"] == 4096
    assert body["temperature"] == 1
    assert body["stop_sequences"] == ["END"]
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert "seed" not in body


def test_extra_is_sent_to_its_own_dialect_only() -> None:
    """Extra fields of another dialect are not sent."""
    message = ChatMessage(role="user", content="hi")
    assert "top_k" not in sent(message, extra={"top_k": 3}, dialect="openai")
    assert sent(message, extra={"top_k": 3}, dialect="anthropic")["top_k"] == 3


def test_a_stream_becomes_canonical() -> None:
    """Text, reasoning, tool calls, the stop reason and all classes of tokens are read; pings are ignored."""
    reader, pieces = read(
        {
            "type": "message_start",
            "message": {
                "id": "msg_1",
                "model": "claude-x",
                "usage": {
                    "input_tokens": 5,
                    "cache_creation_input_tokens": 3,
                    "cache_read_input_tokens": 2,
                    "output_tokens": 1,
                },
            },
        },
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "tool_use", "id": "t1", "name": "look"}},
        {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": "{}"}},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_delta", "usage": {"output_tokens_details": {"thinking_tokens": 4}}},
        {"type": "message_stop"},
    )
    assert pieces == [
        ReasoningDelta(text="hm"),
        ReasoningDelta(signature="s"),
        Delta(text="Hi", part=1),
        ToolCallDelta(index=0, id="t1", name="look", part=2),
        ToolCallDelta(index=0, arguments="{}", part=2),
    ]
    assert (reader.finish_reason, reader.ended, reader.whole) == ("tool_calls", True, True)
    assert (reader.response_id, reader.model) == ("msg_1", "claude-x")
    assert reader.usage == Usage(
        input_tokens=10, output_tokens=9, cached_input_tokens=2, cache_write_input_tokens=3, reasoning_tokens=4
    )


def test_thinking_is_read() -> None:
    """Thinking is read in one block, without text, and redacted."""
    _, pieces = read(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "hm"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "s1"}},
        {"type": "content_block_start", "index": 1, "content_block": {"type": "thinking", "thinking": ""}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "signature_delta", "signature": "s2"}},
        {"type": "content_block_start", "index": 2, "content_block": {"type": "redacted_thinking", "data": "x"}},
    )
    thoughts = PartsBuilder()
    for piece in pieces:
        assert isinstance(piece, ReasoningDelta)
        thoughts.add(piece)
    assert thoughts.parts == (
        ReasoningPart(text="hm", signature="s1"),
        ReasoningPart(signature="s2"),
        ReasoningPart(signature="x", redacted=True),
    )


def test_only_signed_reasoning_is_sent() -> None:
    """Signed reasoning is sent unchanged before the calls; unsigned reasoning is left out."""
    body = sent(
        ChatMessage(
            role="assistant",
            content=(
                ReasoningPart(text="hm", signature="s"),
                ReasoningPart(signature="x", redacted=True),
                ReasoningPart(text="another vendor's"),
            ),
            tool_calls=(ToolCall("c1", "look"),),
        ),
        ChatMessage(role="assistant", content=(ReasoningPart(text="another vendor's"),)),
    )
    (turn,) = body["messages"]
    assert turn["content"] == [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "tool_use", "id": "c1", "name": "look", "input": {}},
    ]


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
        ("news to us", "other"),
    ],
)
def test_stop_reasons(stop_reason: str, finish_reason: str) -> None:
    """Each stop reason has a canonical finish reason; an unknown one is ``stop``."""
    assert read({"type": "message_delta", "delta": {"stop_reason": stop_reason}})[0].finish_reason == finish_reason


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("overloaded_error", "provider_unavailable"),
        ("rate_limit_error", "provider_rate_limited"),
        ("invalid_request_error", "provider_rejected"),
        ("authentication_error", "provider_credentials"),
        ("api_error", "provider_error"),
    ],
)
def test_an_in_band_error_is_a_failure(kind: str, code: str) -> None:
    """An error event raises the code of its type; the caller sees its text where the request is at fault."""
    with pytest.raises(ProviderError) as caught:
        read({"type": "error", "error": {"type": kind, "message": "secret"}})
    assert caught.value.code == code
    assert ("secret" in caught.value.detail) == (code == "provider_rejected")


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"type": 1}', b"\xff", b"[" * 5000])
def test_garbage_is_a_bad_response(data: bytes) -> None:
    """Data that is not an event is ``provider_bad_response``."""
    with pytest.raises(ProviderError) as caught:
        MessagesReader().feed(data, [])
    assert caught.value.code == "provider_bad_response"
