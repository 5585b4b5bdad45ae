"""A repaired answer, as clients see it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from actors.testing import End, Reply, Say, ScriptedUpstream, Wait, say

SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
MESSAGES = [{"role": "user", "content": "is it food?"}]
BODY: dict[str, Any] = {"messages": MESSAGES, "schema": SCHEMA}
FORMAT = {"type": "json_schema", "json_schema": {"name": "gate", "schema": SCHEMA}}
WRONG, RIGHT = '{"ok": "maybe"}', '{"ok": true}'

Start = Callable[..., Awaitable[Any]]


async def test_a_follower_sees_the_wrong_answer_taken_back(start: Start, upstream: ScriptedUpstream) -> None:
    """The log has the repair between the two texts, a later client gets only the second, the state has both calls."""
    gate = asyncio.Event()
    upstream.script(Reply(steps=(Say(WRONG), Wait(gate), End())), say(RIGHT))
    running = await start()
    submitted = await (await running.client.post("/api/requests", json=BODY)).json()
    address = f"/api/requests/{submitted['requestId']}"
    stream = await running.client.get(f"{address}/events")
    begin = (await stream.content.readuntil(b"maybe")).decode()
    gate.set()
    rest = await stream.text()
    assert '"attemptFailed"' not in begin
    assert rest.count('"restart":true') == 1
    assert "event: complete" in rest
    state = await (await running.client.get(address)).json()
    assert (state["assistantStatus"], state["coreResult"]) == ("completed", {"ok": True})
    assert [attempt.get("error", "") for attempt in state["attempts"]] == ["schema_mismatch", ""]
    assert (state["usage"]["inputTokens"], state["usage"]["outputTokens"]) == (14, 6)
    late = await (await running.client.get(f"{address}/events?mode=snapshot")).text()
    assert json.dumps(RIGHT) in late
    assert "maybe" not in late
    again = await running.client.post("/api/requests", json=BODY)
    assert again.headers["x-tidegate-source"] == "cache"


async def test_a_native_request_may_do_without(start: Start, upstream: ScriptedUpstream) -> None:
    """Without repair the first answer is final."""
    upstream.script(say(WRONG), say(WRONG), say(RIGHT))
    running = await start()
    for options, status in (({"repair": False}, "failed"), ({}, "completed")):
        submitted = await (await running.client.post("/api/requests", json={**BODY, "options": options})).json()
        address = f"/api/requests/{submitted['requestId']}"
        await (await running.client.get(f"{address}/events")).text()
        assert (await (await running.client.get(address)).json())["assistantStatus"] == status


async def test_a_compatible_dialect_is_not_told_two_answers(start: Start, upstream: ScriptedUpstream) -> None:
    """A dialect can't retract text, so it has no repair, and joins no log with one."""
    gate = asyncio.Event()
    upstream.script(Reply(steps=(Say(WRONG), Wait(gate), End())), say(WRONG), say(WRONG), say(RIGHT))
    running = await start()
    native = await (await running.client.post("/api/requests", json={**BODY, "options": {"temperature": 0}})).json()
    chat = {"model": "default", "messages": MESSAGES, "response_format": FORMAT, "temperature": 0}
    await upstream.called(1)
    whole = await running.client.post("/v1/chat/completions", json=chat)
    assert (whole.status, (await whole.json())["error"]["code"]) == (502, "schema_mismatch")
    streamed = await (await running.client.post("/v1/chat/completions", json={**chat, "stream": True})).text()
    assert "schema_mismatch" in streamed
    assert upstream.calls == 3
    gate.set()
    await (await running.client.get(f"/api/requests/{native['requestId']}/events")).text()
    assert upstream.calls == 4
    refused = await running.client.get(f"/v1/responses/resp_{native['requestId']}?stream=true")
    assert refused.status == 400
