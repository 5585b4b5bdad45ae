"""Odd answers that are read as what they mean, from every provider adapter to every surface of their vendor."""

import asyncio
import json
from typing import Any, Final

import pytest

from actors.llm_gateway.provider import ProviderDeadlines
from actors.testing import Data, End, Reply
from tests.contracts.conformance.adapters import ADAPTERS, Adapter
from tests.contracts.conformance.rig import SOON, Rig, open_rig
from tests.contracts.conformance.surfaces import SURFACES, chat
from tests.contracts.conformance.test_parts import OPENAI, events_of, post

DEADLINES: Final = ProviderDeadlines()
CLAUDES: Final = tuple(adapter for adapter in ADAPTERS if adapter.name not in OPENAI)
OWN: Final[dict[str, Any]] = {
    "container": {"id": "container_1", "expires_at": "2026-12-01T00:00:00Z"},
    "stop_details": {"type": "refusal", "category": "cyber"},
}
BESIDE: Final[dict[str, Any]] = {"context_management": {"applied_edits": []}}
USED: Final = {"server_tool_use": {"web_search_requests": 3}}


def data(*events: dict[str, Any]) -> tuple[Data, ...]:
    """Steps that send these events."""
    return tuple(Data(json.dumps(event, ensure_ascii=False).encode("utf-8", "surrogateescape")) for event in events)


def begin(*blocks: dict[str, Any]) -> list[dict[str, Any]]:
    """The beginning of a message, and of its blocks."""
    starts = [
        {"type": "content_block_start", "index": index, "content_block": block} for index, block in enumerate(blocks)
    ]
    return [{"type": "message_start", "message": {"id": "x", "model": "m", "usage": {}}}, *starts]


def piece(index: int, **delta: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """A piece of a block."""
    return {"type": "content_block_delta", "index": index, "delta": delta}


def end(reason: str = "end_turn", beside: Any = None, **delta: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - JSON
    """The end of a message."""
    usage = {"input_tokens": 7, "output_tokens": 3, **USED}
    last = {"type": "message_delta", "delta": {"stop_reason": reason, **delta}, "usage": usage, **(beside or {})}
    return [last, {"type": "message_stop"}]


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
async def test_bytes_that_are_no_utf8_are_replaced(adapter: Adapter) -> None:
    """The answer goes on, at every surface."""
    text = "Hel\udcfflo\udce4\udcbd"
    events = [{"id": "x", "model": "m", "choices": [{"index": 0, "delta": {"content": text}}]}]
    reply = Reply(steps=(*data(*events), End()))
    if adapter in CLAUDES:
        reply = Reply(steps=data(*begin({"type": "text"}), piece(0, type="text_delta", text=text), *end()))
    async with asyncio.timeout(SOON), open_rig([adapter], deadlines=DEADLINES, total=10.0) as rig:
        rig.upstream.script(*[reply] * len(SURFACES))
        for surface in SURFACES:
            seen = await surface.ask(rig.client, adapter.target, "hi")
            assert (seen.text, seen.code) == ("Hel\ufffdlo\ufffd", ""), surface.name


async def messages(rig: Rig, model: str) -> tuple[list[Any], dict[str, Any]]:
    """A whole message: its blocks, and the rest."""
    answer = json.loads(await post(rig, "/v1/messages", chat(model, "hi", max_tokens=100)))
    return answer.pop("content"), answer


async def message_stream(rig: Rig, model: str) -> tuple[list[Any], dict[str, Any]]:
    """A streamed message: its blocks put together, and the fields of its end."""
    events = events_of(await post(rig, "/v1/messages", chat(model, "hi", max_tokens=100, stream=True)))
    blocks: list[Any] = []
    fields: dict[str, Any] = {}
    for event in events:
        if event["type"] == "content_block_start":
            blocks.append({**event["content_block"], "input": ""})
        elif event["type"] == "content_block_delta":
            for name, text in event["delta"].items():
                key = {"partial_json": "input", "type": ""}.get(name, name)
                blocks[event["index"]][key] = blocks[event["index"]].get(key, "") + text
        elif event["type"] == "message_delta":
            fields = {**event["delta"], **event}
    for block in blocks:
        block["input"] = json.loads(block["input"] or "null")
    return [{name: value for name, value in block.items() if name and value is not None} for block in blocks], fields


@pytest.mark.parametrize("adapter", CLAUDES, ids=lambda adapter: adapter.name)
async def test_blocks_have_the_order_in_which_they_begin(adapter: Adapter) -> None:
    """Whole and streamed, also where their pieces come the other way round, and a signature in two of them."""
    blocks = (
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "text", "text": ""},
        {"type": "tool_use", "id": "c", "name": "f", "input": {}},
    )
    events = [
        *begin(*blocks),
        piece(2, type="input_json_delta", partial_json='{"a":1}'),
        piece(1, type="text_delta", text="Hi"),
        piece(0, type="thinking_delta", thinking="hm"),
        *[piece(0, type="signature_delta", signature=text) for text in ("SI", "G")],
        *[{"type": "content_block_stop", "index": index} for index in (2, 1, 0)],
        *end("tool_use"),
    ]
    expected = [
        {"type": "thinking", "thinking": "hm", "signature": "SIG"},
        {"type": "text", "text": "Hi"},
        {"type": "tool_use", "id": "c", "name": "f", "input": {"a": 1}},
    ]
    async with asyncio.timeout(SOON), open_rig([adapter], deadlines=DEADLINES, total=10.0) as rig:
        rig.upstream.script(*[Reply(steps=data(*events))] * 2)
        for surface in (messages, message_stream):
            assert (await surface(rig, adapter.target))[0] == expected, surface.__name__


@pytest.mark.parametrize("adapter", CLAUDES, ids=lambda adapter: adapter.name)
async def test_what_only_anthropic_knows_of_an_answer_comes_back(adapter: Adapter) -> None:
    """Its container, its edits of the context, and its counts of server tools: whole and streamed."""
    events = [*begin({"type": "text", "text": ""}), piece(0, type="text_delta", text="Hi"), *end(beside=BESIDE, **OWN)]
    async with asyncio.timeout(SOON), open_rig([adapter], deadlines=DEADLINES, total=10.0) as rig:
        rig.upstream.script(*[Reply(steps=data(*events))] * 2)
        for surface in (messages, message_stream):
            _, fields = await surface(rig, adapter.target)
            assert {**OWN, **BESIDE}.items() <= fields.items(), surface.__name__
            assert USED.items() <= fields["usage"].items(), surface.__name__


async def test_an_answer_with_a_container_is_not_given_twice() -> None:
    """The container belongs to the conversation that it was made for."""
    (adapter,) = (adapter for adapter in CLAUDES if adapter.name == "anthropic")
    events = [*begin({"type": "text", "text": ""}), piece(0, type="text_delta", text="Hi")]
    async with asyncio.timeout(SOON), open_rig([adapter], deadlines=DEADLINES, total=10.0) as rig:
        given: tuple[tuple[dict[str, Any], int], ...] = (({}, 1), (OWN, 3))
        for more, calls in given:
            rig.upstream.script(*[Reply(steps=data(*events, *end(**more)))] * 2)
            body = chat(adapter.target, f"hi {len(more)}", max_tokens=100, temperature=0)
            for _ in range(2):
                await post(rig, "/v1/messages", body)
            assert rig.upstream.calls == calls
            rig.upstream._replies.clear()
