"""Rate limits of callers, over HTTP and over the socket."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from actors.testing import Cut, End, Reply, Say, ScriptedUpstream, Wait, say
from protocol.llm import Usage
from service.config.settings import Settings, load_settings
from service.container import open_container
from service.server.server import listening
from tests.actors.test_rate_limiter import FailingLimiter
from tests.service.conftest import Running, Start
from tests.service.issuer import SECRET, claims, sign

SOON = 15.0  # seconds, the limit of a wait for work that may still run
MODEL = "gpt-4o-mini"
QUESTION = "a question of 28 characters."  # 7 tokens, by our estimate
USAGE = Usage(input_tokens=7, output_tokens=3)
WEB, ADMIN, FREE = ({"Authorization": f"Bearer the-key-of-{name}"} for name in ("the-web", "the-admin", "the-free"))

FILE = """
[keys.web]
env = "WEB"
tenant = "acme"
{web}

[keys.admin]
env = "ADMIN"
tenant = "acme"
scopes = ["inference", "channels", "admin"]

[keys.free]
env = "FREE"

{more}
"""
VENDORS = (
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "anthropic-ratelimit-requests-limit",
    "anthropic-ratelimit-requests-remaining",
    "X-RateLimit-Limit",
    "X-RateLimit-Remaining",
)

Serve = Callable[..., Awaitable[Running]]


@pytest.fixture
def served(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Start a service with a limited key, an unlimited one of the same tenant, and one of another tenant."""
    for name in ("web", "admin", "free"):
        monkeypatch.setenv(name.upper(), f"the-key-of-the-{name}")

    async def serve(web: str = 'plan = "basic"', more: str = "", **settings: Any) -> Running:  # noqa: ANN401 - as named
        file = tmp_path / "tidegate.toml"
        file.write_text(FILE.format(web=web, more=more))
        return await start(routes_file=file, **settings)

    return serve


def limits(*of: str) -> str:
    """Return a key's own limits as a line of its table."""
    return f"limits = [{', '.join(f'{{ {one} }}' for one in of)}]"


def chat(text: str = QUESTION, **more: object) -> dict[str, Any]:
    """OpenAI's body, and Anthropic's."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], "max_tokens": 10, **more}


async def ask(running: Running, path: str = "/v1/chat/completions", **more: Any) -> Any:  # noqa: ANN401 - a response
    """Ask with the limited key, and return the response with its body read."""
    async with running.client.post(path, json=chat(**more), headers=WEB) as response:
        await response.read()
        return response


async def standing(running: Running, headers: dict[str, str] = WEB) -> dict[str, int]:
    """Return what is left of each limit."""
    async with running.client.get("/api/limits", headers=headers) as response:
        assert response.status == 200
        body = await response.json()
    return {f"{item['endpoint']} {item['unit']}": item["remaining"] for item in body["items"]}


async def until(running: Running, **left: int) -> None:
    """Wait until so much is left of each unit of chat."""
    async with asyncio.timeout(SOON):
        while True:
            now = await standing(running)
            if {unit: now[f"chat {unit}"] for unit in left} == left:
                return


@pytest.mark.parametrize("limit", ["requests = 50", "tokens = 850", "calls = 50"])
async def test_two_hundred_at_once(served: Serve, upstream: ScriptedUpstream, limit: str) -> None:
    """Exactly as many pass as may, also of a limit of tokens or calls; the others consume nothing and call nobody."""
    roomy = "endpoint = '*', requests = 10_000, tokens = 1_000_000, calls = 1000, per = 'day'"
    running = await served(limits(f"endpoint = 'chat', per = 'day', {limit}", roomy))
    gate, refused = asyncio.Event(), []
    upstream.default = Reply(steps=(Say("Hi"), Wait(gate), End(usage=Usage(input_tokens=7, output_tokens=10))))

    async def one() -> int:
        response = await ask(running)
        if response.status != 200:
            refused.append(response.status)
            if len(refused) == 150:
                assert await standing(running) == held
                gate.set()
        return int(response.status)

    left = {"requests": 0, "tokens": 0, "calls": 0}[limit.split(maxsplit=1)[0]]
    held = {f"chat {limit.split(maxsplit=1)[0]}": left, "* requests": 9950, "* tokens": 999_150, "* calls": 950}
    async with asyncio.timeout(SOON):
        statuses = await asyncio.gather(*(one() for _ in range(200)))
    assert (statuses.count(200), statuses.count(429), upstream.calls) == (50, 150, 50)
    after = held | {"* calls": 1000} | ({"chat calls": 50} if "calls" in limit else {})
    assert await standing(running) == after


async def test_every_answer_of_a_limited_key_has_the_headers(served: Serve, upstream: ScriptedUpstream) -> None:
    """All three vendors', whole and streamed, and on failures, also after the last call; others have none."""
    running = await served(limits("endpoint = 'chat', requests = 4, tokens = 100_000", "requests = 50"))
    upstream.default = say("Hi", usage=USAGE)
    for left, path, more in (
        (3, "/v1/chat/completions", {}),
        (2, "/v1/chat/completions", {"stream": True}),
        (1, "/v1/messages", {"stream": True}),
        (0, "/v1/messages", {"messages": "wrong"}),
        (0, "/v1/messages", {}),
    ):
        response = await ask(running, path, **more)
        found = [response.headers[name] for name in VENDORS]
        assert found == ["4", str(left)] * 3
        assert response.headers["x-ratelimit-limit-tokens"] == "100000"
        assert response.headers["x-ratelimit-reset-requests"].endswith("s")
        assert response.headers["anthropic-ratelimit-tokens-reset"].endswith("Z")
        assert response.headers["RateLimit"].startswith(f'"chat requests/minute";r={left};t=')
        assert response.headers["RateLimit-Policy"] == (
            '"chat requests/minute";q=4;w=60, "chat tokens/minute";q=100000;w=60;qu="tokens"'
        )
    assert response.status == 429
    async with running.client.get("/v1/models", headers=WEB) as response:
        assert (response.status, response.headers["X-RateLimit-Remaining"]) == (200, "49")
    async with running.client.get("/v1/models", headers=ADMIN) as response:
        assert not [name for name in response.headers if "ratelimit" in name.lower()]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/v1/chat/completions", lambda body: (body["error"]["type"], body["error"]["code"])),
        ("/v1/messages", lambda body: (body["error"]["type"], body["error"]["details"]["error_code"])),
        ("/v1/embeddings", lambda body: (body["error"]["type"], body["error"]["code"])),
        ("/api/requests", lambda body: (body["title"], body["code"])),
    ],
)
async def test_a_refusal_in_each_form(
    served: Serve, upstream: ScriptedUpstream, path: str, kind: Callable[[Any], tuple[str, str]]
) -> None:
    """429 in the surface's own envelope, with ``Retry-After``; a wait that no SDK would keep is not to be retried."""
    running = await served(limits("endpoint = '*', requests = 1", "endpoint = '/v1/*', requests = 1, per = 'hour'"))
    upstream.default = say("Hi", usage=USAGE)
    bodies: dict[str, Any] = {"/v1/embeddings": {"model": "m", "input": "x"}, "/api/requests": {}}
    bodies["/api/requests"] = {"messages": [{"role": "user", "content": QUESTION}]}
    body = bodies.get(path, chat())
    async with running.client.post(path, json=body, headers=WEB) as response:
        assert response.status != 429
    async with running.client.post(path, json=body, headers=WEB) as response:
        answer = await response.json()
    assert response.status == 429
    assert kind(answer)[1] == "rate_limited"
    assert int(response.headers["Retry-After"]) >= 1
    assert response.headers.get("x-should-retry") == ("false" if path.startswith("/v1") else None)
    if path == "/api/requests":
        assert 0 < answer["retryAfterMs"] <= 120_000
        assert answer["detail"] == "The limit of 1 requests a minute to `*` is reached"


async def test_the_official_sdks_see_a_rate_limit(served: Serve, upstream: ScriptedUpstream) -> None:
    """Their own exception, with the headers."""
    running = await served(limits("endpoint = 'chat', requests = 1, tokens = 5000, per = 'minute'"))
    upstream.default = say("Hi", usage=USAGE)
    key = "the-key-of-the-web"
    async with AsyncOpenAI(base_url=f"{running.address}/v1", api_key=key, max_retries=0) as sdk:
        body: Any = chat()
        raw = await sdk.chat.completions.with_raw_response.create(**body)
        assert raw.headers["x-ratelimit-remaining-requests"] == "0"
        with pytest.raises(openai.RateLimitError) as refused:
            await sdk.chat.completions.create(**body)
        assert refused.value.code == "rate_limited"
        assert refused.value.response.headers["x-ratelimit-limit-requests"] == "1"
    async with AsyncAnthropic(base_url=running.address, api_key=key, max_retries=0) as other:
        with pytest.raises(anthropic.RateLimitError) as caught:
            await other.messages.create(**body)
        assert caught.value.response.headers["anthropic-ratelimit-requests-remaining"] == "0"
        assert "retry-after" in caught.value.response.headers


async def test_tokens_are_settled_at_every_end(served: Serve, upstream: ScriptedUpstream) -> None:
    """A whole answer, a stream, a broken one, a joined one, a cached one, and a client that has gone."""
    running = await served(limits("endpoint = 'chat', tokens = 100_000, requests = 100, calls = 5, per = 'day'"))
    upstream.default = say("Hi", usage=USAGE)
    await ask(running)
    await until(running, tokens=99_990, requests=99, calls=5)
    await ask(running, stream=True)
    await until(running, tokens=99_980, requests=98, calls=5)
    upstream.script(Reply(steps=(Say("Hello"), Cut())))
    await ask(running)
    await until(running, tokens=99_971, requests=97, calls=5)
    gate = asyncio.Event()
    upstream.script(Reply(steps=(Say("Hi"), Wait(gate), End(usage=USAGE))))
    first = asyncio.ensure_future(ask(running, seed=1))
    await until(running, tokens=99_954, requests=96, calls=4)
    second = asyncio.ensure_future(ask(running, seed=1))
    await until(running, tokens=99_954, requests=95, calls=3)
    gate.set()
    assert [(await one).headers["x-tidegate-source"] for one in (first, second)] == ["upstream", "joined"]
    await until(running, tokens=99_961, requests=95, calls=5)
    assert (await ask(running, seed=1)).headers["x-tidegate-source"] == "cache"
    await until(running, tokens=99_961, requests=94, calls=5)
    gate.clear()
    upstream.script(Reply(steps=(Say("Hi"), Wait(gate), End(usage=USAGE))))
    async with running.client.post("/v1/chat/completions", json=chat(stream=True), headers=WEB) as response:
        await response.content.readany()
        await until(running, tokens=99_944, requests=93, calls=4)
    gate.set()
    await until(running, tokens=99_951, requests=93, calls=5)


@pytest.mark.parametrize("verb", ["cancel", "delete"])
async def test_a_cancelled_request_is_settled(served: Serve, upstream: ScriptedUpstream, verb: str) -> None:
    """Its lease at once, and its tokens when the provider has counted them; neither cancelling nor deleting counts."""
    running = await served(limits("endpoint = 'chat', tokens = 100_000, requests = 9, calls = 1", "requests = 1"))
    gate = asyncio.Event()
    upstream.script(Reply(steps=(Say("Hi"), Wait(gate), End(usage=USAGE))))
    body = {"model": MODEL, "messages": [{"role": "user", "content": QUESTION}], "options": {"maxTokens": 10}}
    async with running.client.post("/api/requests", json=body, headers=WEB) as response:
        assert response.status == 202
        where = response.headers["Location"]
    async with running.client.get(f"{where}/events", headers=WEB) as events:
        while b"Hi" not in await events.content.readline():
            pass
        assert (await ask(running)).status == 429
        method, path = ("POST", f"{where}/cancel") if verb == "cancel" else ("DELETE", where)
        async with running.client.request(method, path, headers=WEB) as response:
            assert response.status in {202, 204}
        await until(running, calls=1)
        gate.set()
        await until(running, tokens=99_990, requests=8, calls=1)
    async with running.client.get("/v1/models", headers=WEB) as response:
        assert response.status == 429


async def test_a_call_that_fails_at_once(served: Serve, upstream: ScriptedUpstream) -> None:
    """A client's mistake counts as a request and uses no tokens; what can never pass counts nothing."""
    running = await served(limits("endpoint = 'chat', tokens = 1000, requests = 5, calls = 1"))
    upstream.default = say("Hi", usage=USAGE)
    assert (await ask(running, messages="wrong")).status == 400
    await until(running, tokens=1000, requests=4, calls=1)
    assert (await ask(running, model="openai/none/such")).status in {200, 404}
    response = await ask(running, max_tokens=2000)
    assert response.status == 400
    message = (await response.json())["error"]["message"]
    assert message.startswith("This call may use 2,007 tokens")
    assert "it can never pass" in message
    await until(running, requests=3, calls=1)


async def test_an_idempotent_repetition_is_a_request(served: Serve, upstream: ScriptedUpstream) -> None:
    """And uses no tokens."""
    running = await served(limits("endpoint = 'chat', tokens = 1000, requests = 5, calls = 1"))
    upstream.default = say("Hi", usage=USAGE)
    for replayed in (None, "true"):
        headers = WEB | {"Idempotency-Key": "k"}
        async with running.client.post("/v1/chat/completions", json=chat(), headers=headers) as response:
            assert (response.status, response.headers.get("Idempotent-Replayed")) == (200, replayed)
    await until(running, tokens=990, requests=3, calls=1)


async def test_embeddings_count_their_texts(served: Serve, upstream: ScriptedUpstream) -> None:
    """Estimated before, and settled after."""
    running = await served(limits("endpoint = 'embeddings', tokens = 50, requests = 3"))
    body = {"model": "text-embedding-3-small", "input": ["x" * 100, "y" * 60]}
    async with running.client.post("/v1/embeddings", json=body, headers=WEB) as response:
        assert response.status == 200
        used = (await response.json())["usage"]["total_tokens"]
    assert await standing(running) == {"embeddings requests": 2, "embeddings tokens": 50 - used}
    async with running.client.post("/v1/embeddings", json=body | {"input": "z" * 400}, headers=WEB) as response:
        assert response.status == 400
    assert (await standing(running))["embeddings requests"] == 2


async def test_a_socket_is_limited_and_stays_open(served: Serve, upstream: ScriptedUpstream) -> None:
    """Submits and publications over the limit get an error frame with the wait."""
    running = await served(
        limits("endpoint = 'chat', requests = 1, tokens = 9000, per = 'day'", "endpoint = 'publish', requests = 1")
    )
    upstream.default = say("Hi", usage=USAGE)
    async with running.client.ws_connect("/ws", headers=WEB) as socket:
        submit = {"type": "submit", "messages": [{"role": "user", "content": QUESTION}], "model": MODEL}
        publish = {"type": "publish", "channel": "room:7", "event": "typing"}
        for frame, expected in ((submit, "complete"), (publish, "ack")):
            await socket.send_json(frame | {"id": 1})
            while (await socket.receive_json())["type"] != expected:
                pass
            await socket.send_json(frame | {"id": 2})
            refused = await socket.receive_json()
            assert (refused["type"], refused["id"], refused["error"]["code"]) == ("error", 2, "rate_limited")
            assert refused["error"]["retryAfterMs"] > 0
            assert refused["error"]["temporary"] is True
        await socket.send_json({"type": "ping"})
        assert (await socket.receive_json())["type"] == "pong"
    assert await standing(running) == {"chat requests": 0, "chat tokens": 8990, "publish requests": 0}
    async with running.client.post("/api/channels/room:7/publish", json={"event": "typing"}, headers=WEB) as response:
        assert response.status == 429


async def test_holders_of_tokens_are_limited(served: Serve, upstream: ScriptedUpstream) -> None:
    """Each by the file's plan, or by the one that its claim names; a name that is not there means the file's."""
    plan = "[plans.tiny]\nlimits = [{ endpoint = 'chat', requests = 1 }]\n[jwt]\nplan = 'tiny'\n"
    running = await served(more=plan, **tokens())
    upstream.default = say("Hi", usage=USAGE)

    async def chats(**said: object) -> list[int]:
        statuses = []
        headers = {"Authorization": f"Bearer {sign(claims(**said))}"}
        for _ in range(2):
            async with running.client.post("/v1/chat/completions", json=chat(), headers=headers) as response:
                statuses.append(response.status)
        return statuses

    assert await chats() == [200, 429]
    assert await chats(nbf=1) == [429, 429]
    assert await chats(sub="bob", plan="no such plan") == [200, 429]
    assert await chats(sub="cid", plan=["basic"]) == [200, 429]
    assert await chats(sub="dan", plan="basic") == [200, 200]
    assert await chats(sub="eve", plan="enterprise") == [200, 200]
    assert await chats(sub=None) == [200, 429]


async def test_without_a_table_tokens_are_unlimited(served: Serve, upstream: ScriptedUpstream) -> None:
    """Also with a claim ``plan`` that somebody else means."""
    running = await served(**tokens())
    headers = {"Authorization": f"Bearer {sign(claims(plan='basic'))}"}
    async with running.client.get("/api/limits", headers=headers) as response:
        assert await response.json() == {"shadow": False, "items": []}


async def test_an_administrator_sees_refusals_and_resets(served: Serve, upstream: ScriptedUpstream) -> None:
    """Of the own tenant, with the scope."""
    running = await served(limits("endpoint = 'chat', requests = 1, per = 'day'"))
    upstream.default = say("Hi", usage=USAGE)
    assert [(await ask(running)).status for _ in range(3)] == [200, 429, 429]
    listed, reset = "/api/admin/limits/violations", "/api/admin/limits/web/reset"
    async with running.client.get(listed, headers=ADMIN) as response:
        (row,) = (await response.json())["items"]
    assert {name: row[name] for name in ("user", "endpoint", "unit", "per", "limit", "shadow", "count")} == {
        "user": "web",
        "endpoint": "chat",
        "unit": "requests",
        "per": "day",
        "limit": 1,
        "shadow": False,
        "count": 2,
    }
    for headers, status in ((WEB, 403), (FREE, 403), (ADMIN, 204), (ADMIN, 404)):
        async with running.client.post(reset, headers=headers) as response:
            assert response.status == status
    assert (await ask(running)).status == 200


async def test_a_shadow_plan_refuses_nobody(served: Serve, upstream: ScriptedUpstream) -> None:
    """Its callers see nothing of it, and the administrator sees what it would refuse."""
    running = await served(
        "plan = 'trial'", "[plans.trial]\nshadow = true\nlimits = [{ endpoint = 'chat', requests = 1 }]\n"
    )
    upstream.default = say("Hi", usage=USAGE)
    for _ in range(3):
        response = await ask(running)
        assert response.status == 200
        assert "RateLimit" not in response.headers
    async with running.client.get("/api/admin/limits/violations", headers=ADMIN) as response:
        (row,) = (await response.json())["items"]
    assert (row["shadow"], row["count"]) == (True, 2)


async def test_a_changed_plan_is_in_force_without_a_restart(
    served: Serve, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    """What was counted stays counted."""
    running = await served(limits("endpoint = 'chat', requests = 1, per = 'day'"))
    upstream.default = say("Hi", usage=USAGE)
    assert [(await ask(running)).status for _ in range(2)] == [200, 429]
    (tmp_path / "tidegate.toml").write_text(
        FILE.format(web=limits("endpoint = 'chat', requests = 2, per = 'day'"), more="")
    )
    async with asyncio.timeout(SOON):
        while (await standing(running)) != {"chat requests": 1}:
            pass
    assert [(await ask(running)).status for _ in range(2)] == [200, 429]


@pytest.mark.parametrize(("setting", "status"), [(True, 200), (False, 503)])
async def test_an_engine_that_fails(
    settings: Settings,
    upstream: ScriptedUpstream,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    setting: bool,
    status: int,
) -> None:
    """Lets calls go on, or refuses them as an outage of the service, by the operator's choice."""
    for name in ("WEB", "ADMIN", "FREE"):
        monkeypatch.setenv(name, f"the-key-of-the-{name.lower()}")
    file = tmp_path / "tidegate.toml"
    file.write_text(FILE.format(web='plan = "basic"', more=""))
    upstream.default = say("Hi", usage=USAGE)
    options = settings.model_copy(update={"routes_file": file, "rate_limits_fail_open": setting})
    async with open_container(options, limiter=FailingLimiter()) as container, listening(container) as (_, address):
        container.lifecycle.serve()
        async with AsyncOpenAI(base_url=f"{address}/v1", api_key="the-key-of-the-web", max_retries=0) as sdk:
            body: Any = chat()
            if status == 200:
                assert (await sdk.chat.completions.create(**body)).choices[0].message.content == "Hi"
            else:
                with pytest.raises(openai.InternalServerError) as caught:
                    await sdk.chat.completions.create(**body)
                assert (caught.value.status_code, caught.value.code) == (503, "limits_unavailable")


async def test_an_unlimited_key_and_a_service_without_keys_are_as_before(served: Serve, start: Start) -> None:
    """No headers, and no limits to show."""
    running = await served()
    assert await standing(running, ADMIN) == {}
    async with (await start()).client.get("/api/limits") as response:
        assert json.loads(await response.text()) == {"shadow": False, "items": []}
        assert "RateLimit" not in response.headers


def tokens() -> dict[str, Any]:
    """Return the settings with which the issuer's tokens are accepted."""
    return {"jwt_secret": load_settings(None, jwt_secret=SECRET).jwt_secret}
