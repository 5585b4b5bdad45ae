"""Health: the response of each route in each state."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from pydantic import SecretStr

from actors.runtime import Actor, handles
from actors.testing import ScriptedUpstream, refuse, say
from protocol.gateway import GetProviders, ModelInfo, ProviderState, ProviderStatus, ResolveModel, TargetStatus
from service.config.settings import Settings
from service.container import open_container
from service.http.health import Check, _checks, overall

CHAT = {"model": "gpt-5", "messages": [{"role": "user", "content": "hi"}]}


class Model(Actor[GetProviders | ResolveModel]):
    """A gateway that only reports its providers."""

    def __init__(
        self, *states: tuple[str, ProviderState], default: str, targets: tuple[TargetStatus, ...] = ()
    ) -> None:
        self._states = states
        self._default = default
        self._targets = targets

    @handles(GetProviders)
    async def providers(self, message: GetProviders) -> tuple[ProviderStatus, ...]:
        return tuple(ProviderStatus(name=name, state=state, targets=self._targets) for name, state in self._states)

    @handles(ResolveModel)
    async def resolve(self, message: ResolveModel) -> ModelInfo:
        return ModelInfo(message.model, self._default)


async def _ask(start: Callable[..., Awaitable[Any]], path: str = "/api/health") -> tuple[int, dict[str, Any]]:
    running = await start()
    response = await running.client.get(path)
    return response.status, await response.json()


async def test_all_is_well(start: Callable[..., Awaitable[Any]]) -> None:
    """Every part is listed, with its latency in milliseconds."""
    status, body = await _ask(start)
    assert status == 200
    assert body["status"] == "healthy"
    assert body["timestamp"].endswith("Z")
    assert set(body["checks"]) == {"event_loop", "provider", "routes", "cache", "hub", "actors", "connections"}
    for check in body["checks"].values():
        assert check["status"] == "ok"
        assert check["latency"] >= 0


@pytest.mark.parametrize(
    ("default", "states", "health", "status", "ready"),
    [
        ("openai", [("openai", "ready"), ("local", "loading")], "healthy", 200, 200),
        ("openai", [("openai", "ready"), ("local", "idle")], "healthy", 200, 200),
        ("openai", [("openai", "loading")], "degraded", 200, 503),
        ("tiny", [("tiny", "idle")], "healthy", 200, 200),
        ("openai", [("openai", "ready"), ("local", "failed")], "degraded", 200, 200),
        ("openai", [("openai", "failed"), ("local", "ready")], "unhealthy", 503, 503),
        ("a-route's", [("openai", "failed"), ("a-route's", "ready")], "degraded", 200, 200),
    ],
)
async def test_the_default_provider_decides(
    settings: Settings, default: str, states: list[tuple[str, ProviderState]], health: str, status: int, ready: int
) -> None:
    """While its model loads the service is live but not ready; with a failed model it is unhealthy."""
    make: Any = lambda: Model(*states, default=default)  # noqa: E731 - it only has to look like a gateway
    async with open_container(settings, gateway=make) as container:
        from aiohttp.test_utils import TestClient, TestServer  # noqa: PLC0415

        from service.server.app import build_app  # noqa: PLC0415

        container.lifecycle.serve()
        async with TestClient(TestServer(build_app(container))) as client:
            response = await client.get("/api/health")
            assert response.status == status
            assert (await response.json())["status"] == health
            assert (await client.get("/api/health/ready")).status == ready
            assert (await client.get("/api/health/live")).status == 200


@pytest.mark.parametrize(
    ("target", "status", "detail"),
    [
        (TargetStatus(model="m", state="open", retry=8.4), "degraded", "p/m: open for 8 s"),
        (TargetStatus(model="m" * 100, state="half-open"), "degraded", f"p/{'m' * 80}: half-open"),
        (TargetStatus(model="m", cools=5.0), "ok", "p/m: cools down for 5 s"),
        (TargetStatus(model="m", cools=5.0, limited=3.0), "ok", "p/m: at its rate limit for 3 s"),
    ],
)
async def test_targets_that_are_not_simply_asked_are_named(
    settings: Settings, target: TargetStatus, status: str, detail: str
) -> None:
    """A target with an open breaker degrades the service; one at its rate limit does not."""
    make: Any = lambda: Model(("p", "ready"), default="p", targets=(target,))  # noqa: E731 - as above
    async with open_container(settings, gateway=make) as container:
        check = (await _checks(container))["provider"]
        assert (check.status, check.detail) == (status, detail)


@pytest.mark.parametrize(("status", "code"), [(401, "provider_credentials"), (405, "provider_bad_response")])
async def test_a_provider_that_refuses_every_call_degrades(
    start: Callable[..., Awaitable[Any]], upstream: ScriptedUpstream, status: int, code: str
) -> None:
    """From the first refusal that only the operator can mend until a call succeeds."""
    upstream.script(refuse(status), say("Hello"))
    running = await start()
    seen = []
    for _ in range(2):
        await running.client.post("/v1/chat/completions", json=CHAT)
        response = await running.client.get("/api/health")
        body = await response.json()
        seen.append((response.status, body["status"], body["checks"]["provider"].get("detail", "")))
    assert seen[0][:2] == (200, "degraded")
    assert "openai: refuses calls since 20" in seen[0][2]
    assert seen[0][2].endswith(f": {code}, status {status}")
    assert seen[1] == (200, "healthy", "local: not loaded")


async def test_a_part_that_has_stopped_makes_it_unhealthy(start: Callable[..., Awaitable[Any]]) -> None:
    """A stopped router is named."""
    running = await start()
    await running.container.system.stop(running.container.router)
    response = await running.client.get("/api/health")
    assert response.status == 503
    body = await response.json()
    assert body["status"] == "unhealthy"
    assert body["checks"]["actors"]["detail"] == "request-router"


async def test_a_cache_that_has_stopped_only_degrades_it(start: Callable[..., Awaitable[Any]]) -> None:
    """Without a cache the service works, degraded."""
    running = await start()
    await running.container.system.stop(running.container.cache)
    body = await (await running.client.get("/api/health")).json()
    assert body["checks"]["cache"]["status"] == "degraded"


async def test_a_service_that_stops_is_alive_but_not_ready(start: Callable[..., Awaitable[Any]]) -> None:
    """A stopping service is live but not ready."""
    running = await start()
    running.container.lifecycle.stop()
    response = await running.client.get("/api/health/ready")
    assert response.status == 503
    assert (await response.json())["checks"]["lifecycle"]["detail"] == "closing"
    assert (await running.client.get("/api/health/live")).status == 200


def test_the_sum_is_the_worst() -> None:
    """A failed check is unhealthy, a degraded one degraded, all others healthy."""
    ok, loading, failed = (Check(status=status, latency=0.0) for status in ("ok", "loading", "failed"))
    assert overall({"a": ok}) == "healthy"
    assert overall({"a": ok, "b": loading}) == "degraded"
    assert overall({"a": ok, "b": loading, "c": failed}) == "unhealthy"


@pytest.mark.parametrize("path", ["/api/health", "/api/health/live", "/api/health/ready"])
async def test_strangers_see_the_status_and_the_time_alone(start: Callable[..., Awaitable[Any]], path: str) -> None:
    """A key shows the checks, whatever its rights; an invalid one is no mistake."""
    running = await start(
        api_keys=(SecretStr("key"),),
        jwt_jwks_url="http://127.0.0.1:1/jwks",
        fetch_allowed=("127.0.0.1",),
        environment="production",
    )
    for headers, shown in (
        ({}, False),
        ({"Authorization": "Bearer key"}, True),
        ({"x-api-key": "key"}, True),
        ({"Authorization": "Bearer wrong"}, False),
        ({"Authorization": "Bearer a.b.c"}, False),
    ):
        response = await running.client.get(path, headers=headers)
        body = await response.json()
        assert response.status == 200
        assert set(body) == {"status", "timestamp"} | ({"checks"} if shown else set())


async def test_without_keys_this_machine_sees_the_checks(start: Callable[..., Awaitable[Any]]) -> None:
    """A probe by another name is answered, and told no more than a stranger."""
    running = await start()
    for host, shown in (("localhost", True), ("10.0.0.7:3000", False)):
        response = await running.client.get("/api/health", headers={"Host": host})
        assert (response.status, "checks" in await response.json()) == (200, shown)
