"""The table of odd answers: what an upstream says in another form than its dialect's, and what clients get of it."""

from dataclasses import dataclass
from typing import Any

JSON = dict[str, Any]
Called = tuple[str, Any]  # the name of a tool, and its arguments as JSON


@dataclass(frozen=True)
class Form:
    """An answer.

    Attributes:
        name: in messages of failures.
        events: the data of the stream's events, or the whole answer where it is one ``whole``.
        text: what every client gets.
        calls: the same.
        fields: what clients of the upstream's own dialect get beside that, in a whole answer.
        code: of the failure; empty for an answer.
        elsewhere: of the failure at the surfaces of dialects that can't show the answer; empty for an answer.
        whole: whether the answer is whole JSON.
    """

    name: str
    events: tuple[JSON, ...]
    text: str = ""
    calls: tuple[Called, ...] = ()
    fields: Any = None
    code: str = ""
    elsewhere: str = ""
    whole: bool = False


BAD = "provider_bad_response"
USAGE = {"prompt_tokens": 7, "completion_tokens": 3}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAA="}}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "SIG"}


def chunk(delta: Any, finish: str | None = None, **choice: Any) -> JSON:  # noqa: ANN401 - JSON
    """A chunk with one choice."""
    return {"id": "x", "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish, **choice}]}


def flow(*deltas: Any, finish: str = "stop") -> tuple[JSON, ...]:  # noqa: ANN401 - JSON
    """The chunks of a stream."""
    return *map(chunk, deltas), chunk({}, finish), {"choices": [], "usage": USAGE}


def calls(*pieces: Any) -> tuple[JSON, ...]:  # noqa: ANN401 - JSON
    """A stream of pieces of calls, a chunk for each."""
    return flow(*({"tool_calls": [piece]} for piece in pieces), finish="tool_calls")


def message(finish: str = "stop", **fields: Any) -> tuple[JSON, ...]:  # noqa: ANN401 - JSON
    """A whole answer."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None, **fields}, "finish_reason": finish}
    return ({"id": "x", "model": "m", "choices": [choice], "usage": USAGE},)


def function(arguments: Any, name: str = "f", **fields: Any) -> JSON:  # noqa: ANN401 - JSON
    """A call of a function, with the id that all calls have."""
    return {"id": "a", "type": "function", "function": {"name": name, "arguments": arguments}, **fields}


ONE = (("f", {"x": 1}),)
TWO = (("f", {"x": 1}), ("g", {"x": 2}))
SAME = (("f", {"x": 1}), ("f", {"x": 2}))
FIRST, SECOND = function('{"x":1}'), function('{"x":2}', "g")
CUSTOM = {"id": "c1", "type": "custom", "custom": {"name": "run", "input": "x = 1"}}
RUN = (("run", {"input": "x = 1"}),)

OPENAI_FORMS = (
    # calls in another form
    Form("a flat call", calls({"index": 0, "id": "a", "name": "f", "arguments": '{"x":1}'}), calls=ONE),
    Form(
        "a flat call in a whole answer",
        message("tool_calls", tool_calls=[{"name": "f", "args": {"x": 1}}]),
        calls=ONE,
        whole=True,
    ),
    Form(
        "a function as text", calls({"index": 0, "id": "a", "function": '{"name":"f","arguments":{"x":1}}'}), calls=ONE
    ),
    Form("calls as text", flow({"tool_calls": '[{"name":"f","arguments":{"x":1}}]'}, finish="tool_calls"), calls=ONE),
    Form("a call without a name", calls({"index": 0, "id": "a", "function": {"arguments": "{}"}}), code=BAD),
    Form("arguments of no call", calls({"index": 0, "function": {"arguments": '{"x":1}'}}), code=BAD),
    Form("a call that is none", calls(7), code=BAD),
    Form("no call", flow({"content": ""}, finish="tool_calls"), code=BAD),
    # calls that stay apart
    Form("two functions with one id", calls(FIRST, SECOND), calls=TWO),
    Form("two functions with one id and index", calls({**FIRST, "index": 0}, {**SECOND, "index": 0}), calls=TWO),
    Form("two functions in one delta", flow({"tool_calls": [FIRST, SECOND]}, finish="tool_calls"), calls=TWO),
    Form("two functions in a whole answer", message("tool_calls", tool_calls=[FIRST, SECOND]), calls=TWO, whole=True),
    Form("two objects with one id", calls(FIRST, function('{"x":2}')), calls=SAME),
    Form(
        "two objects, one name",
        calls({**FIRST, "index": 0}, {"index": 0, "function": {"arguments": '{"x":2}'}}),
        calls=SAME,
    ),
    Form(
        "a second object in pieces",
        calls(FIRST, {"function": {"arguments": '{"x"'}}, {"function": {"arguments": ":2}"}}),
        calls=SAME,
    ),
    Form("one object twice", calls(FIRST, function('{"x": 1}')), calls=ONE),
    # calls of other kinds
    Form(
        "a custom call",
        calls(
            {"index": 0, **CUSTOM, "custom": {"name": "run", "input": "x ="}}, {"index": 0, "custom": {"input": " 1"}}
        ),
        calls=RUN,
        fields={"tool_calls": [CUSTOM]},
    ),
    Form(
        "a custom call in a whole answer",
        message("tool_calls", tool_calls=[CUSTOM]),
        calls=RUN,
        whole=True,
        fields={"tool_calls": [CUSTOM]},
    ),
    # content in another form
    Form("a part with a value", flow({"content": [{"type": "text", "text": {"value": "Hello"}}]}), text="Hello"),
    Form("text of a choice", (chunk(None, text="Hello"), chunk(None, "stop")), text="Hello"),
    Form("text of a delta", flow({"text": "Hello"}), text="Hello"),
    Form(
        "text of a whole choice",
        ({"choices": [{"index": 0, "text": "Hello", "finish_reason": "stop"}]},),
        text="Hello",
        whole=True,
    ),
    Form("a delta that is a text", flow("Hel", "lo"), text="Hello"),
    Form(
        "a message that is a text",
        ({"choices": [{"message": "Hello", "finish_reason": "stop"}]},),
        text="Hello",
        whole=True,
    ),
    Form("a chunk that is a choice", ({"delta": {"content": "Hello"}}, chunk({}, "stop")), text="Hello"),
    Form(
        "a part of an unknown type",
        flow({"content": [{"type": "holo", "data": "Hello"}, "there"]}),
        text="there",
        fields={"content_parts": [{"type": "holo", "data": "Hello"}]},
    ),
    Form("content of no form", flow({"content": {"news": "Hello"}}), code=BAD),
    Form("content that is true", flow({"content": True}), code=BAD),
    # what is said twice, and beside each other
    Form(
        "a message at the end",
        (*flow({"content": "Hel"}, {"content": "lo"})[:2], *message(content="Hello")),
        text="Hello",
    ),
    Form("a longer message at the end", (chunk({"content": "Hel"}), *message(content="Hello")), text="Hello"),
    Form("another message at the end", (chunk({"content": "Hel"}), *message(content="World")), text="Hel", code=BAD),
    Form(
        "calls once more at the end",
        (*calls(FIRST, SECOND)[:2], *message("tool_calls", tool_calls=[FIRST, SECOND])),
        calls=TWO,
    ),
    Form(
        "all text in the last delta",
        (chunk({"content": "Hel"}), chunk({"content": "lo"}), chunk({"content": "Hello"}, "stop")),
        text="Hello",
    ),
    Form(
        "choices without an index",
        ({"choices": [{"message": {"content": c}, "finish_reason": "stop"} for c in "AB"]},),
        text="A",
        whole=True,
    ),
    Form(
        "deltas without an index", ({"choices": [{"delta": {"content": c}} for c in "AB"]}, chunk({}, "stop")), text="A"
    ),
    # fields of an upstream's own
    Form(
        "images",
        flow({"content": "Hi"}, {"content": "", "images": [IMAGE]}, {"images": [IMAGE | {"index": 1}]}),
        text="Hi",
        fields={"images": [IMAGE, IMAGE | {"index": 1}]},
    ),
    Form("an image alone", flow({"images": [IMAGE]}), fields={"images": [IMAGE]}, elsewhere=BAD),
    Form("an image alone in the content", flow({"content": [IMAGE]}), fields={"images": [IMAGE]}, elsewhere=BAD),
    Form(
        "a part of an unknown type alone",
        flow({"content": [{"type": "holo", "data": "Hello"}]}),
        fields={"content_parts": [{"type": "holo", "data": "Hello"}]},
        elsewhere=BAD,
    ),
    Form("an image in the content", flow({"content": ["Hi", IMAGE]}), text="Hi", fields={"images": [IMAGE]}),
    Form(
        "fields beside a text",
        flow({"content": "Hi"}, {"content": "!", "thinking": "h"}, {"content": "!", "thinking": "m"}),
        text="Hi!!",
        fields={"thinking": "hm"},
    ),
    Form(
        "signed thoughts",
        flow(
            {"thinking_blocks": [{"type": "thinking", "thinking": "h"}]},
            {"thinking_blocks": [{"type": "thinking", "thinking": "m", "signature": "SIG"}]},
            {"content": "Hi"},
        ),
        text="Hi",
        fields={"thinking_blocks": [SIGNED]},
    ),
    Form(
        "fields of a whole answer",
        message(content="Hi", provider_specific_fields={"a": ["S"], "b": None}),
        text="Hi",
        fields={"provider_specific_fields": {"a": ["S"], "b": None}},
        whole=True,
    ),
    Form(
        "fields that say nothing",
        flow({"content": "Hi", "provider_specific_fields": {"a": None}, "prefix": False}),
        text="Hi",
        fields={},
    ),
)


def start(*content: JSON) -> JSON:
    """The start of a message."""
    return {
        "type": "message_start",
        "message": {"id": "x", "model": "m", "content": content, "usage": {"input_tokens": 7}},
    }


def begin(index: int = 0, kind: str = "text", **fields: Any) -> JSON:  # noqa: ANN401 - JSON
    """The start of a block."""
    block = {"text": ""} if kind == "text" else {}
    return {"type": "content_block_start", "index": index, "content_block": {"type": kind, **block, **fields}}


def piece(delta: Any, index: int = 0) -> JSON:  # noqa: ANN401 - JSON
    """A delta of a block."""
    return {"type": "content_block_delta", "index": index, "delta": delta}


def ends(reason: str = "end_turn") -> tuple[JSON, ...]:
    """The end of a message."""
    usage = {"output_tokens": 3}
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}, {"type": "message_stop"}


HELLO = {"type": "text", "text": "Hello"}
SAID = piece({"type": "text_delta", "text": "Hello"})
WEIRD = piece({"type": "weird_delta", "weird": "news"})

ANTHROPIC_FORMS = (
    Form("no call", (start(), *ends("tool_use")), code=BAD),
    Form(
        "arguments of no block",
        (start(), piece({"type": "input_json_delta", "partial_json": "{}"}), *ends("tool_use")),
        code=BAD,
    ),
    Form(
        "arguments of a text",
        (start(), begin(), piece({"type": "input_json_delta", "partial_json": "{}"}), *ends()),
        code=BAD,
    ),
    Form(
        "an unknown delta of a call",
        (start(), begin(kind="tool_use", id="a", name="f"), WEIRD, *ends("tool_use")),
        code=BAD,
    ),
    Form("content in the start", (start(HELLO), *ends()), text="Hello"),
    Form("content in the start and after it", (start(HELLO), begin(), SAID, *ends()), text="Hello"),
    Form(
        "content in the start that goes on",
        (start(HELLO), piece({"type": "text_delta", "text": "!"}), *ends()),
        text="Hello!",
    ),
    Form(
        "a call in the start",
        (start({"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}}), *ends("tool_use")),
        calls=ONE,
    ),
    Form("text in parts", (start(), begin(), piece({"type": "text_delta", "text": [HELLO]}), *ends()), text="Hello"),
    Form("a block with a value", (start(), begin(text={"value": "Hello"}), *ends()), text="Hello"),
    Form(
        "a block that is a text",
        (start(), {"type": "content_block_start", "index": 0, "content_block": "Hello"}, *ends()),
        text="Hello",
    ),
    Form("a delta that is a text", (start(), begin(), piece("Hello"), *ends()), text="Hello"),
    Form(
        "a delta without a delta",
        (start(), begin(), {"type": "content_block_delta", "index": 0, "text": "Hello"}, *ends()),
        text="Hello",
    ),
    Form("an unknown block alone", (start(), begin(kind="holo", data="Hello"), *ends()), elsewhere=BAD),
    Form("an unknown delta of a text alone", (start(), begin(), WEIRD, *ends()), elsewhere=BAD),
    Form(
        "an unknown delta of a text", (start(), begin(), SAID, WEIRD, *ends()), text="Hello", fields={"weird": "news"}
    ),
    Form("only an unknown delta", (start(), WEIRD, *ends()), code=BAD),
    Form("only an unknown event", (start(), {"type": "news", "delta": {"text": "Hello"}}, *ends()), code=BAD),
    Form(
        "a message at the end",
        (start(), begin(), SAID, {"type": "message", "content": [HELLO], "stop_reason": "end_turn"}),
        text="Hello",
    ),
    Form(
        "another message at the end",
        (start(), begin(), SAID, {"type": "message", "content": ["?"], "stop_reason": "end_turn"}),
        text="Hello",
        code=BAD,
    ),
)
