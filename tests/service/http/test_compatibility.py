"""Every field of the tables in `docs/compatibility.md`, sent to an upstream of each dialect."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.testing import ScriptedUpstream, say
from tests.service.conftest import Start

JSON = dict[str, Any]
ABSENT = object()  # a field that the upstream does not get
ROW = re.compile(r"^\| (?!field|---)(.+?) \| .+ \|$", re.MULTILINE)
SECTION = re.compile(r"^## `POST (/v1/[a-z/]+)`$(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)

MARK = {"type": "ephemeral"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
PNG = "data:image/png;base64,AA=="
PDF = "data:application/pdf;base64,AA=="
FUNCTION = {"name": "f", "description": "d", "parameters": SCHEMA}
CHAT_TOOL = {"type": "function", "function": FUNCTION}
OWN_TOOL = {"name": "f", "description": "d", "input_schema": SCHEMA}
ITEM_TOOL = {"type": "function", **FUNCTION}
HOSTED = {"type": "web_search_20250305", "name": "web_search"}
CALL = {"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
USE = {"type": "tool_use", "id": "u1", "name": "f", "input": {"a": 1}}
USED = {"id": "u1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
SERVER = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}
SIGNED = {"type": "thinking", "thinking": "hm", "signature": "S"}
UNSIGNED = {"type": "thinking", "thinking": "hm", "signature": ""}


def text(value: str = "a", **more: Any) -> JSON:  # noqa: ANN401 - JSON
    """A part of text."""
    return {"type": "text", "text": value, **more}


def user(*parts: JSON) -> JSON:
    """A message of the user's."""
    return {"role": "user", "content": [*parts]}


def said(*parts: Any, **more: Any) -> JSON:  # noqa: ANN401 - JSON
    """A message of the assistant's, before one of the user's."""
    return {"role": "assistant", "content": parts[0] if len(parts) == 1 else [*parts], **more}


END = {"role": "user", "content": "q"}


def sends(*messages: JSON) -> JSON:
    """The field of these messages, and a last one."""
    return {"messages": [*messages, END]}


@dataclass(frozen=True)
class Case:
    """A field of a call, and what of it reaches an upstream.

    Attributes:
        call: fields of the call.
        openai: fields that an upstream of OpenAI's dialect gets; None for an upstream that is not asked.
        anthropic: the same of an Anthropic upstream.
        status: of the response, where an upstream is asked.
        headers: of the call.
    """

    call: JSON
    openai: JSON | None
    anthropic: JSON | None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


def both(call: JSON, sent: JSON) -> Case:
    """Both upstreams get the same."""
    return Case(call, sent, sent)


def refused(**call: Any) -> Case:  # noqa: ANN401 - JSON
    """No upstream is asked."""
    return Case(call, None, None)


def image(url: str = PNG, **more: Any) -> JSON:  # noqa: ANN401 - JSON
    """An image of OpenAI's."""
    return {"type": "image_url", "image_url": {"url": url, **more}}


def picture(**source: Any) -> JSON:  # noqa: ANN401 - JSON
    """An image of Anthropic's."""
    return {"type": "image", "source": source or {"type": "base64", "media_type": "image/png", "data": "AA=="}}


def document(**source: Any) -> JSON:  # noqa: ANN401 - JSON
    """A document of Anthropic's."""
    return {"type": "document", "source": source or {"type": "base64", "media_type": "application/pdf", "data": "AA=="}}


FILE = {"type": "file", "file": {"file_data": PDF, "filename": "a.pdf"}}
UPLOADED = {"type": "file", "file": {"file_id": "file-1"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}
SEARCHED = {"type": "search_result", "source": "s", "title": "t", "content": [text()]}
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}}
OWN_FORMAT = {"format": {"type": "json_schema", "schema": SCHEMA}}
CHAT_HISTORY = sends(said(None, tool_calls=[CALL]), {"role": "tool", "tool_call_id": "functions.f:0", "content": "r"})

CHAT: dict[str, list[Case]] = {
    "`model`": [both({}, {})],
    "`messages`": [
        Case(
            sends({"role": "developer", "content": "b"}, {"role": "user", "content": "a"}, said("A")),
            {"messages": [{"role": "system", "content": "b"}, {"role": "user", "content": "a"}, said("A"), END]},
            {"system": "b", "messages": [{"role": "user", "content": "a"}, said("A"), END]},
        ),
        refused(messages=[{"role": "function", "name": "f", "content": "x"}]),
    ],
    "content parts": [
        Case(sends(user(text(), image())), sends(user(text(), image())), sends(user(text(), picture()))),
        Case(sends(user({"type": "image_url", "image_url": PNG})), sends(user(image())), sends(user(picture()))),
        Case(
            sends(said(text(), {"type": "refusal", "refusal": "No"})),
            sends(said(text(), {"type": "refusal", "refusal": "No"})),
            sends(said(text(), text("No"))),
        ),
    ],
    "content parts of other types": [
        Case(sends(user({"type": "video_url", "x": 1})), sends(user({"type": "video_url", "x": 1})), None, 400),
        Case(
            sends(said({"type": "thinking", "thinking": []}, text())),
            sends(said({"type": "thinking", "thinking": []}, text())),
            sends(said([text()])),
        ),
    ],
    "`file` with `file_data`": [
        Case(sends(user(FILE)), sends(user(FILE)), sends(user({**document(), "title": "a.pdf"}))),
    ],
    "`file` with `file_id`, `input_audio`": [
        Case(sends(user(UPLOADED)), sends(user(UPLOADED)), None, 400),
        Case(sends(user(AUDIO)), sends(user(AUDIO)), None, 400),
    ],
    "`detail` of an image, `messages[].name`": [
        Case(sends(user(image(detail="low"))), sends(user(image(detail="low"))), sends(user(picture()))),
        Case(sends({**END, "name": "ann"}), sends({**END, "name": "ann"}), sends(END)),
    ],
    "`cache_control`, `prompt_cache_breakpoint` of a part": [
        Case(
            sends(user(text(cache_control=MARK, x=1))),
            sends(user(text(cache_control=MARK, x=1))),
            sends(user(text())),
        ),
        Case(
            sends(user(text(prompt_cache_breakpoint={"mode": "explicit"}))),
            sends(user(text(prompt_cache_breakpoint={"mode": "explicit"}))),
            sends(user(text())),
        ),
        Case(sends({**END, "x": 1}), sends({**END, "x": 1}), sends(END)),
    ],
    "several texts in a tool's message": [
        Case(
            {
                "messages": [
                    END,
                    said(None, tool_calls=[CALL]),
                    {"role": "tool", "tool_call_id": "functions.f:0", "content": [text("r"), text("s")]},
                ]
            },
            {
                "messages": [
                    END,
                    said(None, tool_calls=[CALL]),
                    {"role": "tool", "tool_call_id": "functions.f:0", "content": [text("r"), text("s")]},
                ]
            },
            {},
        )
    ],
    "images and files in a tool's message": [
        Case(
            {
                "messages": [
                    END,
                    said(None, tool_calls=[CALL]),
                    {"role": "tool", "tool_call_id": "functions.f:0", "content": [text("r"), image()]},
                ]
            },
            {
                "messages": [
                    END,
                    said(None, tool_calls=[CALL]),
                    {"role": "tool", "tool_call_id": "functions.f:0", "content": "r"},
                    user(text("What the call functions.f:0 has shown:"), image()),
                ]
            },
            {},
        )
    ],
    "`messages[].reasoning_content`": [
        Case(
            sends(said("A", reasoning_content=thought)),
            sends(said("A", reasoning_content=thought)),
            sends(said([text("A")])),
        )
        for thought in ("hm", "")
    ],
    "`messages[].refusal`": [
        Case(sends(said(None, refusal="No")), sends(said(None, refusal="No")), sends(said([text("No")])))
    ],
    "`messages[].tool_calls`": [
        Case(CHAT_HISTORY, CHAT_HISTORY, {}),
        Case(
            sends(said(None, tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "p", "input": "x"}}])),
            sends(said(None, tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "p", "input": "x"}}])),
            sends(said([{"type": "tool_use", "id": "c", "name": "p", "input": {"input": "x"}}])),
        ),
        Case(
            sends(said(None, tool_calls=[{"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}])),
            sends(said(None, tool_calls=[{**USED, "id": "c"}])),
            sends(said([{**USE, "id": "c"}])),
        ),
    ],
    "`stream`, `stream_options.include_usage`": [
        both({"stream": True, "stream_options": {"include_usage": True}}, {"stream": True})
    ],
    "`temperature`": [Case({"temperature": 1.5}, {"temperature": 1.5}, {"temperature": 1.0}), refused(temperature=3)],
    "`top_p`, `stop`": [
        Case(
            {"top_p": 0.5, "stop": ["", "\n", "x"]},
            {"top_p": 0.5, "stop": ["\n", "x"]},
            {"top_p": 0.5, "stop_sequences": ["x"]},
        ),
        refused(stop=list("abcde")),
    ],
    "`seed`": [Case({"seed": 7}, {"seed": 7}, {"seed": ABSENT})],
    "`max_tokens`, `max_completion_tokens`": [
        Case({"max_tokens": 5, "max_completion_tokens": 6}, {"max_tokens": 6}, {"max_tokens": 6}),
        Case({}, {"max_tokens": ABSENT}, {"max_tokens": 4096}),
    ],
    "`tools`, `tool_choice`": [
        Case(
            {"tools": [CHAT_TOOL, {"type": "web_search", "x": 1}], "tool_choice": "required"},
            {"tools": [CHAT_TOOL, {"type": "web_search", "x": 1}], "tool_choice": "required"},
            {"tools": [OWN_TOOL], "tool_choice": {"type": "any"}},
        ),
        Case(
            {"tools": [CHAT_TOOL], "tool_choice": {"type": "allowed_tools", "x": 1}},
            {"tool_choice": {"type": "allowed_tools", "x": 1}},
            {"tool_choice": ABSENT},
        ),
        Case({"tools": [], "tool_choice": "auto"}, {"tools": ABSENT, "tool_choice": ABSENT}, {"tool_choice": ABSENT}),
    ],
    "`function.strict`": [
        Case(
            {"tools": [{"type": "function", "function": {**FUNCTION, "strict": True, "x": 1}}]},
            {"tools": [{"type": "function", "function": {**FUNCTION, "strict": True, "x": 1}}]},
            {"tools": [{**OWN_TOOL, "strict": True}]},
        )
    ],
    "`parallel_tool_calls`": [
        Case(
            {"tools": [CHAT_TOOL], "parallel_tool_calls": False},
            {"parallel_tool_calls": False},
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        )
    ],
    "`reasoning_effort`": [
        Case({"reasoning_effort": given}, {"reasoning_effort": given}, {"output_config": sent})
        for given, sent in (
            ("high", {"effort": "high"}),
            ("minimal", {"effort": "low"}),
            ("xhigh", {"effort": "high"}),
            ("none", ABSENT),
        )
    ],
    "`response_format` `json_schema`": [
        Case({"response_format": FORMAT}, {"response_format": FORMAT}, {"output_config": OWN_FORMAT})
    ],
    "`response_format` `json_object`": [
        Case(
            {"response_format": {"type": "json_object"}},
            {"response_format": {"type": "json_object"}},
            {"system": "Answer with one JSON object, and with nothing before or after it.", "response_format": ABSENT},
        )
    ],
    "`n`": [refused(n=2), both({"n": 1}, {"n": ABSENT})],
    "`logprobs`, `top_logprobs`": [
        Case({"logprobs": True, "top_logprobs": 2}, {"logprobs": True, "top_logprobs": 2}, {"logprobs": ABSENT})
    ],
    "`modalities`, `audio`": [
        Case(
            {"modalities": ["text"], "audio": {"x": 1}}, {"modalities": ["text"], "audio": {"x": 1}}, {"audio": ABSENT}
        )
    ],
    "`logit_bias`, `user`, `metadata`, ...": [
        Case({name: value}, {name: value}, {name: ABSENT})
        for name, value in (("logit_bias", {"1": 2}), ("user", "u"), ("metadata", {"a": "b"}), ("min_p", 0.1))
    ],
    "`models`, `fallbacks`, `route`, `provider`, `plugins`, `service_tier`, `extra_body`, ...": [
        both({name: value}, {name: ABSENT})
        for name, value in (
            ("models", ["a/b"]),
            ("fallbacks", ["a/b"]),
            ("route", "fallback"),
            ("provider", {"order": ["x"]}),
            ("plugins", [{"id": "web"}]),
            ("service_tier", "priority"),
            ("extra_body", {"models": ["a/b"]}),
            ("news_to_us", [1]),
            ("store", True),
        )
    ],
}

RESULT = {"type": "tool_result", "tool_use_id": "u1", "content": [text("r"), picture()], "is_error": True}
CITED = {"enabled": True}

MESSAGES: dict[str, list[Case]] = {
    "`model`": [both({}, {})],
    "`max_tokens`": [both({"max_tokens": 7}, {"max_tokens": 7}), refused(max_tokens=None), refused(max_tokens=0)],
    "`messages`": [
        Case(
            sends(END, said("A"), {"role": "system", "content": "b"}),
            {"messages": [END, said("A"), {"role": "system", "content": "b"}, END]},
            {"messages": [END, said("A"), END], "system": "b"},
        ),
        refused(messages=[]),
    ],
    "`system`": [
        Case({"system": "b"}, {"messages": [{"role": "system", "content": "b"}, END]}, {"system": "b"}),
        Case(
            {"system": [text("b"), text("c")]},
            {"messages": [{"role": "system", "content": "b\n\nc"}, END]},
            {"system": [text("b"), text("c")]},
        ),
    ],
    "`text`, `image` blocks": [
        Case(sends(user(text(), picture())), sends(user(text(), image())), sends(user(text(), picture()))),
        Case(
            sends(user(picture(type="url", url="https://x/y"))),
            sends(user(image("https://x/y"))),
            sends(user(picture(type="url", url="https://x/y"))),
        ),
    ],
    "`document` blocks": [
        Case(
            sends(user(document())), sends(user({"type": "file", "file": {"file_data": PDF}})), sends(user(document()))
        ),
        Case(
            sends(user(document(type="text", media_type="text/plain", data="d"))),
            sends(user(text("d"))),
            sends(user(document(type="text", media_type="text/plain", data="d"))),
        ),
        Case(
            sends(user(document(type="url", url="https://x/y.pdf"))),
            None,
            sends(user(document(type="url", url="https://x/y.pdf"))),
            400,
        ),
    ],
    "`image` and `document` by `file`, `document` by `content`, `search_result`": [
        Case(sends(user(block)), None, sends(user(block)), 400)
        for block in (
            picture(type="file", file_id="f"),
            document(type="file", file_id="f"),
            document(type="content", content=[text()]),
            SEARCHED,
        )
    ],
    "`tool_use` blocks": [
        Case(
            sends(END, said([{**USE, "caller": {"type": "direct"}}])),
            sends(END, said(None, tool_calls=[USED])),
            sends(END, said([{**USE, "caller": {"type": "direct"}}])),
        )
    ],
    "`tool_result` blocks": [
        Case(
            {"messages": [END, said([USE]), user(RESULT, text("and"))]},
            {
                "messages": [
                    END,
                    said(None, tool_calls=[USED]),
                    {"role": "tool", "tool_call_id": "u1", "content": "Error: r"},
                    user(text("What the call u1 has shown:"), image()),
                    {"role": "user", "content": "and"},
                ]
            },
            {"messages": [END, said([USE]), user(RESULT, text("and"))]},
        ),
        Case(
            {"messages": [END, said([USE]), user(text("and"), RESULT)]},
            {},
            {"messages": [END, said([USE]), user(RESULT, text("and"))]},
        ),
    ],
    "`thinking`, `redacted_thinking` blocks": [
        Case(
            sends(END, said(SIGNED, UNSIGNED, {"type": "redacted_thinking", "data": "x"}, text("A"))),
            sends(END, said("A", reasoning_content="hm")),
            sends(END, said(SIGNED, {"type": "redacted_thinking", "data": "x"}, text("A"))),
        )
    ],
    "other blocks": [
        Case(sends(END, said(SERVER, text("A"))), sends(END, said("A")), sends(END, said(SERVER, text("A")))),
        Case(
            sends(user({"type": "container_upload", "file_id": "f"})),
            None,
            sends(user({"type": "container_upload", "file_id": "f"})),
            400,
        ),
    ],
    "`cache_control`, `citations` and `context` of a block": [
        Case(
            sends(user({**document(), "citations": CITED, "context": "c", "cache_control": MARK, "x": 1})),
            sends(user({"type": "file", "file": {"file_data": PDF}})),
            sends(user({**document(), "citations": CITED, "context": "c", "cache_control": MARK, "x": 1})),
        ),
        Case(
            {"system": [text("b", cache_control=MARK)]},
            {"messages": [{"role": "system", "content": "b"}, END]},
            {"system": [text("b", cache_control=MARK)]},
        ),
    ],
    "`cache_control`, `defer_loading`, `eager_input_streaming`, `input_examples`, `allowed_callers` of a tool": [
        Case({"tools": [{**OWN_TOOL, name: value}]}, {"tools": [CHAT_TOOL]}, {"tools": [{**OWN_TOOL, name: value}]})
        for name, value in (
            ("cache_control", MARK),
            ("defer_loading", True),
            ("eager_input_streaming", True),
            ("input_examples", [{"a": 1}]),
            ("allowed_callers", ["direct"]),
            ("news_to_us", 1),
        )
    ],
    "`strict` of a tool": [
        Case(
            {"tools": [{**OWN_TOOL, "strict": True}]},
            {"tools": [{"type": "function", "function": {**FUNCTION, "strict": True}}]},
            {"tools": [{**OWN_TOOL, "strict": True}]},
        ),
        Case(
            {"tools": [{**OWN_TOOL, "input_schema": {**SCHEMA, "required": []}, "strict": True}]},
            {"tools": [{"type": "function", "function": {**FUNCTION, "parameters": {**SCHEMA, "required": []}}}]},
            {"tools": [{**OWN_TOOL, "input_schema": {**SCHEMA, "required": []}, "strict": True}]},
        ),
    ],
    "`stream`": [both({"stream": True}, {"stream": True})],
    "`temperature`": [both({"temperature": 0.5}, {"temperature": 0.5}), refused(temperature=1.5)],
    "`top_p`": [both({"top_p": 0.5}, {"top_p": 0.5})],
    "`top_k`": [Case({"top_k": 3}, {"top_k": ABSENT}, {"top_k": 3})],
    "`stop_sequences`": [
        Case({"stop_sequences": ["x", " "]}, {"stop": ["x", " "]}, {"stop_sequences": ["x"]}),
        refused(stop_sequences=["x"] * 65),
    ],
    "`tools`": [
        Case({"tools": [OWN_TOOL]}, {"tools": [CHAT_TOOL]}, {"tools": [OWN_TOOL]}),
        Case(
            {"tools": [{**OWN_TOOL, "name": f"t{number}"} for number in range(200)]},
            {},
            {"tools": [{**OWN_TOOL, "name": f"t{number}"} for number in range(200)]},
        ),
    ],
    "`tools` of the vendor's own types": [
        Case({"tools": [HOSTED, OWN_TOOL]}, {"tools": [CHAT_TOOL]}, {"tools": [HOSTED, OWN_TOOL]}),
        both({"tools": [{"type": "mcp_toolset", "x": 1}]}, {"tools": ABSENT}),
        Case(
            {"tools": [{"type": "advisor_1", "name": "advisor", "model": "dear"}]},
            {"tools": ABSENT},
            {"tools": [{"type": "advisor_1", "name": "advisor"}]},
        ),
    ],
    "`tool_choice`": [
        Case(
            {"tools": [OWN_TOOL], "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
            {"tool_choice": "required", "parallel_tool_calls": False},
            {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
        ),
        Case({"tool_choice": {"type": "auto"}}, {"tool_choice": ABSENT}, {"tool_choice": ABSENT}),
    ],
    "`output_config.format`": [
        Case(
            {"output_config": OWN_FORMAT},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA},
                }
            },
            {"output_config": OWN_FORMAT},
        )
    ],
    "`output_config.effort`": [
        Case({"output_config": {"effort": "max"}}, {"reasoning_effort": "high"}, {"output_config": {"effort": "max"}})
    ],
    "`thinking`": [
        Case(
            {"thinking": {"type": "enabled", "budget_tokens": budget}},
            {"reasoning_effort": effort, "thinking": ABSENT},
            {"thinking": {"type": "enabled", "budget_tokens": budget}},
        )
        for budget, effort in ((4096, "low"), (16_384, "medium"), (16_385, "high"))
    ],
    "`metadata`, ...": [
        Case({name: value}, {name: ABSENT}, {name: value})
        for name, value in (("metadata", {"user_id": "u"}), ("cache_control", MARK))
    ],
    "`service_tier`, `speed`, `inference_geo`, `mcp_servers`, `container`, `fallbacks`, ...": [
        both({name: value}, {name: ABSENT})
        for name, value in (
            ("service_tier", "auto"),
            ("speed", "fast"),
            ("inference_geo", "us"),
            ("mcp_servers", [{"name": "s"}]),
            ("container", "container_1"),
            ("fallbacks", [{"model": "dear"}]),
        )
    ],
    "header `anthropic-version`": [Case({}, {}, {}, headers={"anthropic-version": "2020-01-01"})],
    "header `anthropic-beta`": [
        Case({}, {"anthropic_beta": ABSENT}, {"anthropic_beta": ABSENT}, headers={"anthropic-beta": "a-2025"})
    ],
}


def items(*given: JSON) -> JSON:
    """The field of these items, and a message."""
    return {"input": [*given, END]}


def output(value: str = "A") -> JSON:
    """A message of the assistant's, as an item."""
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "output_text", "text": value, "annotations": []}],
    }


ITEM_CALL = {"type": "function_call", "call_id": "u1", "name": "f", "arguments": '{"a":1}'}
THOUGHT = {
    "type": "reasoning",
    "summary": [],
    "content": [{"type": "reasoning_text", "text": "hm"}],
    "encrypted_content": "E",
}

RESPONSES: dict[str, list[Case]] = {
    "`model`, `temperature`, `top_p`, `seed`": [
        Case(
            {"temperature": 1.5, "top_p": 0.5, "seed": 7},
            {"temperature": 1.5, "top_p": 0.5, "seed": 7},
            {"temperature": 1.0, "seed": ABSENT},
        )
    ],
    "`input`": [
        both({"input": "q"}, {"messages": [END]}),
        Case(
            items(output("A"), ITEM_CALL, {"type": "function_call_output", "call_id": "u1", "output": "r"}),
            sends(said("A", tool_calls=[USED]), {"role": "tool", "tool_call_id": "u1", "content": "r"}),
            {
                "messages": [
                    said(text("A"), USE),
                    user({"type": "tool_result", "tool_use_id": "u1", "content": "r"}, text("q")),
                ]
            },
        ),
        Case(items(ITEM_CALL, output("A")), sends(said("A", tool_calls=[USED])), sends(said(USE, text("A")))),
    ],
    "`reasoning` items": [
        Case(items(THOUGHT, output()), sends(said("A", reasoning_content="hm")), sends(said([text("A")])))
    ],
    "items of the vendor's own tools": [
        both(items(END, {"type": kind, "id": "x"}), sends(END))
        for kind in (
            "web_search_call",
            "file_search_call",
            "code_interpreter_call",
            "image_generation_call",
            "mcp_call",
            "mcp_list_tools",
        )
    ],
    "other items (`item_reference`, ...)": [
        refused(input=[{"type": "item_reference", "id": "x"}]),
        refused(input=[{"type": "custom_tool_call"}]),
    ],
    "content parts": [
        Case(
            items(
                {
                    "role": "user",
                    "content": [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": PNG}],
                }
            ),
            sends(user(text(), image())),
            sends(user(text(), picture())),
        ),
        Case(
            items({"role": "assistant", "content": [{"type": "refusal", "refusal": "No"}]}),
            sends(said([{"type": "refusal", "refusal": "No"}])),
            sends(said([text("No")])),
        ),
        refused(input=[{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]),
    ],
    "`input_file`": [
        Case(
            items({"role": "user", "content": [{"type": "input_file", "file_data": PDF, "filename": "a.pdf"}]}),
            sends(user(FILE)),
            sends(user({**document(), "title": "a.pdf"})),
        ),
        Case(
            items({"role": "user", "content": [{"type": "input_file", "file_url": "https://x/y.pdf"}]}),
            None,
            sends(user(document(type="url", url="https://x/y.pdf"))),
            400,
        ),
    ],
    "`detail` of an image, `prompt_cache_breakpoint` of a part": [
        Case(
            items(
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "input_image",
                            "image_url": PNG,
                            "detail": "low",
                            "prompt_cache_breakpoint": {"mode": "x"},
                        }
                    ],
                }
            ),
            sends(user({**image(detail="low"), "prompt_cache_breakpoint": {"mode": "x"}})),
            sends(user(picture())),
        )
    ],
    "`instructions`": [
        Case({"instructions": "b"}, {"messages": [{"role": "system", "content": "b"}, END]}, {"system": "b"})
    ],
    "`previous_response_id`": [Case({"previous_response_id": "resp_nobody"}, None, None, 404)],
    "`max_output_tokens`": [both({"max_output_tokens": 7}, {"max_tokens": 7})],
    "`tools`": [
        Case({"tools": [ITEM_TOOL]}, {"tools": [CHAT_TOOL]}, {"tools": [OWN_TOOL]}),
        refused(tools=[{"type": "web_search"}]),
    ],
    "`tool_choice`": [
        Case(
            {"tools": [ITEM_TOOL], "tool_choice": {"type": "function", "name": "f"}},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": {"type": "tool", "name": "f"}},
        ),
        refused(tools=[ITEM_TOOL], tool_choice={"type": "file_search"}),
    ],
    "`text.format`": [
        Case(
            {"text": {"format": {"type": "json_schema", "name": "n", "strict": True, "schema": SCHEMA}}},
            {"response_format": FORMAT},
            {"output_config": OWN_FORMAT},
        ),
        Case(
            {"text": {"format": {"type": "json_object"}}},
            {"response_format": {"type": "json_object"}},
            {"output_config": ABSENT},
        ),
    ],
    "`text.verbosity`": [Case({"text": {"verbosity": "low"}}, {"verbosity": "low"}, {"verbosity": ABSENT})],
    "`reasoning.effort`, `parallel_tool_calls`": [
        Case({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}, {"output_config": {"effort": "low"}}),
        Case(
            {"tools": [ITEM_TOOL], "parallel_tool_calls": False},
            {"parallel_tool_calls": False},
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        ),
    ],
    "`stream`, `background`, `metadata`": [
        both({"stream": True, "metadata": {"a": "b"}}, {"stream": True, "metadata": ABSENT}),
    ],
    "`store`": [both({"store": False}, {"store": ABSENT}), refused(store=False, background=True)],
    "`conversation`, `prompt`, `moderation`": [
        refused(conversation="c"),
        refused(prompt={"id": "p"}),
        refused(moderation={"x": 1}),
    ],
    "`include`, `truncation`, `max_tool_calls`, `top_logprobs`, `stream_options`": [
        both({name: value}, {name: ABSENT})
        for name, value in (("include", ["x"]), ("truncation", "auto"), ("max_tool_calls", 1), ("top_logprobs", 1))
    ],
    "`user`, ...": [Case({"user": "u"}, {"user": "u"}, {"user": ABSENT})],
    "`service_tier`, ...": [both({"service_tier": "x"}, {"service_tier": ABSENT})],
}

TABLES = {"/v1/chat/completions": CHAT, "/v1/messages": MESSAGES, "/v1/responses": RESPONSES}
BASE: dict[str, JSON] = {
    "/v1/chat/completions": {"messages": [END]},
    "/v1/messages": {"messages": [END], "max_tokens": 9},
    "/v1/responses": {"input": "q"},
}


def test_every_row_of_the_tables_is_sent(root: Path) -> None:
    """The page has no row without a case, and there is no case without a row."""
    page = (root / "docs" / "compatibility.md").read_text(encoding="utf-8")
    rows = {path: ROW.findall(section) for path, section in SECTION.findall(page) if path in TABLES}
    fields = {path: [row.split(" | ")[0] for row in found] for path, found in rows.items()}
    assert fields == {path: list(table) for path, table in TABLES.items()}


@pytest.mark.parametrize(("path", "row"), [(path, row) for path, table in TABLES.items() for row in table])
async def test_a_field_reaches_the_upstream_as_its_row_says(
    start: Start, upstream: ScriptedUpstream, path: str, row: str
) -> None:
    """As supported, mapped, passed on, ignored or refused, by an upstream of each dialect."""
    upstream.default = say('{"a":1}')
    running = await start(anthropic_base_url=upstream.anthropic_url)
    for number, case in enumerate(TABLES[path][row]):
        for provider, expected in (("openai", case.openai), ("anthropic", case.anthropic)):
            body = {"model": f"{provider}/m", **BASE[path], **case.call}
            calls = upstream.calls
            headers = {"content-type": "application/json", "x-tidegate-dedupe": "off", **case.headers}
            async with running.client.post(path, data=msgspec.json.encode(body), headers=headers) as response:
                said_back = await response.text()
            where = (row, number, provider, said_back)
            if expected is None:
                refusal = 400 if case.status == 200 else case.status
                assert (response.status, upstream.calls) == (refusal, calls), where
                continue
            assert (response.status, upstream.calls) == (200, calls + 1), where
            sent = upstream.received[-1].body
            for name, value in expected.items():
                assert sent.get(name, ABSENT) == value, (*where, name)
