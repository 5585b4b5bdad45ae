"""Every odd answer, from every provider adapter to every surface, whole and streamed."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from actors.llm_gateway.provider import ProviderDeadlines
from actors.testing import Data, Reply, Send
from tests.contracts.conformance.adapters import ADAPTERS, Adapter
from tests.contracts.conformance.forms import ANTHROPIC_FORMS, JSON, OPENAI_FORMS, Called, Form
from tests.contracts.conformance.rig import Rig, open_rig
from tests.contracts.conformance.surfaces import chat, submission
from tests.contracts.conformance.test_parts import OPENAI, events_of

BOUND = 60.0  # seconds
DEADLINES = ProviderDeadlines()
SAID = tuple[str, tuple[Called, ...], Any]  # the text, the calls, and what is further in the message


def reply_of(form: Form) -> Reply:
    """The upstream's answer."""
    data = [json.dumps(event).encode() for event in form.events]
    if form.whole:
        return Reply(steps=(Send(data[0]),), content_type="application/json")
    last = () if "type" in form.events[-1] else (Data(b"[DONE]"),)
    return Reply(steps=(*map(Data, data), *last))


async def post(rig: Rig, path: str, body: JSON) -> str:
    """Send a call, and return the body of its response."""
    async with rig.client.post(path, json=body) as response:
        return await response.text()


def code_of(error: JSON) -> str:
    """The code of an error of either vendor's dialect."""
    return str(error.get("code") or error["details"]["error_code"])


def call_of(call: JSON) -> Called:
    """A call of OpenAI's dialect, also of another kind."""
    if "custom" in call:
        return call["custom"]["name"], {"input": call["custom"]["input"]}
    return call["function"]["name"], json.loads(call["function"]["arguments"])


async def native(rig: Rig, model: str) -> SAID | str:
    """The result of a request."""
    state = json.loads(await post(rig, "/api/requests", submission(model, "hi")))
    async with rig.client.get(f"/api/requests/{state['requestId']}/events") as stream:
        last = events_of(await stream.text())[-1]
    if "coreResult" not in last.get("data", {}):
        return str(last["error"]["code"])
    result = last["data"]["coreResult"]
    calls = tuple((call["name"], json.loads(call["arguments"])) for call in result.get("toolCalls", ()))
    return result["text"], calls, None


async def chat_whole(rig: Rig, model: str) -> SAID | str:
    """A whole chat completion."""
    body = json.loads(await post(rig, "/v1/chat/completions", chat(model, "hi")))
    if "error" in body:
        return code_of(body["error"])
    said = body["choices"][0]["message"]
    known = ("role", "content", "refusal")
    further = {name: value for name, value in said.items() if name not in known and name != "reasoning_content"}
    return said["content"] or "", tuple(map(call_of, said.get("tool_calls", ()))), further


async def chat_streamed(rig: Rig, model: str) -> SAID | str:
    """A streamed chat completion."""
    body = await post(rig, "/v1/chat/completions", {**chat(model, "hi"), "stream": True})
    if body.startswith("{"):
        return code_of(json.loads(body)["error"])
    text, calls, further = "", dict[int, JSON](), dict[str, Any]()
    for event in events_of(body):
        if "error" in event:
            return code_of(event["error"])
        for name, value in event["choices"][0]["delta"].items():
            if name == "content":
                text += value
            elif name == "tool_calls":
                known = calls.setdefault(value[0]["index"], value[0])
                if known is not value[0]:
                    known["function"]["arguments"] += value[0]["function"]["arguments"]
            elif isinstance(value, list):
                further[name] = [*further.get(name, []), *value]
            elif value is not None and name != "role":
                further[name] = value
    further["tool_calls"] = [{name: call[name] for name in call if name != "index"} for call in calls.values()]
    return text, tuple(map(call_of, calls.values())), further


def blocks_of(blocks: list[JSON]) -> SAID:
    """What the blocks of a message say."""
    calls = tuple((block["name"], block["input"]) for block in blocks if block["type"] == "tool_use")
    further: dict[str, Any] = {}
    for block in blocks:
        if block["type"] == "text":
            further |= {name: value for name, value in block.items() if name not in ("type", "text")}
    return "".join(block["text"] for block in blocks if block["type"] == "text"), calls, further


async def messages_whole(rig: Rig, model: str) -> SAID | str:
    """A whole message."""
    body = json.loads(await post(rig, "/v1/messages", {**chat(model, "hi"), "max_tokens": 9}))
    return code_of(body["error"]) if "error" in body else blocks_of(body["content"])


async def messages_streamed(rig: Rig, model: str) -> SAID | str:
    """A streamed message."""
    body = await post(rig, "/v1/messages", {**chat(model, "hi"), "max_tokens": 9, "stream": True})
    if body.startswith("{"):
        return code_of(json.loads(body)["error"])
    blocks: list[JSON] = []
    for event in events_of(body):
        if event["type"] == "error":
            return code_of(event["error"])
        if event["type"] == "content_block_start":
            blocks.append({**event["content_block"], "json": ""})
        elif event["type"] == "content_block_delta":
            for name, value in event["delta"].items():
                where = "json" if name == "partial_json" else name
                if name != "type":
                    blocks[-1][where] = blocks[-1].get(where, "") + value
    for block in blocks:
        arguments = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(arguments)
    return blocks_of(blocks)


async def response(rig: Rig, model: str) -> SAID | str:
    """A whole response."""
    body = json.loads(await post(rig, "/v1/responses", {"model": model, "input": "hi"}))
    if body.get("error"):
        return str(body["error"]["type"] if "output" in body else code_of(body["error"]))
    items = body["output"]
    texts = [item["content"][0]["text"] for item in items if item["type"] == "message"]
    calls = [(item["name"], json.loads(item["arguments"])) for item in items if item["type"] == "function_call"]
    return "".join(texts), tuple(calls), None


SURFACES = (native, chat_whole, chat_streamed, messages_whole, messages_streamed, response)


@pytest.mark.timeout(BOUND)
@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
async def test_an_odd_answer_is_read_or_fails(adapter: Adapter) -> None:
    """What has one meaning is read, and nothing of it is lost; what has none fails, and is no success anywhere."""
    forms = OPENAI_FORMS if adapter.name in OPENAI else ANTHROPIC_FORMS
    good = [form for form in forms if not form.code]
    async with asyncio.timeout(BOUND):
        odd = await misread(adapter, good)
        for form in forms:
            if form.code:  # with a breaker of its own
                odd += await misread(adapter, [form])
    assert odd == []


async def misread(adapter: Adapter, forms: Sequence[Form]) -> list[tuple[str, str, SAID | str]]:
    """What clients got that they should not have got: the form, the surface, and what it was."""
    own = "chat" if adapter.name in OPENAI else "messages"
    odd = []
    async with open_rig([adapter], deadlines=DEADLINES, total=10.0) as rig:
        for form in forms:
            rig.upstream.script(*[reply_of(form)] * len(SURFACES))
            said = await asyncio.gather(*(surface(rig, adapter.target) for surface in SURFACES))
            for surface, found in zip(SURFACES, said, strict=True):
                if not fits(form, found, surface.__name__, own):
                    odd.append((form.name, surface.__name__, found))
    return odd


def fits(form: Form, found: SAID | str, surface: str, own: str) -> bool:
    """Whether a client of a surface got what it should; ``own`` is how surfaces of the upstream's dialect begin."""
    code = form.elsewhere or form.code if not surface.startswith(("native", own)) else form.code
    if code or isinstance(found, str):
        return found == code
    fields = form.fields if surface.startswith(own) and form.fields is not None else {}
    return found[:2] == (form.text, form.calls) and (not fields or found[2].items() >= fields.items())
