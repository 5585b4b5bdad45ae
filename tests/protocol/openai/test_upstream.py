import json
from typing import Any

import pytest

from protocol.errors import ProviderError
from protocol.events import Delta, ReasoningDelta, ToolCallDelta
from protocol.llm import ChatMessage, ChatRequest, ImagePart, ReasoningPart, TextPart, Tool, ToolCall, Usage
from protocol.openai.chat import parse_chat
from protocol.openai.reader import ChatReader
from protocol.openai.upstream import chat_body
from protocol.upstream import Deltas

CLOSED = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}


def sent(request: ChatRequest, **options: Any) -> dict[str, Any]:  # noqa: ANN401
    """The body that an upstream gets."""
    body = json.loads(chat_body(request, "upstream-model", **options))
    assert isinstance(body, dict)
    return body


def read(*chunks: Any) -> tuple[ChatReader, Deltas]:  # noqa: ANN401
    """What a reader makes of ``chunks``."""
    reader, pieces = ChatReader(), Deltas()
    for chunk in chunks:
        reader.feed(chunk if isinstance(chunk, bytes) else json.dumps(chunk).encode(), pieces)
    return reader, pieces


def test_what_a_client_sends_reaches_the_upstream() -> None:
    """A request of this dialect is unchanged by the canonical model."""
    original: dict[str, Any] = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
        ],
        "tools": [
            {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
        ],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "gate", "strict": False, "schema": {"type": "object"}},
        },
        "temperature": 0.0,
        "top_p": 0.5,
        "max_tokens": 6,
        "seed": 7,
        "stop": ["END"],
        "logit_bias": {"1": 2},
    }
    body = sent(parse_chat(json.dumps(original).encode()).request)
    streamed = {"model": "upstream-model", "stream": True, "stream_options": {"include_usage": True}}
    assert body == original | streamed


def test_extra_of_another_dialect_is_not_sent() -> None:
    """Extra fields of another dialect are not sent."""
    request = ChatRequest(model="m", messages=(ChatMessage(role="user", content="x"),), extra={"top_k": 1})
    assert "top_k" not in sent(request)


def test_the_token_limit_has_the_upstreams_name() -> None:
    """The token limit has the upstream's name; the default is used only where the request has none."""
    request = ChatRequest(model="m", messages=(ChatMessage(role="user", content="x"),))
    assert "max_tokens" not in sent(request)
    assert sent(request, tokens_field="max_completion_tokens", max_tokens=5)["max_completion_tokens"] == 5


def test_native_parts_and_tools() -> None:
    """A native request is encoded in this dialect."""
    request = ChatRequest(
        model="m",
        messages=(
            ChatMessage(role="user", content=(TextPart(text="a"), ImagePart(url="https://x/y"))),
            ChatMessage(role="assistant", content="b", tool_calls=(ToolCall("c", "n"),)),
        ),
        tools=(Tool(name="n", parameters={"type": "object"}),),
        tool_choice="required",
        schema=CLOSED,
    )
    body = sent(request)
    assert body["messages"][0]["content"][1] == {"type": "image_url", "image_url": {"url": "https://x/y"}}
    assert body["messages"][1]["content"] == "b"
    assert body["tool_choice"] == "required"
    assert body["response_format"]["json_schema"] == {"name": "answer", "strict": True, "schema": CLOSED}


LOOSE: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "string"}}}
NULLABLE = {**CLOSED, "properties": {"a": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}
FREE = {"type": "object", "additionalProperties": {"type": "string"}}


@pytest.mark.parametrize(
    ("schema", "options", "sent_as"),
    [
        (CLOSED, None, {"strict": True, "schema": CLOSED}),
        (LOOSE, None, {"strict": True, "schema": NULLABLE}),
        (FREE, None, {"strict": False, "schema": FREE}),
        (LOOSE, {"name": "n", "strict": True}, {"name": "n", "strict": True, "schema": NULLABLE}),
        (FREE, {"name": "n", "strict": True}, {"name": "n", "strict": False, "schema": FREE}),
        (LOOSE, {"name": "n", "strict": False}, {"name": "n", "strict": False, "schema": LOOSE}),
        (LOOSE, {"name": "n"}, {"name": "n", "schema": LOOSE}),
    ],
)
def test_a_schema_is_strict_where_that_fits(
    schema: dict[str, Any], options: dict[str, Any] | None, sent_as: dict[str, Any]
) -> None:
    """A schema is converted to the strict form, unless a client of this dialect did not ask for it."""
    extra = {} if options is None else {"response_format": {"type": "json_schema", "json_schema": options}}
    message = ChatMessage(role="user", content="hi")
    request = ChatRequest(model="m", messages=(message,), schema=schema, extra=extra, dialect="openai")
    assert sent(request)["response_format"]["json_schema"] == {"name": "answer", **sent_as}


def test_a_stream_becomes_canonical() -> None:
    """Text, calls, the finish reason, usage and the end marker are read; unknown fields are ignored."""
    reader, pieces = read(
        {"id": "c-1", "model": "m-2", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
        {"choices": [{"index": 0, "delta": {"content": "Hi"}, "news": 1}], "usage": None},
        {"choices": [{"index": 1, "delta": {"content": "another choice"}}]},
        {
            "choices": [
                {
                    "index": 0,
                    "delta": {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "n"}}]},
                }
            ]
        },
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
        {
            "choices": [],
            "usage": {
                "prompt_tokens": 7,
                "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 3},
                "completion_tokens_details": {"reasoning_tokens": 1},
            },
        },
        b"[DONE]",
    )
    assert pieces == [Delta(text="Hi"), ToolCallDelta(index=0, id="c", name="n", arguments="{}", part=1)]
    assert (reader.response_id, reader.model, reader.finish_reason) == ("c-1", "m-2", "tool_calls")
    assert (reader.whole, reader.ended) == (True, True)
    assert reader.usage == Usage(
        input_tokens=7, output_tokens=3, cached_input_tokens=2, reasoning_tokens=1, cache_write_input_tokens=3
    )


@pytest.mark.parametrize(
    "delta",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"reasoning": "hm", "reasoning_content": "hm", "content": None},
        {"reasoning": {"a": 1}, "reasoning_content": "hm"},
    ],
)
def test_reasoning_is_read_under_either_name(delta: dict[str, Any]) -> None:
    """Reasoning is read once, under either name."""
    _, pieces = read({"choices": [{"delta": delta}]}, {"choices": [{"delta": {"reasoning": {"a": 1}}}]})
    assert pieces == [ReasoningDelta(text="hm")]


def test_unsigned_reasoning_is_sent() -> None:
    """Unsigned reasoning is sent; signed reasoning, and a message with nothing else, is left out."""
    signed = ReasoningPart(text="hm", signature="s")
    own = ReasoningPart(text="so")
    call = ToolCall("c", "look")
    body = sent(
        ChatRequest(
            model="m",
            messages=(
                ChatMessage(role="assistant", content=(own, TextPart(text="Hi"))),
                ChatMessage(role="assistant", content=(own, signed), tool_calls=(call,)),
                ChatMessage(role="assistant", content=(signed,)),
                ChatMessage(role="assistant", content=(signed, TextPart(text="He"), TextPart(text="y"))),
            ),
        )
    )
    calls = [{"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}]
    assert body["messages"] == [
        {"role": "assistant", "reasoning_content": "so", "content": "Hi"},
        {"role": "assistant", "reasoning_content": "so", "content": None, "tool_calls": calls},
        {"role": "assistant", "content": "Hey"},
    ]


@pytest.mark.parametrize("data", [b"{", b"[]", b"\xff", b'{"choices": 1}', b"[" * 5000])
def test_garbage_is_a_bad_response(data: bytes) -> None:
    """Data that is not a chunk is ``provider_bad_response``."""
    with pytest.raises(ProviderError) as caught:
        read(data)
    assert caught.value.code == "provider_bad_response"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ({"type": "rate_limit_error"}, "provider_rate_limited"),
        ({"code": 429}, "provider_rate_limited"),
        ({"code": "insufficient_quota"}, "provider_billing"),
        ({"type": "invalid_request_error"}, "provider_rejected"),
        ({"code": 503}, "provider_unavailable"),
        ({"code": "401"}, "provider_credentials"),
        ({"type": "server_error"}, "provider_error"),
        ({}, "provider_error"),
        ("a text", "provider_error"),
    ],
)
def test_an_in_band_error_is_a_failure(error: object, code: str) -> None:
    """An error in the stream raises a code, without its text."""
    with pytest.raises(ProviderError) as caught:
        read({"error": error})
    assert caught.value.code == code
