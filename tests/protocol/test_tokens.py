from typing import Any

import pytest

from protocol.llm import ChatMessage, ChatRequest, ImagePart, TextPart, Tool, ToolCall
from protocol.tokens import IMAGE_TOKENS, estimate_tokens


def asked(content: Any, **fields: Any) -> ChatRequest:  # noqa: ANN401
    """A request of one message."""
    return ChatRequest(model="m", messages=(ChatMessage(role="user", content=content),), **fields)


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        (asked(""), 1),
        (asked("four"), 1),
        (asked("fives"), 2),
        (asked("x" * 400), 100),
        (asked((TextPart(text="x" * 40), TextPart(text="y" * 40))), 20),
        (asked((TextPart(text="x" * 40), ImagePart(url="data:image/png;base64," + "A" * 9000))), 10 + IMAGE_TOKENS),
    ],
)
def test_a_token_is_four_characters(request_: ChatRequest, tokens: int) -> None:
    """Four characters count as a token, rounded up, at least 1; an image has a fixed count."""
    assert estimate_tokens(request_) == tokens


def test_tools_and_the_schema_count() -> None:
    """Tools, tool calls and the schema count too."""
    plain = estimate_tokens(asked("hi"))
    assert estimate_tokens(asked("hi", tools=(Tool(name="look", description="x" * 80),))) > plain + 20
    assert estimate_tokens(asked("hi", schema={"type": "object", "title": "x" * 80})) > plain + 20
    call = ChatMessage(role="assistant", tool_calls=(ToolCall("c", "look", "x" * 80),))
    assert estimate_tokens(ChatRequest(model="m", messages=(call,))) == 21
