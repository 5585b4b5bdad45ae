"""What every provider adapter sends: names and schemas that the vendor does not take, in a form that it does."""

import json
from typing import Any

import pytest

from actors.testing import Call, Data, End, Fault, Reply
from tests.contracts.conformance.adapters import ADAPTERS, Adapter
from tests.contracts.conformance.faults import PATIENT, TOTAL
from tests.contracts.conformance.rig import Rig, open_rig

LONG = "mcp__plugin_chrome-devtools-mcp_chrome-devtools__" + "get_console_message_" * 5
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
REMOTE = tuple(adapter for adapter in ADAPTERS if adapter.name != "local")
REFUSALS = (
    Reply(status=400, body=b'{"error":{"message":"Invalid schema: this is not permitted"}}'),
    Reply(status=400, body=b'{"error":{"message":"Failed to parse grammar"}}'),
    Reply(status=500, body=b'{"error":{"message":"Grammar error: Unimplemented keys"}}'),
    Reply(status=404, body=b'{"error":{"message":"No endpoints found that can handle the requested parameters."}}'),
    Reply(steps=(Fault(kind="invalid_request_error", message="Invalid schema for response_format"),)),
    Reply(steps=(Fault(kind="api_error", message="failed to compile the grammar"),)),
)
PNG = "data:image/jpg;name=x;base64,iVBORw0KGgo="
ERROR = {"message": "boom", "code": 500}
FAILED: tuple[dict[str, Any], ...] = (
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "x_groq": {"error": "over capacity"}},
    {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 3}, "x_groq": {"error": "over capacity"}},
    {"choices": [{"index": 0, "delta": {"content": "lo", "error": ERROR}}]},
    {"choices": [{"index": 0, "delta": {"content": "", "error": "CUDA error: out of memory"}}]},
    {"choices": [{"index": 0, "message": {"content": "lo", "error": ERROR}}]},
    {"choices": [{"index": 0, "delta": {}, "error": ERROR}]},
    {"choices": [{"index": 0, "delta": {"content": "lo"}}], "error_code": 17, "error_msg": "daily limit"},
)
OPENAI = tuple(adapter for adapter in ADAPTERS if adapter.name in ("openai", "azure", "local"))
ANTHROPIC = tuple(adapter for adapter in ADAPTERS if adapter not in OPENAI)
CALLED = End(finish_reason="tool_calls")


async def native(rig: Rig, adapter: Adapter, **body: Any) -> Any:  # noqa: ANN401 - JSON
    """The last event of a native request."""
    submitted = {"model": adapter.target, "messages": [{"role": "user", "content": "hi"}], **body}
    async with rig.client.post("/api/requests", json=submitted) as response:
        assert response.status == 202, await response.text()
        place = response.headers["Location"]
    async with rig.client.get(f"{place}/events") as response:
        await response.read()
    async with rig.client.get(place) as response:
        return await response.json()


def tools_of(body: dict[str, Any]) -> list[str]:
    """The names of the tools that were sent."""
    return [tool.get("function", tool)["name"] for tool in body["tools"]]


@pytest.mark.parametrize("adapter", REMOTE, ids=lambda adapter: adapter.name)
async def test_a_long_name_is_the_callers_in_the_answer(adapter: Adapter) -> None:
    """The upstream gets a name that it takes, and the caller its own."""
    tools = [{"name": LONG, "parameters": {"type": "object"}}]
    async with open_rig([adapter], deadlines=PATIENT, total=TOTAL) as rig:
        rig.upstream.script(Reply(steps=(Call(id="c1", name="look", arguments="{}"), CALLED)))
        await native(rig, adapter, tools=tools)
        (sent,) = tools_of(rig.upstream.received[0].body)
        assert len(sent) <= 128
        rig.upstream.script(Reply(steps=(Call(id="c1", name=sent, arguments="{}"), CALLED)))
        state = await native(rig, adapter, tools=tools, options={"seed": 2})
        assert [call["name"] for call in state["coreResult"]["toolCalls"]] == [LONG]


@pytest.mark.parametrize("adapter", REMOTE, ids=lambda adapter: adapter.name)
@pytest.mark.parametrize("refused", REFUSALS)
async def test_a_refused_schema_is_followed_by_the_next_form(adapter: Adapter, refused: Reply) -> None:
    """A tool, whose arguments are the answer; the request has one attempt."""
    async with open_rig([adapter], deadlines=PATIENT, total=TOTAL) as rig:
        answer = Call(id="c1", name="answer", arguments='{"ok":true}')
        rig.upstream.script(refused, Reply(steps=(answer, CALLED)))
        state = await native(rig, adapter, schema=SCHEMA)
        assert (state["coreResult"], len(state["attempts"]), rig.upstream.calls) == ({"ok": True}, 1, 2)


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
async def test_a_tool_without_parameters_is_sent_as_an_object(adapter: Adapter) -> None:
    """No vendor takes a schema without a type, and nobody wrote an empty description."""
    async with open_rig([adapter], deadlines=PATIENT, total=TOTAL) as rig:
        await native(rig, adapter, tools=[{"name": "look"}])
        tool = rig.upstream.received[0].body["tools"][0]
        tool = tool.get("function", tool)
        schema = tool.get("parameters", tool.get("input_schema"))
        assert (schema["type"], "description" in tool) == ("object", False)
        assert "properties" in schema or adapter in ANTHROPIC


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
async def test_a_call_and_its_result_keep_one_id(adapter: Adapter) -> None:
    """Ids of any length and form: they match, stay different, and are such that the vendor takes them."""
    ids = ["x" * 90, "x" * 90 + "y", "chatcmpl-tool-" + "0" * 32]
    calls = [{"id": name, "name": "f", "arguments": "{}"} for name in ids]
    results = [{"role": "tool", "toolCallId": name, "content": "r"} for name in ids]
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "toolCalls": calls}, *results]
    async with open_rig([adapter], deadlines=PATIENT, total=TOTAL) as rig:
        await native(rig, adapter, messages=messages)
        turns = rig.upstream.received[0].body["messages"][1:]
    if adapter in ANTHROPIC:
        sent = [[block.get("id") or block.get("tool_use_id") for block in turn["content"]] for turn in turns]
    else:
        sent = [[call["id"] for call in turns[0]["tool_calls"]], [turn["tool_call_id"] for turn in turns[1:]]]
        assert max(map(len, sent[0])) == (40 if adapter.name == "azure" else 64)
    assert (sent[0], len(set(sent[0]))) == (sent[1], len(ids))


@pytest.mark.parametrize("adapter", ANTHROPIC, ids=lambda adapter: adapter.name)
async def test_an_image_has_the_type_of_its_data(adapter: Adapter) -> None:
    """Anthropic refuses other names of a type, and an image of another type than it is said to have."""
    content = [{"type": "text", "text": "q"}, {"type": "image", "url": PNG}]
    async with open_rig([adapter], deadlines=PATIENT, total=TOTAL) as rig:
        await native(rig, adapter, messages=[{"role": "user", "content": content}])
        source = rig.upstream.received[0].body["messages"][0]["content"][1]["source"]
        assert source == {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}


@pytest.mark.parametrize("adapter", ANTHROPIC, ids=lambda adapter: adapter.name)
async def test_a_file_that_is_neither_a_pdf_nor_a_text_is_not_sent(adapter: Adapter) -> None:
    """The request fails before any call, and says which type it is."""
    content = [{"type": "text", "text": "q"}, {"type": "file", "url": "data:application/zip;base64,UEsDBP8="}]
    async with open_rig([adapter], deadlines=PATIENT, total=TOTAL) as rig:
        state = await native(rig, adapter, messages=[{"role": "user", "content": content}])
        assert (state["error"]["code"], rig.upstream.calls) == ("provider_rejected", 0)
        assert "application/zip" in state["error"]["message"]


@pytest.mark.parametrize("adapter", OPENAI, ids=lambda adapter: adapter.name)
@pytest.mark.parametrize("chunk", FAILED, ids=json.dumps)
async def test_an_error_anywhere_in_an_answer_is_a_failure(adapter: Adapter, chunk: dict[str, Any]) -> None:
    """Wherever the upstream puts it: the answer is no success, in spite of its proper end."""
    begin = {"id": "x", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hel"}}]}
    steps = (Data(json.dumps(begin).encode()), Data(json.dumps({"id": "x", **chunk}).encode()), End())
    async with open_rig([adapter], deadlines=PATIENT, total=TOTAL) as rig:
        rig.upstream.script(Reply(steps=steps))
        state = await native(rig, adapter)
        assert state["assistantStatus"] == "failed"
        assert state["error"]["code"] in ("provider_error", "provider_rate_limited")
