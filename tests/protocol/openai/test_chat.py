import json
from typing import Any

import pytest

from protocol.errors import InvalidRequest
from protocol.llm import ImagePart, TextPart, ToolCall
from protocol.openai.chat import parse_chat


def body(**fields: Any) -> bytes:  # noqa: ANN401
    """A request's body, changed by `fields`."""
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def test_a_whole_request_becomes_canonical() -> None:
    """Each canonical field is read from OpenAI's field."""
    call = parse_chat(
        body(
            messages=[
                {"role": "developer", "content": "be brief"},
                {
                    "role": "user",
                    "name": "ann",
                    "content": [
                        {"type": "text", "text": "what is this"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
            ],
            temperature=0,
            top_p=0.5,
            max_tokens=5,
            max_completion_tokens=6,
            seed=7,
            stop="END",
            stream=True,
            stream_options={"include_usage": True},
            tools=[{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
            tool_choice={"type": "function", "function": {"name": "look"}},
        )
    )
    request = call.request
    assert (call.stream, call.include_usage) == (True, True)
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool"]
    assert request.messages[1].content == (
        TextPart(text="what is this"),
        ImagePart(url="data:image/png;base64,AA==", detail="low"),
    )
    assert request.messages[2].tool_calls == (ToolCall("c1", "look", "{}"),)
    assert request.messages[3].tool_call_id == "c1"
    assert (request.temperature, request.top_p, request.max_tokens, request.seed) == (0, 0.5, 6, 7)
    assert (request.stop, request.tool_choice, request.tools[0].name) == (("END",), "look", "look")
    assert (request.extra, request.dialect) == ({}, "openai")


def test_unknown_fields_are_kept_for_the_upstream() -> None:
    """Unknown fields are kept in ``extra`` with their values."""
    call = parse_chat(body(logit_bias={"1": 2}, user="u", thinking={"deep": [1]}))
    assert call.request.extra == {"logit_bias": {"1": 2}, "user": "u", "thinking": {"deep": [1]}}


def test_a_json_schema_format_is_the_requests_schema() -> None:
    """The schema of ``response_format`` is canonical; its name and strictness are kept in ``extra``."""
    schema = {"type": "object"}
    form = {"type": "json_schema", "json_schema": {"name": "gate", "strict": True, "schema": schema}}
    request = parse_chat(body(response_format=form)).request
    assert request.schema == schema
    assert request.extra == {
        "response_format": {"type": "json_schema", "json_schema": {"name": "gate", "strict": True}}
    }


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"messages": []}, "$.messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "$.messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": 7}]}]}, "$.messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "$.messages[0].content[0].text"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "c"}]}]}, "$.messages[0].tool_calls[0].function"),
        ({"messages": [{"content": "x"}]}, "$.messages[0].role"),
        ({"model": 7}, "$.model"),
        ({"temperature": 3}, "$.temperature"),
        ({"max_tokens": 0}, "$.max_tokens"),
        ({"n": 2}, "$.n"),
        ({"response_format": {"type": "json_schema"}}, "$.response_format.json_schema"),
    ],
)
def test_bad_input_is_named_by_its_path(change: dict[str, Any], path: str) -> None:
    """An invalid field is named by its path."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body(**change))
    assert caught.value.code == "invalid_request"
    assert [error.path for error in caught.value.errors] == [path]


@pytest.mark.parametrize("sent", [b"", b"{", b"\xff\xfe", b'{"model": "\xff"}', b"[" * 5000])
def test_a_body_that_is_not_json_is_malformed(sent: bytes) -> None:
    """A body that is not JSON is ``malformed_json``."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(sent)
    assert caught.value.code == "malformed_json"


def test_a_body_that_is_no_object_is_invalid() -> None:
    """JSON that is not an object is invalid at its root."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(b"[1]")
    assert (caught.value.code, caught.value.errors[0].path) == ("invalid_request", "$")
