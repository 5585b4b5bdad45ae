"""Tool names that an upstream does not take."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.llm import ChatMessage, ChatRequest, Tool, ToolCall, ToolCallPart
from protocol.tool_names import ANTHROPIC_LENGTH, OPENAI_LENGTH, ToolNames, tool_names

LONG = "mcp__plugin_chrome-devtools-mcp_chrome-devtools__get_console_message"


def asked(*names: str, choice: str = "", called: str = "") -> ChatRequest:
    """A request with tools of these names."""
    messages: list[ChatMessage] = [ChatMessage(role="user", content="q")]
    if called:
        part = ToolCallPart(id="c1", name=called)
        messages += [
            ChatMessage(role="assistant", content=(part,), tool_calls=(ToolCall("c2", called), ToolCall("c3", "other")))
        ]
    return ChatRequest(
        model="m", messages=tuple(messages), tools=tuple(Tool(name=name) for name in names), tool_choice=choice
    )


def names_of(request: ChatRequest, length: int = OPENAI_LENGTH) -> ToolNames:
    """The names that change."""
    names = tool_names(request, length)
    assert names is not None
    return names


def test_names_that_the_vendor_takes_stay() -> None:
    """Up to the vendor's own length."""
    assert tool_names(asked("a", "b" * 64, called="c"), OPENAI_LENGTH) is None
    assert tool_names(asked(LONG, "b" * 128), ANTHROPIC_LENGTH) is None
    hosted = Tool(name=LONG, extra={"anthropic": {"type": "web_search_20250305", "name": LONG}})
    assert tool_names(ChatRequest(model="m", messages=(), tools=(hosted,)), OPENAI_LENGTH) is None


def test_a_longer_name_is_shortened_wherever_it_stands() -> None:
    """In the tools, the choice and the history; it is mapped back in the answer."""
    request = asked(f"{LONG}_a", f"{LONG}_b", "plain", choice=f"{LONG}_b", called=f"{LONG}_b")
    names = names_of(request)
    sent = names.applied(request)
    first, second, plain = (tool.name for tool in sent.tools)
    assert re.fullmatch(r"mcp__plugin_chrome[A-Za-z0-9_-]{1,46}", first)
    assert first != second
    assert (plain, sent.tool_choice) == ("plain", second)
    turn = sent.messages[1]
    assert isinstance(turn.content[0], ToolCallPart)
    assert (turn.content[0].name, *(call.name for call in turn.tool_calls)) == (second, second, "other")
    assert [names.own(name) for name in (first, second, plain, "other")] == [
        f"{LONG}_a",
        f"{LONG}_b",
        "plain",
        "other",
    ]


def test_a_shortened_name_is_the_same_in_every_turn() -> None:
    """Whatever other tools there are."""
    assert {
        names_of(request).applied(request).tools[0].name for request in (asked(LONG), asked(LONG, "x", LONG + "y"))
    } == {names_of(asked(LONG)).applied(asked(LONG)).tools[0].name}


@pytest.mark.parametrize("name", ["mcp.server/tool", "naïve", "a:b"])
def test_a_name_with_other_characters_is_changed(name: str) -> None:
    """Vendors take letters, digits, `_` and `-`."""
    names = names_of(asked(name))
    (sent,) = (tool.name for tool in names.applied(asked(name)).tools)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", sent)
    assert names.own(sent) == name


@given(st.lists(st.text(min_size=1, max_size=90), min_size=1, max_size=6, unique=True), st.sampled_from((64, 128)))
def test_any_names_stay_apart_and_come_back(tools: list[str], length: int) -> None:
    """Each has a name of its own that the vendor takes, which is mapped back to it."""
    request = asked(*tools)
    names = tool_names(request, length)
    sent = request if names is None else names.applied(request)
    found = [tool.name for tool in sent.tools]
    assert len(set(found)) == len(tools)
    assert all(re.fullmatch(rf"[A-Za-z0-9_-]{{1,{length}}}", name) for name in found)
    assert [name if names is None else names.own(name) for name in found] == tools
