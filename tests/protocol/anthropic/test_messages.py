import json
from typing import Any

import pytest

from protocol.anthropic.messages import parse_count, parse_messages
from protocol.anthropic.upstream import messages_body
from protocol.errors import InvalidRequest
from protocol.llm import ChatMessage, ChatRequest, ImagePart, ReasoningPart, TextPart, Tool, ToolCall
from protocol.openai.chat import parse_chat
from protocol.openai.upstream import chat_body

HI: list[dict[str, Any]] = [{"role": "user", "content": "hi"}]
LOOK: dict[str, Any] = {"name": "look", "description": "looks", "input_schema": {"type": "object"}}
SCHEMA: dict[str, Any] = {"type": "object", "properties": {"a": {"type": "integer"}}}


def body(**fields: Any) -> bytes:  # noqa: ANN401
    """A request's body, changed by `fields`."""
    return json.dumps({"model": "m", "max_tokens": 9, "messages": HI, **fields}).encode()


def canonical(*turns: dict[str, Any]) -> tuple[ChatMessage, ...]:
    """The canonical messages of `turns`."""
    return parse_messages(body(messages=turns)).request.messages


def refused(sent: bytes) -> InvalidRequest:
    """How a body is refused."""
    with pytest.raises(InvalidRequest) as caught:
        parse_messages(sent)
    return caught.value


def test_options_become_canonical() -> None:
    """Each canonical field is read from Anthropic's field."""
    call = parse_messages(
        body(
            system="be brief",
            temperature=0.5,
            top_p=0.25,
            stop_sequences=["END"],
            stream=True,
            tools=[LOOK],
            tool_choice={"type": "tool", "name": "look"},
            output_config={"format": {"type": "json_schema", "schema": SCHEMA}},
        )
    )
    assert call.stream
    assert call.request == ChatRequest(
        model="m",
        messages=(ChatMessage(role="system", content="be brief"), ChatMessage(role="user", content="hi")),
        schema=SCHEMA,
        tools=(Tool(name="look", description="looks", parameters={"type": "object"}),),
        tool_choice="look",
        temperature=0.5,
        top_p=0.25,
        max_tokens=9,
        stop=("END",),
        dialect="anthropic",
    )


@pytest.mark.parametrize(
    ("system", "content"),
    [
        ([{"type": "text", "text": "be brief"}], "be brief"),
        (
            [{"type": "text", "text": "a"}, {"type": "text", "text": "b", "cache_control": None}],
            (TextPart(text="a"), TextPart(text="b")),
        ),
    ],
)
def test_a_system_text_may_come_in_blocks(system: object, content: str | tuple[TextPart, ...]) -> None:
    """System blocks become one system message before the others; several stay apart."""
    request = parse_messages(body(system=system)).request
    assert request.messages[0] == ChatMessage(role="system", content=content)
    sent = "be brief" if isinstance(content, str) else [{"type": "text", "text": part.text} for part in content]
    assert json.loads(messages_body(request, "claude"))["system"] == sent
    theirs = "be brief" if isinstance(content, str) else "a\n\nb"
    assert json.loads(chat_body(request, "gpt"))["messages"][0] == {"role": "system", "content": theirs}


def test_a_system_message_may_stand_among_the_turns() -> None:
    """A message with the role ``system`` stays at its place."""
    assert canonical(*HI, {"role": "system", "content": "now"})[1] == ChatMessage(role="system", content="now")


@pytest.mark.parametrize(
    ("choice", "canonical"), [({"type": "auto"}, "auto"), ({"type": "any"}, "required"), ({"type": "none"}, "none")]
)
def test_choices_of_tools(choice: dict[str, Any], canonical: str) -> None:
    """Each tool choice has a canonical one."""
    assert parse_messages(body(tools=[LOOK], tool_choice=choice)).request.tool_choice == canonical


def test_a_conversation_with_tools_and_images() -> None:
    """Arguments of calls stay unchanged; tool results become messages of their own before the rest."""
    assert canonical(
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "what is this"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                {"type": "image", "source": {"type": "url", "url": "https://x/y"}},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "text", "text": "let me "},
                {"type": "text", "text": "see"},
                {"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 1e2}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "here"},
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "a cat"}]},
                {"type": "tool_result", "tool_use_id": "t2"},
            ],
        },
        {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]},
    ) == (
        ChatMessage(
            role="user",
            content=(
                TextPart(text="what is this"),
                ImagePart(url="data:image/png;base64,AA=="),
                ImagePart(url="https://x/y"),
            ),
        ),
        ChatMessage(
            role="assistant",
            content=(ReasoningPart(text="hm", signature="s"), TextPart(text="let me "), TextPart(text="see")),
            tool_calls=(ToolCall("t1", "look", '{"at": 100.0}'),),
        ),
        ChatMessage(role="tool", tool_call_id="t1", content="a cat"),
        ChatMessage(role="tool", tool_call_id="t2"),
        ChatMessage(role="user", content="here"),
        ChatMessage(role="assistant", content=(ReasoningPart(signature="x", redacted=True),)),
    )


def test_an_image_may_be_a_tools_result() -> None:
    """An image stays a part of the tool message."""
    image = {"type": "image", "source": {"type": "url", "url": "https://x/y"}}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [image]}
    (message,) = canonical({"role": "user", "content": [result]})
    assert message.content == (ImagePart(url="https://x/y"),)


def test_unknown_fields_are_kept_for_the_upstream() -> None:
    """Unknown fields, also inside known ones, are kept in ``extra`` and sent to Anthropic upstreams."""
    request = parse_messages(
        body(
            top_k=3,
            metadata={"user_id": "u"},
            tools=[LOOK],
            tool_choice={"type": "auto", "disable_parallel_tool_use": True},
            output_config={"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}},
        )
    ).request
    assert request.extra == {
        "top_k": 3,
        "metadata": {"user_id": "u"},
        "tool_choice": {"disable_parallel_tool_use": True},
        "output_config": {"effort": "low"},
    }
    sent = json.loads(messages_body(request, "claude"))
    assert (sent["top_k"], sent["metadata"]) == (3, {"user_id": "u"})
    assert sent["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    closed = {**SCHEMA, "additionalProperties": False}
    assert sent["output_config"] == {"effort": "low", "format": {"type": "json_schema", "schema": closed}}
    assert "top_k" not in json.loads(chat_body(request, "gpt"))


def test_an_anthropic_upstream_gets_the_conversation_unchanged() -> None:
    """An Anthropic upstream gets the conversation as the client sent it."""
    turns = [
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "look", "input": {"at": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "a cat"}]},
    ]
    sent = json.loads(messages_body(parse_messages(body(messages=turns, system="be brief")).request, "claude"))
    assert (sent["messages"], sent["system"], sent["max_tokens"]) == (turns, "be brief", 9)


def test_both_dialects_mean_the_same() -> None:
    """The same question in both dialects gives the same canonical request but for ``dialect``."""
    ours = json.loads(chat_body(parse_messages(body(system="be brief")).request, "gpt"))
    messages = [{"role": "system", "content": "be brief"}, *HI]
    theirs = json.dumps({"model": "m", "max_tokens": 9, "messages": messages}).encode()
    assert ours == json.loads(chat_body(parse_chat(theirs).request, "gpt"))


def test_a_count_needs_no_bound() -> None:
    """The body of a count has no ``max_tokens``."""
    request = parse_count(json.dumps({"model": "m", "messages": HI, "system": "be brief", "tools": [LOOK]}).encode())
    assert [message.role for message in request.messages] == ["system", "user"]
    assert request.tools[0].name == "look"


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"messages": []}, "$.messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "$.messages[0].role"),
        ({"messages": [{"role": "user"}]}, "$.messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": 7}]}]}, "$.messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [{}]}]}, "$.messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": ["text"]}]}, "$.messages[0].content[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "document"}]}]}, "$.messages[0].content[0].source"),
        ({"model": 7}, "$.model"),
        ({"max_tokens": 0}, "$.max_tokens"),
        ({"temperature": 1.5}, "$.temperature"),
        ({"tools": [{"name": "look"}]}, "$.tools[0].input_schema"),
        ({"tools": [{"type": 7, "name": "look"}]}, "$.tools[0].type"),
        ({"tool_choice": {"type": "tool"}}, "$.tool_choice.name"),
        ({"output_config": {"format": {"type": "xml"}}}, "$.output_config.format.type"),
    ],
)
def test_bad_input_is_named_by_its_path(change: dict[str, Any], path: str) -> None:
    """An invalid field is named by its path."""
    error = refused(body(**change))
    assert (error.code, [fault.path for fault in error.errors]) == ("invalid_request", [path])


@pytest.mark.parametrize(
    ("role", "block", "path"),
    [
        ("user", {"type": "tool_use", "id": "t", "name": "look", "input": {}}, "$.messages[0].content[0]"),
        ("assistant", {"type": "tool_result", "tool_use_id": "t"}, "$.messages[0].content[0]"),
        ("assistant", {"type": "tool_use", "id": "t", "name": "look", "input": [1]}, "$.messages[0].content[0].input"),
    ],
)
def test_a_block_in_the_wrong_place_is_refused(role: str, block: dict[str, Any], path: str) -> None:
    """Tool calls belong to the assistant, results to the user, and arguments are an object."""
    assert refused(body(messages=[{"role": role, "content": [block]}])).errors[0].path == path


def test_a_bound_is_needed() -> None:
    """``max_tokens`` is required."""
    assert refused(json.dumps({"model": "m", "messages": HI}).encode()).errors[0].path == "$.max_tokens"


@pytest.mark.parametrize(
    "sent", [b"", b"{", b"\xff\xfe", b'{"model": "\xff"}', b'{"x": ' + b"[" * 5000, b'{"model": 7']
)
def test_a_body_that_is_not_json_is_malformed(sent: bytes) -> None:
    """A body that is not JSON is ``malformed_json``."""
    assert refused(sent).code == "malformed_json"


def test_a_body_that_is_no_object_is_invalid() -> None:
    """JSON that is not an object is invalid at its root."""
    assert (refused(b"[1]").code, refused(b"[1]").errors[0].path) == ("invalid_request", "$")
