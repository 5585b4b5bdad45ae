"""Parts of messages, from each client's dialect to each upstream's dialect."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest

from actors.requests.fingerprint import fingerprint
from protocol.anthropic.messages import parse_messages
from protocol.anthropic.upstream import betas_of, messages_body
from protocol.errors import InvalidRequest, ProviderError
from protocol.llm import ChatMessage, ChatRequest, FilePart, TextPart, VendorPart
from protocol.openai.chat import parse_chat
from protocol.openai.responses import parse_response
from protocol.openai.upstream import chat_body

PDF = "data:application/pdf;base64,JVBERg=="
MARK = {"type": "ephemeral"}
TOOL: dict[str, Any] = {"name": "look", "input_schema": {"type": "object"}}


def from_chat(*messages: dict[str, Any], **fields: Any) -> ChatRequest:  # noqa: ANN401
    """The canonical request of a body of OpenAI's chat."""
    return parse_chat(json.dumps({"model": "m", "messages": messages, **fields}).encode()).request


def from_messages(*messages: dict[str, Any], betas: str = "", **fields: Any) -> ChatRequest:  # noqa: ANN401
    """The canonical request of a body of Anthropic's messages."""
    body = {"model": "m", "max_tokens": 9, "messages": messages, **fields}
    return parse_messages(json.dumps(body).encode(), betas).request


def from_responses(*items: dict[str, Any], **fields: Any) -> ChatRequest:  # noqa: ANN401
    """The canonical request of a body of OpenAI's responses."""
    return parse_response(json.dumps({"model": "m", "input": items, **fields}).encode()).request


def to_openai(request: ChatRequest) -> dict[str, Any]:
    """The body for an upstream of OpenAI's dialect."""
    body = json.loads(chat_body(request, "up"))
    assert isinstance(body, dict)
    return body


def to_anthropic(request: ChatRequest) -> dict[str, Any]:
    """The body for an Anthropic upstream."""
    body = json.loads(messages_body(request, "up"))
    assert isinstance(body, dict)
    return body


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    """A user message."""
    return {"role": "user", "content": [*parts]}


AS_FILE = {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}}
AS_DOCUMENT = {
    "type": "document",
    "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
    "title": "a.pdf",
}
ASKED: dict[str, ChatRequest] = {
    "chat": from_chat(user(AS_FILE)),
    "bare": from_chat(user({"type": "file", "file": {"file_data": "JVBERg==", "filename": "a.pdf"}})),
    "messages": from_messages(user(AS_DOCUMENT)),
    "responses": from_responses(user({"type": "input_file", "file_data": PDF, "filename": "a.pdf"})),
    "native": ChatRequest(
        model="m", messages=(ChatMessage(role="user", content=(FilePart(url=PDF, filename="a.pdf"),)),)
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_a_file_from_any_client_reaches_any_upstream(name: str) -> None:
    """A file of any client's dialect is encoded in any upstream's dialect."""
    assert to_openai(ASKED[name])["messages"] == [user(AS_FILE)]
    assert to_anthropic(ASKED[name])["messages"] == [user(AS_DOCUMENT)]


def test_a_text_file() -> None:
    """Anthropic upstreams get text files as documents, upstreams of OpenAI's dialect as text."""
    source = {"type": "text", "media_type": "text/plain", "data": "Hello"}
    document = {"type": "document", "source": source, "title": "a.txt"}
    asked = from_messages(user(document))
    assert to_anthropic(asked)["messages"] == [user(document)]
    assert to_openai(asked)["messages"] == [user({"type": "text", "text": "a.txt\n\nHello"})]
    data = f"data:text/markdown;base64,{base64.b64encode(b'Hello').decode()}"
    asked = from_chat(user({"type": "file", "file": {"file_data": data, "filename": "a.txt"}}))
    assert to_anthropic(asked)["messages"] == [user(document)]


def test_a_file_by_url() -> None:
    """An upstream of OpenAI's chat dialect refuses a file by URL, because it takes only data."""
    asked = from_responses(user({"type": "input_file", "file_url": "https://x/a.pdf"}))
    document = {"type": "document", "source": {"type": "url", "url": "https://x/a.pdf"}}
    assert to_anthropic(asked)["messages"] == [user(document)]
    assert to_anthropic(from_messages(user(document)))["messages"] == [user(document)]
    with pytest.raises(ProviderError, match="openai") as caught:
        to_openai(asked)
    assert caught.value.code == "provider_rejected"


def test_a_text_file_that_is_not_utf8_is_refused() -> None:
    """A text file whose bytes are not UTF-8 is refused before the call."""
    asked = from_chat(user({"type": "file", "file": {"file_data": "data:text/plain;base64,/w=="}}))
    with pytest.raises(ProviderError):
        to_anthropic(asked)


SEARCHED = {"type": "search_result", "source": "https://x", "title": "X", "content": [{"type": "text", "text": "a"}]}
OWN: list[tuple[Callable[[ChatRequest], dict[str, Any]], Callable[[ChatRequest], dict[str, Any]], ChatRequest, Any]] = [
    (
        to_openai,
        to_anthropic,
        from_chat(user({"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}})),
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ),
    (
        to_openai,
        to_anthropic,
        from_chat(user({"type": "file", "file": {"file_id": "f1", "filename": None}})),
        {"type": "file", "file": {"file_id": "f1"}},
    ),
    (
        to_openai,
        to_anthropic,
        from_responses(user({"type": "input_file", "file_id": "f1"})),
        {"type": "file", "file": {"file_id": "f1"}},
    ),
    (to_anthropic, to_openai, from_messages(user(SEARCHED)), SEARCHED),
    (
        to_anthropic,
        to_openai,
        from_messages(user({"type": "image", "source": {"type": "file", "file_id": "f1"}, "cache_control": MARK})),
        {"type": "image", "source": {"type": "file", "file_id": "f1"}, "cache_control": MARK},
    ),
    (
        to_anthropic,
        to_openai,
        from_messages(user({"type": "document", "source": {"type": "content", "content": "a"}, "title": "t"})),
        {"type": "document", "source": {"type": "content", "content": "a"}, "title": "t"},
    ),
]


@pytest.mark.parametrize(("own", "other", "asked", "part"), OWN)
def test_a_vendor_part_is_for_its_own_dialect(
    own: Callable[[ChatRequest], dict[str, Any]],
    other: Callable[[ChatRequest], dict[str, Any]],
    asked: ChatRequest,
    part: dict[str, Any],
) -> None:
    """A vendor part is sent unchanged to its own dialect, and refused for the other one."""
    assert own(asked)["messages"][0]["content"] == [part]
    with pytest.raises(ProviderError, match=str(part["type"])) as caught:
        other(asked)
    assert caught.value.code == "provider_rejected"


def test_anthropics_extras_reach_anthropic_only() -> None:
    """Anthropic's extras of blocks and tools are sent only to Anthropic upstreams, each with its own part."""
    text = {"type": "text", "text": "a", "cache_control": MARK}
    document = {**AS_DOCUMENT, "citations": {"enabled": True}, "context": "c", "cache_control": MARK}
    call = {"type": "tool_use", "id": "c1", "name": "look", "input": {}, "cache_control": MARK}
    result = {"type": "tool_result", "tool_use_id": "c1", "content": "x", "is_error": True, "cache_control": MARK}
    tool = {**TOOL, "cache_control": MARK, "strict": True}
    messages = [user(text, document), {"role": "assistant", "content": [call]}, user(result)]
    asked = from_messages(*messages, system=[text, {"type": "text", "text": "b"}], tools=[tool])
    own = to_anthropic(asked)
    assert own["messages"] == messages
    assert own["system"] == [text, {"type": "text", "text": "b"}]
    assert own["tools"] == [tool]
    assert "cache_control" not in str(to_openai(asked))
    plain = from_messages(
        *json.loads(json.dumps(messages).replace(', "cache_control": {"type": "ephemeral"}', "")),
        system="a\n\nb",
        tools=[{**TOOL, "strict": True}],
    )
    assert fingerprint("", asked) != fingerprint("", plain)


def test_openais_extras_reach_openai_only() -> None:
    """OpenAI's extras are sent only to upstreams of its dialect; what Anthropic has as well is said there, too."""
    parameters = {"type": "object", "properties": {}, "additionalProperties": False}
    function = {"name": "look", "parameters": parameters, "strict": True}
    text = {"type": "text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}
    asked = from_chat(user(text), tools=[{"type": "function", "function": function}])
    assert to_openai(asked)["messages"] == [user(text)]
    assert to_openai(asked)["tools"] == [{"type": "function", "function": function}]
    assert to_anthropic(asked)["messages"] == [user({"type": "text", "text": "a"})]
    assert to_anthropic(asked)["tools"][0]["strict"] is True
    item = {"type": "input_text", "text": "a", "prompt_cache_breakpoint": {"mode": "explicit"}}
    again = from_responses(user(item), tools=[{"type": "function", **function}])
    assert again.messages == asked.messages
    assert again.tools == asked.tools


def test_images_of_a_tool_result_follow_it() -> None:
    """In OpenAI's dialect images of a tool result follow in a user message, and an error is a prefix of its text."""
    image = {"type": "image", "source": {"type": "url", "url": "https://x/y"}}
    asked = from_messages(
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": name, "name": "look", "input": {}} for name in "ab"],
        },
        user(
            {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "see"}, image]},
            {"type": "tool_result", "tool_use_id": "b", "content": "no such place", "is_error": True},
            {"type": "text", "text": "well?"},
        ),
    )
    _, one, two, shown, rest = to_openai(asked)["messages"]
    assert (one["content"], two["content"]) == ("see", "Error: no such place")
    assert shown == user(
        {"type": "text", "text": "What the call a has shown:"},
        {"type": "image_url", "image_url": {"url": "https://x/y"}},
    )
    assert rest == {"role": "user", "content": "well?"}
    results = to_anthropic(asked)["messages"][1]["content"]
    assert results[0]["content"][1] == image
    assert results[1]["is_error"] is True
    last = to_openai(from_messages(user({"type": "tool_result", "tool_use_id": "a", "content": [image]})))
    assert [message["role"] for message in last["messages"]] == ["tool", "user"]


def test_names_and_details_are_openais() -> None:
    """Names of authors and details of images are sent only in OpenAI's dialect."""
    image = {"type": "image_url", "image_url": {"url": "https://x/y", "detail": "low"}}
    asked = from_chat({"role": "user", "name": "ann", "content": [image]})
    assert to_openai(asked)["messages"] == [{"role": "user", "name": "ann", "content": [image]}]
    source = {"type": "url", "url": "https://x/y"}
    assert to_anthropic(asked)["messages"] == [user({"type": "image", "source": source})]


def test_betas_are_sent_once_each() -> None:
    """Anthropic's betas are part of the fingerprint, are sent once each, and are not in the body."""
    hi = {"role": "user", "content": "hi"}
    asked = from_messages(hi, betas="a-2026-01-01, b,a-2026-01-01", anthropic_beta=["c"])
    assert betas_of(asked) == ("a-2026-01-01", "b")
    assert "anthropic_beta" not in to_anthropic(asked)
    assert fingerprint("", asked) != fingerprint("", from_messages(hi))
    assert betas_of(from_messages(hi)) == betas_of(from_chat(hi)) == ()


@pytest.mark.parametrize("betas", ["a b", "x" * 65, ",".join(f"b{number}" for number in range(33)), "é"])
def test_an_invalid_beta_is_refused(betas: str) -> None:
    """A header ``anthropic-beta`` with invalid names is refused."""
    with pytest.raises(InvalidRequest, match="anthropic-beta"):
        from_messages({"role": "user", "content": "hi"}, betas=betas)


@pytest.mark.parametrize("part", [{"type": "file", "file": {}}, {"type": "file", "file": {"filename": "a"}}])
def test_an_empty_file_is_refused(part: dict[str, Any]) -> None:
    """A file without data, URL or id is refused."""
    with pytest.raises(InvalidRequest, match="file_data"):
        from_chat(user(part))


def test_a_native_part_may_have_extras_for_both_dialects() -> None:
    """A native part may have extras for both dialects."""
    part = TextPart(text="a", extra={"anthropic": {"cache_control": MARK}})
    asked = ChatRequest(model="m", messages=(ChatMessage(role="user", content=(part,)),))
    assert to_anthropic(asked)["messages"] == [user({"type": "text", "text": "a", "cache_control": MARK})]
    assert to_openai(asked)["messages"] == [user({"type": "text", "text": "a"})]
    own = VendorPart(dialect="anthropic", value=SEARCHED)
    asked = ChatRequest(model="m", messages=(ChatMessage(role="user", content=(own,)),))
    assert to_anthropic(asked)["messages"] == [user(SEARCHED)]
