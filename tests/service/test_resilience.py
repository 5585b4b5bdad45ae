"""Failing providers, as a client sees them."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from actors.testing import Fault, Reply, Say, ScriptedUpstream, Stall, refuse, say
from protocol.gateway import GetProviders

ROUTES = '[routes.both]\ntargets = ["openai/a", "openai/b"]\n'
BODY: dict[str, Any] = {"model": "both", "messages": [{"role": "user", "content": "hi"}]}

Start = Callable[..., Awaitable[Any]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with a route of two targets."""
    file = tmp_path / "routes.toml"
    file.write_text(ROUTES, encoding="utf-8")
    return file


async def test_the_client_sees_one_answer(start: Start, upstream: ScriptedUpstream, file: Path) -> None:
    """The headers have the attempts; the body has nothing of the failure."""
    upstream.script(refuse(503), say("Hello"))
    running = await start(routes_file=file)
    response = await running.client.post("/v1/chat/completions", json=BODY)
    assert response.status == 200
    assert (await response.json())["choices"][0]["message"]["content"] == "Hello"
    assert response.headers["x-tidegate-attempts"] == "2"
    assert [call.body["model"] for call in upstream.received] == ["a", "b"]


@pytest.mark.parametrize(("choice", "status"), [("restart", "completed"), ("fail", "failed")])
async def test_an_answer_that_broke_off(
    start: Start, upstream: ScriptedUpstream, file: Path, choice: str, status: str
) -> None:
    """With ``restart`` the answer begins anew, and no client gets text twice; otherwise it fails."""
    upstream.script(Reply(steps=(Say("Hel"), Fault())), say("Hello"))
    running = await start(routes_file=file)
    body = {**BODY, "options": {"onAttemptFailed": choice}}
    submitted = await (await running.client.post("/api/requests", json=body)).json()
    address = f"/api/requests/{submitted['requestId']}"
    events = await (await running.client.get(f"{address}/events")).text()
    assert "event: complete" in events if choice == "restart" else "event: error" in events
    assert ('"restart":true' in events) is (choice == "restart")
    state = await (await running.client.get(address)).json()
    assert state["assistantStatus"] == status
    assert (state["coreResult"] or {"text": ""})["text"] == ("Hello" if choice == "restart" else "")
    late = await (await running.client.get(f"{address}/events?mode=snapshot")).text()
    assert ('"text":"Hello"' if choice == "restart" else '"text":"Hel"') in late
    assert upstream.calls == (2 if choice == "restart" else 1)


async def test_a_second_call_beside_a_slow_one(start: Start, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """The client gets one answer; the slow call is closed, and listed among the attempts."""
    file = tmp_path / "hedged.toml"
    file.write_text(f"{ROUTES}hedge_after = 0.1\n", encoding="utf-8")
    upstream.script(Reply(steps=(Stall(),)), say("Hello"))
    running = await start(routes_file=file)
    submitted = await (await running.client.post("/api/requests", json=BODY)).json()
    address = f"/api/requests/{submitted['requestId']}"
    events = await (await running.client.get(f"{address}/events")).text()
    assert events.count('"delta":"Hello"') == 1
    await upstream.abandoned()
    await running.container.gateway.ask(GetProviders(), timeout=5)
    state = await (await running.client.get(address)).json()
    assert state["coreResult"]["text"] == "Hello"
    assert [(attempt["model"], attempt.get("error", "")) for attempt in state["attempts"]] == [
        ("a", "cancelled"),
        ("b", ""),
    ]
