"""Histories that come back: through the canonical model to an upstream, in order and unchanged."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.anthropic.messages import parse_messages
from protocol.anthropic.upstream import messages_body
from protocol.errors import ProviderError
from protocol.llm import (
    ChatMessage,
    ChatRequest,
    ContentPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolCallPart,
    VendorPart,
    parts_of,
)
from protocol.openai.chat import parse_chat
from protocol.openai.limits import OF_OTHERS, VENDORS_OWN, ChatLimits, limits_at
from protocol.openai.responses import parse_response
from protocol.openai.upstream import chat_body

JSON = dict[str, Any]
SIGNATURE = {"google": {"thought_signature": "SIG/+=="}}
DETAILS = [{"type": "reasoning.encrypted", "data": "x", "index": 0}]
MARK = {"type": "ephemeral"}


def from_chat(*messages: JSON, **fields: Any) -> ChatRequest:  # noqa: ANN401
    """The canonical request of OpenAI's messages."""
    return parse_chat(msgspec.json.encode({"model": "m", "messages": messages, **fields})).request


def from_anthropic(*messages: JSON, **fields: Any) -> ChatRequest:  # noqa: ANN401
    """The canonical request of Anthropic's messages."""
    return parse_messages(msgspec.json.encode({"model": "m", "max_tokens": 9, "messages": messages, **fields})).request


def to_chat(request: ChatRequest) -> Any:  # noqa: ANN401
    """The body that an upstream of OpenAI's dialect gets."""
    return json.loads(chat_body(request, "gpt"))


def to_anthropic(request: ChatRequest) -> Any:  # noqa: ANN401
    """The body that an Anthropic upstream gets."""
    return json.loads(messages_body(request, "claude"))


def user(content: Any) -> JSON:  # noqa: ANN401
    """A message of the user's."""
    return {"role": "user", "content": content}


def assistant(content: Any, **fields: Any) -> JSON:  # noqa: ANN401
    """A message of the assistant's."""
    return {"role": "assistant", "content": content, **fields}


def text(value: str, **fields: Any) -> JSON:  # noqa: ANN401
    """A part of text."""
    return {"type": "text", "text": value, **fields}


def call(call_id: str = "c1", **fields: Any) -> JSON:  # noqa: ANN401
    """A call in OpenAI's form."""
    return {"id": call_id, "type": "function", "function": {"name": "f", "arguments": "{}"}, **fields}


def use(call_id: str = "u1", **fields: Any) -> JSON:  # noqa: ANN401
    """A call in Anthropic's form."""
    return {"type": "tool_use", "id": call_id, "name": "f", "input": {}, **fields}


# ------------------------------------------------------------------------------------------------ the same dialect

OF_CHAT: list[JSON] = [
    assistant("A", reasoning="hm"),
    assistant("A", reasoning_details=DETAILS),
    assistant("A", reasoning_content=""),
    assistant("A", reasoning_content="hm", annotations=[]),
    assistant(None, reasoning_content="", tool_calls=[call()]),
    assistant(None, refusal="I can't"),
    assistant("A", refusal="I can't"),
    assistant([text("A"), {"type": "refusal", "refusal": "I can't"}]),
    assistant([text("A"), text("B")]),
    assistant([{"type": "thinking", "thinking": [text("hm")]}, text("A")]),
    assistant("A", annotations=[{"type": "url_citation", "url_citation": {"url": "https://a"}}]),
    assistant("A", extra_content=SIGNATURE, audio={"id": "audio_1"}),
    assistant("A", prefix=True),
    assistant(None, tool_calls=[call(extra_content=SIGNATURE), call("functions.f:0")]),
    assistant(None, tool_calls=[{"id": "c1", "type": "custom", "custom": {"name": "patch", "input": "*** Begin"}}]),
    user([text("a", cache_control=MARK), {"type": "video_url", "video_url": {"url": "https://v"}}, text("b")]),
    user([{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]),
    user([{"type": "image_url", "image_url": {"url": "https://x/y", "detail": "low", "min_pixels": 4}}]),
    user([{"type": "file", "file": {"file_id": "file-1"}}]),
    {"role": "user", "content": "a", "cache_control": MARK},
    {"role": "tool", "tool_call_id": "functions.f:0", "content": "r", "name": "f"},
]


@pytest.mark.parametrize("message", OF_CHAT)
def test_openais_messages_go_back_unchanged(message: JSON) -> None:
    """What vendors of OpenAI's dialect have of their own is sent back to them as it came."""
    assert to_chat(from_chat(user("q"), message))["messages"] == [user("q"), message]


OF_ANTHROPIC: list[list[JSON]] = [
    [text("A"), use(), text("B"), use("u2")],
    [
        {"type": "thinking", "thinking": "t1", "signature": "S1"},
        use(),
        {"type": "thinking", "thinking": "", "signature": "S2"},
        use("u2"),
    ],
    [{"type": "redacted_thinking", "data": "x"}, text("A"), {"type": "redacted_thinking", "data": "y"}],
    [{"type": "thinking", "thinking": "t", "signature": "S", "news": 1}, text("A")],
    [text("A", citations=[{"type": "char_location", "cited_text": "a"}], news=1), text("B")],
    [use(caller={"type": "direct"}, cache_control=MARK)],
    [
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"page_age": None, "encrypted": "E"}]},
        text("A"),
        {"type": "server_tool_use", "id": "s2", "name": "code_execution", "input": {}},
        {"type": "code_execution_tool_result", "tool_use_id": "s2", "content": {"stdout": "1"}},
        text("B"),
    ],
    [
        {"type": "mcp_tool_use", "id": "m", "name": "echo", "server_name": "s", "input": {}},
        {"type": "mcp_tool_result", "tool_use_id": "m", "is_error": False, "content": []},
    ],
    [{"type": "news_to_us", "x": [1, None, {"y": 2}]}, text("A")],
    [{"type": "compaction", "content": "so far"}, text("A", cache_control=MARK)],
]


@pytest.mark.parametrize("blocks", OF_ANTHROPIC)
def test_anthropics_blocks_go_back_unchanged(blocks: list[JSON]) -> None:
    """The blocks of a turn keep their order, and those that only this vendor has are sent back as they came."""
    turns = [user("q"), assistant(blocks), user("q2")]
    assert to_anthropic(from_anthropic(*turns))["messages"] == turns


def test_anthropics_blocks_of_the_user_go_back_unchanged() -> None:
    """So are uploads, sources of the vendor's own, and what stands in a tool's result."""
    blocks = [
        {
            "type": "tool_result",
            "tool_use_id": "u1",
            "content": [{"type": "tool_reference", "tool_name": "f"}, text("r")],
        },
        {"type": "tool_result", "tool_use_id": "u2", "is_error": True, "content": "r", "cache_control": MARK},
        text("and now"),
        {"type": "container_upload", "file_id": "f1"},
        {"type": "document", "source": {"type": "file", "file_id": "f1"}, "citations": {"enabled": True}},
        {"type": "image", "source": {"type": "news", "x": 1}},
        {"type": "search_result", "source": "s", "title": "t", "content": [text("x")]},
    ]
    turns = [user("q"), assistant([use(), use("u2")]), user(blocks)]
    assert to_anthropic(from_anthropic(*turns))["messages"] == turns


def test_a_calls_input_is_sent_word_for_word() -> None:
    """Also where its block has unknown fields."""
    for further in ("", ',"news":1'):
        block = f'{{"type":"tool_use","id":"u1","name":"f","input":{{"b": 1.50, "a": 1e2}}{further}}}'
        turns = f'[{{"role":"user","content":"q"}},{{"role":"assistant","content":[{block}]}}]'
        request = parse_messages(f'{{"model":"m","max_tokens":9,"messages":{turns}}}'.encode()).request
        assert b'"input":{"b": 1.50, "a": 1e2}' in messages_body(request, "claude")


def test_the_vendors_own_tools() -> None:
    """They are sent to their own vendor as they came, in their place, and to nobody else."""
    search = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
    toolset = {"type": "mcp_toolset", "mcp_server_name": "s"}
    own = {"name": "f", "input_schema": {"type": "object"}}
    request = from_anthropic(user("q"), tools=[search, own, toolset], tool_choice={"type": "any"})
    assert to_anthropic(request)["tools"] == [search, own, toolset]
    assert [tool["function"]["name"] for tool in to_chat(request)["tools"]] == ["f"]
    hosted = {"type": "web_search", "search_context_size": "low"}
    custom = {"type": "custom", "custom": {"name": "patch", "format": {"type": "text"}}}
    request = from_chat(user("q"), tools=[hosted, custom], tool_choice="required")
    assert to_chat(request)["tools"] == [hosted, custom]
    assert not {"tools", "tool_choice"} & to_anthropic(request).keys()


# -------------------------------------------------------------------------------------------------- another dialect


def test_a_turn_of_several_texts_and_calls_for_openai() -> None:
    """OpenAI's message has one text and its calls; a blank line stands where another part stood between texts."""
    blocks = [text("He"), text("llo"), use(), {"type": "news", "x": 1}, text("B"), use("u2")]
    message = to_chat(from_anthropic(user("q"), assistant(blocks)))["messages"][1]
    assert message == assistant("Hello\n\nB", tool_calls=[call("u1"), call("u2")])


def test_unsigned_thinking_is_reasoning() -> None:
    """Another vendor's reasoning goes back to it; signed thinking is for its own vendor alone."""
    thoughts = [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "thinking", "thinking": "secret", "signature": "S"},
    ]
    request = from_anthropic(user("q"), assistant([*thoughts, text("A")]))
    assert to_chat(request)["messages"][1] == assistant("A", reasoning_content="hm")
    assert to_anthropic(request)["messages"][1] == assistant([thoughts[1], text("A")])


def test_what_the_other_dialect_has_not_is_left_out() -> None:
    """Parts of an answer that mean nothing to the other vendor are left out, and turns without anything else."""
    server = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
    request = from_anthropic(user("q"), assistant([server]), user("q2"), assistant([server, text("A")]), user("q3"))
    assert to_chat(request)["messages"] == [user("q"), user("q2"), assistant("A"), user("q3")]
    request = from_chat(
        user("q"), assistant([{"type": "thinking", "thinking": [text("hm")]}], reasoning_details=DETAILS), user("q2")
    )
    assert to_anthropic(request)["messages"] == [user("q"), user("q2")]


def test_a_refusal_is_a_text_for_anthropic() -> None:
    """Wherever it stands in the message."""
    for message in (assistant(None, refusal="No"), assistant([{"type": "refusal", "refusal": "No"}])):
        assert to_anthropic(from_chat(user("q"), message, user("q2")))["messages"][1] == assistant([text("No")])


def test_a_native_row_of_parts() -> None:
    """The row of an answer's parts is sent in its order, and what has no type is fields of OpenAI's message."""
    row: tuple[ContentPart, ...] = (
        ReasoningPart(text="hm"),
        ToolCallPart(id="c1", name="f", extra={"openai": {"extra_content": SIGNATURE}}),
        TextPart(text="A"),
        VendorPart(dialect="openai", value={"reasoning_details": DETAILS}),
        VendorPart(dialect="openai", value={"reasoning_details": DETAILS}),
        RefusalPart(text="No"),
    )
    request = ChatRequest(
        model="m", messages=(ChatMessage(role="assistant", content=row), ChatMessage(role="user", content="q"))
    )
    fields = {"reasoning_content": "hm", "reasoning_details": DETAILS * 2, "refusal": "No"}
    assert to_chat(request)["messages"][0] == assistant("A", tool_calls=[call(extra_content=SIGNATURE)], **fields)
    assert to_anthropic(request)["messages"][0] == assistant([use("c1"), text("A"), text("No")])


def test_the_items_of_a_turn_are_one_message() -> None:
    """The Responses API's items of one turn are one message with their order; its own tools' calls are left out."""
    items = [
        user("q"),
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "web_search_call", "id": "ws", "status": "completed", "action": {}},
        {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A", "annotations": []}]},
        {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "r"},
        {"role": "assistant", "content": "B"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]},
    ]
    request = parse_response(json.dumps({"model": "m", "input": items}).encode()).request
    assert request.messages == (
        ChatMessage(role="user", content="q"),
        ChatMessage(
            role="assistant",
            content=(
                ReasoningPart(text="hm"),
                ToolCallPart(id="c1", name="f"),
                TextPart(text="A"),
                ToolCallPart(id="c2", name="f"),
            ),
        ),
        ChatMessage(role="tool", tool_call_id="c1", content="r"),
        ChatMessage(role="assistant", content=(TextPart(text="B"), RefusalPart(text="No"))),
    )
    calls = [call("c1"), call("c2")]
    assert to_chat(request)["messages"][1] == assistant("A", reasoning_content="hm", tool_calls=calls)


def test_a_tools_arguments_may_be_an_object() -> None:
    """In a history of OpenAI's dialect, as its sloppier speakers have it."""
    message = assistant(None, tool_calls=[{"id": "c1", "function": {"name": "f", "arguments": {"a": 1}}}])
    assert from_chat(user("q"), message).messages[1].tool_calls == (ToolCall("c1", "f", '{"a":1}'),)


# ------------------------------------------------------------------------------------------ only what a vendor takes


def test_nothing_blank_goes_to_anthropic() -> None:
    """Blank texts and turns are left out; at the end a silent user is said to be silent."""
    request = from_chat(
        user([text(" \n"), text("q")]), assistant("A "), user(""), assistant([text("")], tool_calls=[call()]),
        {"role": "tool", "tool_call_id": "c1", "content": [text("")]}, assistant("B  "), user(" "),
    )  # fmt: skip
    assert to_anthropic(request)["messages"] == [
        user([text("q")]),
        assistant("A "),
        assistant([use("c1")]),
        user([{"type": "tool_result", "tool_use_id": "c1"}]),
        assistant("B  "),
        user("(empty)"),
    ]


@pytest.mark.parametrize("content", ["Sure: \n ", [text("Su"), text("re: \n ")]])
def test_a_last_turn_of_the_assistants_ends_without_blanks(content: Any) -> None:  # noqa: ANN401
    """Anthropic refuses them."""
    sent = to_anthropic(from_anthropic(user("q"), assistant(content)))["messages"][-1]["content"]
    assert sent == ("Sure:" if isinstance(content, str) else [text("Su"), text("re:")])


@pytest.mark.parametrize(
    "messages", [(user(""),), (user([text("")]), assistant(" ")), ({"role": "system", "content": "b"},)]
)
def test_no_message_at_all_is_refused_by_ourselves(messages: tuple[JSON, ...]) -> None:
    """With our own words; another target may have a form for it."""
    with pytest.raises(ProviderError, match="nothing to answer") as caught:
        to_anthropic(from_chat(*messages))
    assert caught.value.code == "provider_rejected"


def test_nothing_empty_goes_to_openai() -> None:
    """Empty parts, and messages of which nothing is for this dialect."""
    request = from_anthropic(
        user([text(""), text("q")]),
        assistant([{"type": "thinking", "thinking": "hm", "signature": "S"}]),
        user("q2"),
        stop_sequences=["", "END"],
    )
    sent = to_chat(request)
    assert sent["messages"] == [user([text("q")]), user("q2")]
    assert sent["stop"] == ["END"]
    with pytest.raises(ProviderError, match="nothing to answer"):
        to_chat(
            ChatRequest(model="m", messages=(ChatMessage(role="assistant", content=(ReasoningPart(signature="x"),)),))
        )


def test_nothing_about_tools_without_tools() -> None:
    """Neither a choice nor whether calls may be parallel."""
    fields = {"tools": [], "tool_choice": "auto", "parallel_tool_calls": False}
    for sent in (to_chat(from_chat(user("q"), **fields)), to_anthropic(from_chat(user("q"), **fields))):
        assert not {"tools", "tool_choice", "parallel_tool_calls"} & sent.keys()
    choice = {"type": "auto", "disable_parallel_tool_use": True}
    request = from_anthropic(user("q"), tool_choice=choice)
    assert not {"tool_choice", "parallel_tool_calls"} & {*to_chat(request), *to_anthropic(request)}


def test_ids_that_anthropic_does_not_take() -> None:
    """They get another form there, the same for the call and its result, and different for different ids."""
    ids = ["functions.f:0", "functions.f.0", "plain-1", "é" * 100, ""]
    request = from_chat(
        user("q"),
        assistant(None, tool_calls=[call(name) for name in ids]),
        *({"role": "tool", "tool_call_id": name, "content": "r"} for name in ids),
    )
    turns = to_anthropic(request)["messages"]
    sent = [block["id"] for block in turns[1]["content"]]
    assert sent == [block["tool_use_id"] for block in turns[2]["content"]]
    assert len(set(sent)) == len(ids)
    assert sent[2] == "plain-1"
    assert all(name.replace("_", "").replace("-", "").isalnum() and name.isascii() and len(name) <= 64 for name in sent)
    as_they_were = [named["id"] for named in to_chat(request)["messages"][1]["tool_calls"]]
    assert as_they_were[:3] + as_they_were[4:] == ids[:3] + ids[4:]


@pytest.mark.parametrize(("limits", "length"), [(OF_OTHERS, 64), (VENDORS_OWN, 40)])
def test_ids_that_are_too_long_for_openais_dialect(limits: ChatLimits, length: int) -> None:
    """A call and its result get the same shorter id, in every turn; different ids stay different."""
    custom = {"id": "z" * 90, "type": "custom", "custom": {"name": "sh", "input": "ls"}}
    ids = ["x" * 90, "x" * 90 + "y", "chatcmpl-tool-" + "0" * 32, "call_1", "x" * length]
    request = from_chat(
        user("q"),
        assistant(None, tool_calls=[*(call(name) for name in ids), custom]),
        *({"role": "tool", "tool_call_id": name, "content": "r"} for name in [*ids, custom["id"]]),
    )
    turns = json.loads(chat_body(request, "gpt", limits=limits))["messages"]
    sent = [named["id"] for named in turns[1]["tool_calls"]]
    assert sent == [turn["tool_call_id"] for turn in turns[2:]]
    assert (len(set(sent)), max(map(len, sent))) == (len(ids) + 1, length)
    assert sent[3:5] == ids[3:]
    assert json.loads(chat_body(request, "gpt", limits=limits))["messages"] == turns


@pytest.mark.parametrize(
    ("url", "limits"),
    [
        ("https://api.openai.com/v1", VENDORS_OWN),
        ("https://eu.api.openai.com/v1", VENDORS_OWN),
        ("https://x.openai.azure.com/openai/v1", VENDORS_OWN),
        ("https://notapi.openai.com.example.com/v1", OF_OTHERS),
        ("http://127.0.0.1:8000/v1", OF_OTHERS),
    ],
)
def test_the_vendors_own_limits(url: str, limits: ChatLimits) -> None:
    """OpenAI's and Azure's addresses have them; ids elsewhere keep more of their length."""
    assert limits_at(url) is limits


def test_texts_to_stop_at_are_as_many_as_the_vendor_takes() -> None:
    """OpenAI and Azure take four; others get all."""
    request = ChatRequest(model="m", messages=(ChatMessage(role="user", content="q"),), stop=tuple("abcdef"))
    assert json.loads(chat_body(request, "gpt", limits=VENDORS_OWN))["stop"] == ["a", "b", "c", "d"]
    assert to_chat(request)["stop"] == [*"abcdef"]


def test_texts_of_a_tool_message_stay_apart() -> None:
    """A client of the dialect gets its parts to the upstream as they came; another's texts are joined."""
    parts = [{"type": "text", "text": '{"a": "x'}, {"type": "text", "text": 'y"}', "cache_control": MARK}]
    ours = from_chat(
        user("q"), assistant(None, tool_calls=[call("c")]), {"role": "tool", "tool_call_id": "c", "content": parts}
    )
    assert to_chat(ours)["messages"][2]["content"] == parts
    used = {"type": "tool_use", "id": "c", "name": "f", "input": {}}
    theirs = from_anthropic(
        user("q"), assistant([used]), user([{"type": "tool_result", "tool_use_id": "c", "content": parts}])
    )
    assert to_chat(theirs)["messages"][2]["content"] == '{"a": "x\ny"}'


# ------------------------------------------------------------------------------------------------ between the dialects


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, {"type": "auto", "disable_parallel_tool_use": True}),
        ("required", {"type": "any", "disable_parallel_tool_use": True}),
        (
            {"type": "function", "function": {"name": "f"}},
            {"type": "tool", "name": "f", "disable_parallel_tool_use": True},
        ),
        ("none", {"type": "none"}),
    ],
)
def test_calls_one_at_a_time(choice: Any, sent: JSON) -> None:  # noqa: ANN401
    """Each dialect says it in its own way."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    request = from_chat(user("q"), tools=tools, tool_choice=choice, parallel_tool_calls=False)
    assert to_anthropic(request)["tool_choice"] == sent
    assert to_chat(request)["parallel_tool_calls"] is False
    tool = {"name": "f", "input_schema": {"type": "object"}}
    back = to_chat(from_anthropic(user("q"), tools=[tool], tool_choice=sent))
    assert back.get("parallel_tool_calls") is (None if choice == "none" else False)


def test_the_effort_of_reasoning() -> None:
    """It is said in the other dialect's words, and a budget of thinking as an effort."""
    assert to_anthropic(from_chat(user("q"), reasoning_effort="high"))["output_config"] == {"effort": "high"}
    assert "output_config" not in to_anthropic(from_chat(user("q"), reasoning_effort="none"))
    assert to_chat(from_chat(user("q"), reasoning_effort="none"))["reasoning_effort"] == "none"
    assert to_chat(from_anthropic(user("q"), output_config={"effort": "max"}))["reasoning_effort"] == "high"
    for budget, effort in ((1024, "low"), (10_000, "medium"), (32_000, "high")):
        thinking = {"type": "enabled", "budget_tokens": budget}
        sent = to_chat(from_anthropic(user("q"), thinking=thinking))
        assert (sent["reasoning_effort"], "thinking" in sent) == (effort, False)
    assert "reasoning_effort" not in to_chat(from_anthropic(user("q"), thinking={"type": "disabled"}))


# ------------------------------------------------------------------------------------------------------- properties

words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8).filter(lambda word: not word.isspace())
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
vendor_fields = st.dictionaries(
    words.map(lambda word: f"x_{word}"), values.filter(lambda value: value is not None), max_size=2
)


def vendor_blocks(*kinds: str) -> st.SearchStrategy[JSON]:
    """Blocks of the vendor's own."""
    fields = st.dictionaries(words.filter(lambda word: word != "type"), values, max_size=3)
    return st.builds(lambda kind, more: {"type": kind, **more}, st.sampled_from(kinds), fields)


of_server = vendor_blocks("server_tool_use", "web_search_tool_result", "mcp_tool_use", "mcp_tool_result", "news")
thinking = st.builds(
    lambda thought, signature: {"type": "thinking", "thinking": thought, "signature": signature},
    words | st.just(""),
    words,
)
redacted = words.map(lambda data: {"type": "redacted_thinking", "data": data})
texts = st.builds(lambda word, more: text(word, **more), words, vendor_fields)
uses = st.builds(
    lambda number, fields, more: use(f"u{number}", **more) | {"input": fields},
    st.integers(0, 9),
    st.dictionaries(words, values, max_size=3),
    vendor_fields,
)
results = st.builds(
    lambda number, content, more: {"type": "tool_result", "tool_use_id": f"u{number}", "content": content, **more},
    st.integers(0, 9),
    words | st.lists(texts | of_server, min_size=1, max_size=3),
    vendor_fields,
)
uploads = vendor_blocks("container_upload", "search_result", "news")
anthropic_turns = st.lists(
    st.tuples(
        st.lists(texts | thinking | redacted | uses | of_server, min_size=1, max_size=6).map(assistant),
        st.tuples(st.lists(results, max_size=3), st.lists(texts | uploads, min_size=1, max_size=3)).map(
            lambda blocks: user([*blocks[0], *blocks[1]])
        ),
    ),
    max_size=4,
).map(lambda pairs: [user("q"), *(turn for pair in pairs for turn in pair)])

openai_parts = st.lists(
    texts
    | vendor_blocks("thinking", "reference", "news")
    | words.map(lambda word: {"type": "refusal", "refusal": word}),
    min_size=1,
    max_size=4,
)
openai_calls = st.lists(
    st.builds(
        lambda number, arguments, more: {
            **call(f"c{number}", **more),
            "function": {"name": "f", "arguments": json.dumps(arguments)},
        },
        st.integers(0, 9),
        values,
        vendor_fields,
    ),
    min_size=1,
    max_size=3,
)
openai_messages = st.one_of(
    st.builds(
        lambda content, calls, thoughts, more: assistant(
            content,
            **({"tool_calls": calls} if calls else {}),
            **({} if thoughts is None else {"reasoning_content": thoughts}),
            **more,
        ),
        words | openai_parts,
        st.just([]) | openai_calls,
        st.none() | st.just("") | words,
        vendor_fields,
    ),
    st.builds(
        lambda content, more: {**user(content), **more},
        words | st.lists(texts | vendor_blocks("video_url", "input_audio"), min_size=1, max_size=3),
        vendor_fields,
    ),
    st.builds(
        lambda number, content, more: {"role": "tool", "tool_call_id": f"c{number}", "content": content, **more},
        st.integers(0, 9),
        words,
        vendor_fields,
    ),
)


def normal(messages: list[JSON]) -> list[JSON]:
    """The messages with a single plain text in place of a list of one: both notations mean the same."""
    return [{name: plain(value) if name == "content" else value for name, value in turn.items()} for turn in messages]


def plain(content: Any) -> Any:  # noqa: ANN401
    """A content, or one of a tool's result, in its normal form."""
    if not isinstance(content, list):
        return content
    blocks = [
        {**block, "content": plain(block["content"])} if block["type"] == "tool_result" else block for block in content
    ]
    return blocks[0]["text"] if len(blocks) == 1 and blocks[0].keys() == {"type", "text"} else blocks


def spelt(value: Any) -> str:  # noqa: ANN401
    """The bytes of the vendor's blocks, whose keys keep their order; the fields of a message have none."""
    return msgspec.json.encode(value).decode()


@given(anthropic_turns)
def test_any_history_of_anthropics_goes_back_in_order_and_unchanged(turns: list[JSON]) -> None:
    """Content and order are equal, and the vendor's own blocks byte for byte."""
    sent = msgspec.json.decode(messages_body(from_anthropic(*turns), "claude"))["messages"]
    assert normal(sent) == normal(turns)
    for ours, theirs in zip(sent, turns, strict=True):
        own = [
            block
            for block in theirs["content"]
            if isinstance(block, dict) and block["type"] not in ("text", "tool_result")
        ]
        assert [
            spelt(block)
            for block in ours["content"]
            if isinstance(block, dict) and block["type"] not in ("text", "tool_result")
        ] == [spelt(block) for block in own]


@given(st.lists(openai_messages, min_size=1, max_size=5))
def test_any_history_of_openais_goes_back_in_order_and_unchanged(messages: list[JSON]) -> None:
    """Content and order are equal, and the vendor's own parts byte for byte."""
    sent = msgspec.json.decode(chat_body(from_chat(*messages), "gpt"))["messages"]
    assert normal(sent) == normal(messages)
    for ours, theirs in zip(sent, messages, strict=True):
        if isinstance(ours["content"], list):
            assert list(map(spelt, ours["content"])) == list(map(spelt, theirs["content"]))


@given(anthropic_turns)
def test_any_history_of_anthropics_has_a_form_for_openai(turns: list[JSON]) -> None:
    """Texts and calls keep their order there; nothing of the assistant's is refused."""
    said = [turn for turn in turns if turn["role"] == "assistant"]
    request = from_anthropic(*(turn for turn in turns if turn["role"] == "assistant"), user("q"))
    rows = [message for message in request.messages if message.role == "assistant"]
    assert len(rows) == len(said)
    sent = [message for message in to_chat(request)["messages"] if message["role"] == "assistant"]
    parts = [part for message in rows for part in parts_of(message)]
    assert "".join("".join((m["content"] or "").split()) for m in sent) == "".join(
        "".join(part.text.split()) for part in parts if isinstance(part, TextPart)
    )
    assert [named["id"] for message in sent for named in message.get("tool_calls", ())] == [
        part.id for part in parts if isinstance(part, ToolCallPart)
    ]
