"""``protocol.pass_fields``: which fields go upstream, and what a caller learns of the others."""

import pytest

from actors.requests.fingerprint import fingerprint
from protocol.llm import ChatMessage, ChatRequest, Tool
from protocol.pass_fields import (
    CHOOSING,
    MAX_NAMED,
    PASSED,
    PassList,
    pass_lists,
    passed_fields,
    passed_request,
    warning_of,
)

ASK = ChatRequest(model="m", messages=(ChatMessage(role="user", content="hi"),), dialect="openai")


def asked(*tools: Tool, **extra: object) -> ChatRequest:
    """Return a request with these fields."""
    return ChatRequest(model="m", messages=ASK.messages, tools=tools, extra=extra, dialect="openai")


def hosted(kind: str, **fields: object) -> Tool:
    """Return a vendor's own tool."""
    return Tool(name=kind, extra={"anthropic": {"type": kind, **fields}})


@pytest.mark.parametrize("name", sorted(CHOOSING))
def test_what_chooses_passes_by_its_whole_name_alone(name: str) -> None:
    """No default, no pattern and no ``*`` passes it."""
    assert name not in PASSED
    for entries in (("default",), ("*",), ("default", "*"), (f"{name[:-1]}*",), ("[a-z]*",)):
        assert passed_fields({name: "x"}, (PassList(entries),)) == ({}, (name,))
    assert passed_fields({name: "x"}, (PassList((name,)),)) == ({name: "x"}, ())


@pytest.mark.parametrize(
    "name",
    [
        "top_k",
        "min_p",
        "logit_bias",
        "frequency_penalty",
        "logprobs",
        "reasoning_effort",
        "thinking",
        "user",
        "metadata",
    ],
)
def test_usual_fields_pass_by_default(name: str) -> None:
    """What the SDKs and the servers of open models take."""
    assert passed_fields({name: 1}, pass_lists(None, None)) == ({name: 1}, ())


def test_a_list_replaces_the_default() -> None:
    """``default`` takes it in; an empty list passes nothing but what the service knows."""
    assert not PassList(()).passes("top_k")
    assert not PassList(("x_*",)).passes("top_k")
    assert PassList(("x_*", "default")).passes("top_k")
    assert PassList(("x_*",)).passes("x_1")
    known = {"response_format": {"type": "json_object"}, "tool_choice": {"type": "custom"}}
    assert passed_fields(known, (PassList(()),)) == (known, ())


def test_both_lists_have_to_let_a_field_pass() -> None:
    """A key narrows a route, and the other way round."""
    lists = pass_lists(("top_k", "models"), ("*",))
    assert passed_fields({"top_k": 1, "models": [1], "min_p": 0.1}, lists) == ({"top_k": 1}, ("min_p", "models"))


def test_null_is_absent_and_store_may_be_refused() -> None:
    """Nothing is said of a field that says nothing; ``store: false`` keeps something from being kept."""
    assert passed_fields({"models": None, "store": False}, pass_lists()) == ({"store": False}, ())
    assert passed_fields({"store": True}, pass_lists()) == ({}, ("store",))


def test_hosted_tools_and_features_have_names_of_their_own() -> None:
    """A tool's model is left out of it; servers and features of another price are left out as a whole."""
    search, advisor = hosted("web_search_1"), hosted("advisor_1", model="dear", name="advisor")
    plain = Tool(name="f", parameters={"type": "object", "properties": {"model": {"type": "string"}}})
    request = asked(plain, search, advisor, hosted("mcp_toolset"), anthropic_beta=["context-1m-2025", "files-api-2025"])
    passed, left_out = passed_request(request, pass_lists())
    assert passed.tools == (plain, search, hosted("advisor_1", name="advisor"))
    assert passed.extra == {"anthropic_beta": ["files-api-2025"]}
    assert left_out == ("betas.context-1m-2025", "tools.advisor_1.model", "tools.mcp_toolset")
    none, _ = passed_request(request, pass_lists(()))
    assert (none.tools, none.extra) == ((plain,), {})
    named = (
        "tools.mcp_toolset",
        "tools.advisor_1",
        "tools.advisor_1.model",
        "tools.web_*",
        "betas.context-1m-2025",
        "betas.*",
    )
    every, left_out = passed_request(request, pass_lists(named))
    assert (every, left_out) == (request, ())


def test_the_fingerprint_is_of_what_passes() -> None:
    """A field that is left out keeps nobody from sharing an answer; one that passes does."""
    bare, _ = passed_request(asked(), pass_lists())
    dropped, left_out = passed_request(asked(models=["dear"]), pass_lists())
    sampled, _ = passed_request(asked(top_k=1), pass_lists())
    assert left_out == ("models",)
    assert fingerprint("t", bare) == fingerprint("t", dropped) != fingerprint("t", sampled)


def test_a_warning_is_safe_and_short() -> None:
    """Whatever the names are."""
    text = warning_of([f"a\r\nb: {number}é" + "x" * 500 for number in range(100)])
    assert text.isascii()
    assert text.isprintable()
    assert text.endswith(f"and {100 - MAX_NAMED} more")
    assert len(text) < 2000
    assert warning_of(()) == ""
