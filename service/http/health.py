"""``/api/health``: is it alive, may traffic come, and how is each part?"""

import asyncio
import datetime as dt
import time
from collections.abc import Awaitable, Callable
from typing import Final, Literal

import msgspec
from aiohttp import web

from protocol.cache import GetCacheStats
from protocol.errors import TidegateError
from protocol.gateway import GetProviders, ProviderStatus, ResolveModel, TargetStatus
from protocol.hub import GetHubStats
from service.container import Container
from service.context import container_of
from service.http.json_response import Answer

ASK_TIMEOUT: Final = 1.0  # seconds; a probe has to answer before the prober gives up
SLOW_LOOP_MS: Final = 250.0  # a turn of the loop that takes longer holds up every stream
UNHEALTHY: Final = 503
SHOWN: Final = 10  # targets of one provider that are named
MAX_NAME: Final = 80  # characters of a target's name

Status = Literal["healthy", "degraded", "unhealthy"]
CheckStatus = Literal["ok", "loading", "degraded", "failed"]


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one part is; ``latency`` in milliseconds."""

    status: CheckStatus
    latency: float
    detail: str = ""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The answer of every health address."""

    status: Status
    timestamp: str
    checks: dict[str, Check]


def add_routes(app: web.Application) -> None:
    """Offer the three health addresses."""
    app.router.add_get("/api/health", health)
    app.router.add_get("/api/health/live", live)
    app.router.add_get("/api/health/ready", ready)


async def health(request: web.Request) -> Answer:
    """How each part is: 200, and 503 when the service can't do its work at all."""
    checks = await _checks(container_of(request))
    status = overall(checks)
    return _answer(status, checks, ok=status != "unhealthy")


async def live(_request: web.Request) -> Answer:
    """Say that the loop runs: nothing else is asked."""
    return _answer("healthy", {"event_loop": await _event_loop()}, ok=True)


async def ready(request: web.Request) -> Answer:
    """Say whether traffic may come: not while the model loads, nor while the service starts or stops."""
    container = container_of(request)
    checks = await _checks(container)
    phase = container.lifecycle.phase
    if phase != "serving":
        checks["lifecycle"] = Check(status="failed", latency=0.0, detail=phase)
    status = overall(checks)
    loading = any(check.status == "loading" for check in checks.values())
    return _answer(status, checks, ok=status != "unhealthy" and not loading)


def overall(checks: dict[str, Check]) -> Status:
    """Sum the checks up: one that failed makes it unhealthy, one that is not ``ok`` degraded."""
    states = {check.status for check in checks.values()}
    if "failed" in states:
        return "unhealthy"
    return "healthy" if states <= {"ok"} else "degraded"


async def _checks(container: Container) -> dict[str, Check]:
    loop, providers, cache, hub = await asyncio.gather(
        _event_loop(),
        _timed(lambda: _provider(container), worst="failed"),
        _timed(lambda: container.cache.ask(GetCacheStats(), timeout=ASK_TIMEOUT), worst="degraded"),
        _timed(lambda: container.hub.ask(GetHubStats(), timeout=ASK_TIMEOUT), worst="failed"),
    )
    return {"event_loop": loop, "provider": providers, "cache": cache, "hub": hub, "actors": _actors(container)}


async def _event_loop() -> Check:
    started = time.perf_counter()
    await asyncio.sleep(0)
    turn = _since(started)
    return Check(status="ok" if turn < SLOW_LOOP_MS else "degraded", latency=turn)


async def _timed(ask: Callable[[], Awaitable[object]], *, worst: CheckStatus) -> Check:
    started = time.perf_counter()
    try:
        answer = await ask()
    except TidegateError as error:
        return Check(status=worst, latency=_since(started), detail=error.code)
    if isinstance(answer, tuple):
        return Check(status=answer[0], latency=_since(started), detail=answer[1])
    return Check(status="ok", latency=_since(started))


async def _provider(container: Container) -> tuple[CheckStatus, str]:
    """Say how the provider is that is asked first for the default model; another that failed only degrades the service.

    So does a target that is left alone after failures. Another provider that is still to be loaded is none of our
    concern: nobody has asked for it.
    """
    providers = await container.gateway.ask(GetProviders(), timeout=ASK_TIMEOUT)
    default = (await container.gateway.ask(ResolveModel("default"), timeout=ASK_TIMEOUT)).provider
    state = next((provider.state for provider in providers if provider.name == default), "ready")
    failed = [provider for provider in providers if provider.state == "failed"]
    said = [f"{provider.name}: {provider.detail or provider.state}" for provider in failed]
    said += [_described(provider, target) for provider in providers for target in provider.targets[:SHOWN]]
    detail = ", ".join(said)
    if state != "ready":
        return ("loading" if state == "loading" else "failed"), detail or default
    lost = any(target.state != "closed" for provider in providers for target in provider.targets)
    return ("degraded" if failed or lost else "ok"), detail


def _described(provider: ProviderStatus, target: TargetStatus) -> str:
    name = f"{provider.name}/{target.model[:MAX_NAME]}"
    if target.state == "half-open":
        return f"{name}: half-open"
    if target.state == "open":
        return f"{name}: open for {target.retry:.0f} s"
    if target.limited:
        return f"{name}: at its rate limit for {target.limited:.0f} s"
    return f"{name}: cools down for {target.cools:.0f} s"


def _actors(container: Container) -> Check:
    started = time.perf_counter()
    refs = (container.router, container.gateway, container.hub, container.cache)
    dead = ", ".join(ref.name for ref in refs if not ref.alive)
    return Check(status="failed" if dead else "ok", latency=_since(started), detail=dead)


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)


def _answer(status: Status, checks: dict[str, Check], *, ok: bool) -> Answer:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    body = msgspec.json.encode(Health(status=status, timestamp=now, checks=checks))
    return Answer(body, status=200 if ok else UNHEALTHY, headers={"Cache-Control": "no-store"})
