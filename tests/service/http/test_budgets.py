"""Spending and budgets of accounts, over HTTP."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from actors.testing import Cut, End, Reply, Say, ScriptedUpstream, Stall, Step, Wait, say
from protocol.llm import Usage
from service.config.settings import variable
from tests.service.conftest import Running, Start

SOON = 15.0  # seconds, the limit of a wait for work that may still run
COUNTED = Usage(input_tokens=1000, output_tokens=100)
PRICE = Decimal("0.00021")  # of that, for gpt-4o-mini
MODEL = "gpt-4o-mini"
QUESTION = "a question of 28 characters."  # 7 tokens, by our estimate
RICH = {"Authorization": "Bearer the-key-of-the-rich"}
POOR = {"Authorization": "Bearer the-key-of-the-poor"}

KEYS = """
[keys.rich]
env = "RICH"

[keys.poor]
env = "POOR"
scopes = ["inference"]
budgets = [{{ per = "day", tokens = {tokens} }}, {{ per = "month", usd = 1 }}]
"""


@pytest.fixture
def served(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """Start a service with two keys, one of them with a daily token budget."""
    for name in ("rich", "poor"):
        monkeypatch.setenv(name.upper(), f"the-key-of-the-{name}")
    assert variable("POOR") == "the-key-of-the-poor"

    async def serve(tokens: int = 1_000_000) -> Running:
        file = tmp_path / "tidegate.toml"
        file.write_text(KEYS.format(tokens=tokens))
        return await start(routes_file=file)

    return serve


def chat(text: str = QUESTION, **more: object) -> dict[str, Any]:
    """OpenAI's body."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


async def today(running: Running, headers: dict[str, str]) -> Any:  # noqa: ANN401 - JSON
    """Return the account's spending today."""
    async with running.client.get("/api/usage", headers=headers) as response:
        assert response.status == 200
        body = await response.json()
    day, month = body["windows"]
    assert (day["per"], month["per"], day["begins"][-10:]) == ("day", "month", "T00:00:00Z")
    return day


async def state_with(running: Running, where: str, *, tokens: int) -> Any:  # noqa: ANN401 - JSON
    """Return a request's state once it has used so many output tokens."""
    async with asyncio.timeout(SOON):
        while True:
            async with running.client.get(where, headers=POOR) as response:
                state = await response.json()
            if state["usage"]["outputTokens"] == tokens:
                return state


async def test_two_hundred_at_once_on_a_budget_for_fifty(
    served: Callable[[int], Any], upstream: ScriptedUpstream
) -> None:
    """Exactly fifty requests are accepted; the others get the error, without a call."""
    running = await served(50 * 17)
    gate = asyncio.Event()
    usage = Usage(input_tokens=7, output_tokens=10)
    upstream.default = Reply(steps=(Say("Hi"), Wait(gate), End(usage=usage)))

    async def ask() -> int:
        body = chat(max_tokens=10)
        async with running.client.post("/v1/chat/completions", json=body, headers=POOR) as response:
            await response.read()
        status: int = response.status
        if status != 200:
            refused.append(status)
            if len(refused) == 150:
                gate.set()
        return status

    refused: list[int] = []
    async with asyncio.timeout(SOON):
        answers = await asyncio.gather(*(ask() for _ in range(200)))
    assert (answers.count(200), answers.count(429), upstream.calls) == (50, 150, 50)
    standing = await today(running, POOR)
    assert (standing["tokens"], standing["reservedTokens"], standing["maxTokens"]) == (850, 0, 850)


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/v1/chat/completions", chat(), lambda body: (body["error"]["type"], body["error"]["code"])),
        ("/v1/chat/completions", chat(stream=True), lambda body: (body["error"]["type"], body["error"]["code"])),
        (
            "/v1/messages",
            chat(max_tokens=50),
            lambda body: (body["error"]["type"], body["error"]["details"]["error_code"]),
        ),
    ],
)
async def test_a_budget_without_room_in_each_dialect(
    served: Callable[[int], Any],
    upstream: ScriptedUpstream,
    path: str,
    body: dict[str, Any],
    kind: Callable[[Any], tuple[str, str]],
) -> None:
    """The error is the vendor's own, and no SDK retries."""
    running = await served(20)
    async with running.client.post(path, json=body, headers=POOR) as response:
        answer = await response.json()
    expected = "billing_error" if "messages" in path else "insufficient_quota"
    assert (response.status, kind(answer)) == (429, (expected, "budget_exceeded"))
    assert "20 tokens a day" in answer["error"]["message"]
    assert (response.headers["x-should-retry"], "Retry-After" in response.headers) == ("false", False)
    assert (upstream.calls, (await today(running, POOR))["tokens"]) == (0, 0)


async def test_a_native_request_fails_by_its_budget(served: Callable[[int], Any], upstream: ScriptedUpstream) -> None:
    """The request is accepted, and ends with the code; the error is not temporary."""
    running = await served(20)
    body = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}
    async with running.client.post("/api/requests", json=body, headers=POOR) as response:
        assert response.status == 202
        where = response.headers["Location"]
    async with running.client.get(f"{where}/events", headers=POOR) as response:
        assert '"budget_exceeded"' in await response.text()
    state = await state_with(running, where, tokens=0)
    assert (state["assistantStatus"], state["error"]["code"], state["attempts"]) == ("failed", "budget_exceeded", [])
    assert "temporary" not in state["error"]
    assert upstream.calls == 0


async def test_each_account_sees_its_own(served: Callable[[], Any], upstream: ScriptedUpstream) -> None:
    """The spending in each window; joined and cached answers are paid for once."""
    running = await served()
    upstream.default = say("Hi", usage=COUNTED)
    for source in ("upstream", "cache"):
        async with running.client.post("/v1/chat/completions", json=chat(seed=1), headers=POOR) as response:
            assert (response.status, response.headers["x-tidegate-source"]) == (200, source)
    standing = await today(running, POOR)
    assert (standing["tokens"], Decimal(standing["usd"]), standing["unpricedTokens"]) == (1100, PRICE, 0)
    assert (await today(running, RICH))["tokens"] == 0
    async with running.client.post("/v1/chat/completions", json=chat(), headers=RICH) as response:
        assert response.status == 200
    other = await today(running, RICH)
    assert (other["tokens"], other["maxTokens"], other["maxUsd"]) == (1100, None, None)


async def test_nobody_without_a_key_sees_an_account(served: Callable[[], Any], start: Start) -> None:
    """Usage needs a key; without configured keys there is no account."""
    running = await served()
    async with running.client.get("/api/usage") as response:
        assert response.status == 401
    async with (await start()).client.get("/api/usage") as response:
        assert await response.json() == {"account": None, "windows": []}


@pytest.mark.parametrize(
    ("last", "used", "estimated"),
    [(End(usage=COUNTED), {"inputTokens": 1000, "outputTokens": 100}, False), (Stall(), {"outputTokens": 2}, True)],
)
async def test_a_cancelled_request_shows_what_it_has_used(
    served: Callable[[], Any], upstream: ScriptedUpstream, last: Step, used: dict[str, int], *, estimated: bool
) -> None:
    """A request's cost is in its state and account: counted, or estimated where the usage takes too long."""
    running = await served()
    gate = asyncio.Event()
    upstream.script(Reply(steps=(Say("Hello"), Wait(gate), last)))
    body = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}]}
    async with running.client.post("/api/requests", json=body, headers=POOR) as response:
        where = response.headers["Location"]
    async with running.client.get(f"{where}/events", headers=POOR) as events:
        while b"Hello" not in await events.content.readline():
            pass
        async with running.client.post(f"{where}/cancel", headers=POOR) as response:
            assert response.status == 202
        assert b"cancelled" in await events.read()
    gate.set()
    state = await state_with(running, where, tokens=used["outputTokens"])
    assert state["assistantStatus"] == "cancelled"
    (attempt,) = state["attempts"]
    assert (attempt["error"], attempt.get("estimated", False)) == ("cancelled", estimated)
    assert attempt["usage"].items() >= used.items()
    assert attempt["cost"] == state["cost"]
    assert "cacheWriteInputTokens" not in state["usage"]
    standing = await today(running, POOR)
    assert (standing["tokens"], standing["usd"]) == (sum(_both(attempt["usage"])), state["cost"]["usd"])


def _both(usage: dict[str, int]) -> tuple[int, int]:
    return usage["inputTokens"], usage["outputTokens"]


async def test_a_failed_request_shows_what_it_has_used(served: Callable[[], Any], upstream: ScriptedUpstream) -> None:
    """A broken stream costs its content so far, and the error has the cost."""
    running = await served()
    upstream.default = Reply(steps=(Say("Hello"), Cut()))
    async with running.client.post("/v1/chat/completions", json=chat(), headers=POOR) as response:
        assert response.status == 502
    assert Decimal(response.headers["x-tidegate-cost-usd"]) == Decimal("0.00000225")
    standing = await today(running, POOR)
    assert (standing["tokens"], Decimal(standing["usd"])) == (9, Decimal("0.00000225"))
