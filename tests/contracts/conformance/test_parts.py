"""The order of an answer's parts, from every provider adapter to every surface."""

import asyncio
import json
from typing import Any, Final

import pytest

from actors.llm_gateway.provider import ProviderDeadlines
from actors.testing import Data, End, Reply
from tests.contracts.conformance.adapters import ADAPTERS, Adapter
from tests.contracts.conformance.rig import SOON, Rig, open_rig
from tests.contracts.conformance.surfaces import chat, submission

OPENAI: Final = frozenset({"openai", "azure", "local"})
ROW: Final = ("reasoning", "text", "call", "reasoning", "call", "text")
DEADLINES: Final = ProviderDeadlines()

KINDS: Final = {
    "reasoning": "reasoning",
    "thinking": "reasoning",
    "text": "text",
    "message": "text",
    "tool_call": "call",
    "tool_use": "call",
    "function_call": "call",
}


def reply_of(adapter: Adapter) -> Reply:
    """Return an answer with these parts in the adapter's dialect; its calls come in pieces."""
    if adapter.name in OPENAI:
        return Reply(
            steps=(*(Data(json.dumps(chunk).encode()) for chunk in _chunks()), End(finish_reason="tool_calls"))
        )
    return Reply(steps=tuple(Data(json.dumps(event).encode()) for event in _events()))


def _chunks() -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = []
    calls = 0
    for kind in ROW:
        if kind == "call":
            function = {"name": "look", "arguments": '{"at"'}
            deltas.append({"tool_calls": [{"index": calls, "id": f"c{calls}", "function": function}]})
            deltas.append({"tool_calls": [{"index": calls, "function": {"arguments": ":1}"}}]})
            calls += 1
        else:
            name = "content" if kind == "text" else "reasoning_content"
            deltas += [{name: "so"}, {name: "me"}]
    return [{"id": "x", "model": "m", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]


def _events() -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [{"type": "message_start", "message": {"id": "x", "model": "m", "usage": {}}}]
    blocks: dict[str, dict[str, Any]] = {
        "reasoning": {"type": "thinking", "thinking": "", "signature": ""},
        "text": {"type": "text", "text": ""},
        "call": {"type": "tool_use", "name": "look", "input": {}},
    }
    deltas = {
        "reasoning": [{"type": "thinking_delta", "thinking": "some"}, {"type": "signature_delta", "signature": "S"}],
        "text": [{"type": "text_delta", "text": "some"}],
        "call": [{"type": "input_json_delta", "partial_json": piece} for piece in ('{"at"', ":1}")],
    }
    for index, kind in enumerate(ROW):
        block = blocks[kind] | ({"id": f"c{index}"} if kind == "call" else {})
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas[kind]]
        events.append({"type": "content_block_stop", "index": index})
    usage = {"input_tokens": 7, "output_tokens": 9}
    return [
        *events,
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": usage},
        {"type": "message_stop"},
    ]


async def post(rig: Rig, path: str, body: dict[str, Any]) -> str:
    """Send a call, and return the body of its answer."""
    async with rig.client.post(path, json=body) as response:
        assert response.status < 400, await response.text()
        return await response.text()


def events_of(stream: str) -> list[Any]:
    """Return the data of each event."""
    return [json.loads(line[6:]) for line in stream.split("\n") if line.startswith("data: {")]


async def native(rig: Rig, model: str) -> list[str]:
    """The parts of the result, and those of the updates."""
    state = json.loads(await post(rig, "/api/requests", submission(model, "hi")))
    async with rig.client.get(f"/api/requests/{state['requestId']}/events") as stream:
        updates = [event["data"] for event in events_of(await stream.text())]
    places: dict[int, str] = {}
    for data in updates[1:-1]:
        names = {"delta": "text", "reasoning": "reasoning", "toolCall": "call"}
        kind = next(kind for name, kind in names.items() if name in data)
        assert places.setdefault(data.get("part", 0), kind) == kind
    assert [places[place] for place in range(len(places))] == list(ROW)
    return [part["type"] for part in updates[-1]["coreResult"]["parts"]]


async def chat_stream(rig: Rig, model: str) -> list[str]:
    """The fields of the deltas, in their order."""
    order: list[str] = []
    for event in events_of(await post(rig, "/v1/chat/completions", {**chat(model, "hi"), "stream": True})):
        delta = event["choices"][0]["delta"]
        if "tool_calls" in delta:
            order.append(f"tool_call {delta['tool_calls'][0]['index']}")
        elif delta.get("content"):
            order.append("text")
        elif "reasoning_content" in delta:
            order.append("reasoning")
    changes = [kind for place, kind in enumerate(order) if order[place - 1 : place] != [kind]]
    return [kind.split()[0] for kind in changes]


async def messages(rig: Rig, model: str) -> list[str]:
    """The blocks of a whole message."""
    body = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}
    return [block["type"] for block in json.loads(await post(rig, "/v1/messages", body))["content"]]


async def message_stream(rig: Rig, model: str) -> list[str]:
    """The blocks of a streamed message."""
    body = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    events = events_of(await post(rig, "/v1/messages", body))
    return [event["content_block"]["type"] for event in events if event["type"] == "content_block_start"]


async def response(rig: Rig, model: str) -> list[str]:
    """The items of a whole response."""
    return [
        item["type"] for item in json.loads(await post(rig, "/v1/responses", {"model": model, "input": "hi"}))["output"]
    ]


async def response_stream(rig: Rig, model: str) -> list[str]:
    """The items of a streamed response, as they end."""
    events = events_of(await post(rig, "/v1/responses", {"model": model, "input": "hi", "stream": True}))
    return [event["item"]["type"] for event in events if event["type"] == "response.output_item.done"]


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
async def test_the_parts_keep_their_order(adapter: Adapter) -> None:
    """Text, thoughts and calls in turn are the same row at every surface, whole and streamed."""
    surfaces = (native, chat_stream, messages, message_stream, response, response_stream)
    async with asyncio.timeout(SOON), open_rig([adapter], deadlines=DEADLINES, total=10.0) as rig:
        rig.upstream.script(*[reply_of(adapter)] * len(surfaces))
        for surface in surfaces:
            assert [KINDS[kind] for kind in await surface(rig, adapter.target)] == list(ROW), surface.__name__
