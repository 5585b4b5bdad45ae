"""``/api/health``: the health of each part, liveness and readiness."""

import asyncio
import datetime as dt
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Final, Literal

import msgspec
from aiohttp import web

from protocol.cache import GetCacheStats
from protocol.errors import ConfigurationError, TidegateError
from protocol.gateway import GetProviders, ProviderFault, ProviderStatus, ResolveModel, TargetStatus
from protocol.hub import GetHubStats
from service.capacity import CAPACITY
from service.config.routes_watcher import GetRejected
from service.container import Container
from service.context import call_of, container_of
from service.http.json_response import JsonResponse
from service.http.operations import HEALTH, Answer, Operation, add_operations

ASK_TIMEOUT: Final = 1.0  # seconds; a probe has to be answered before the prober gives up
SLOW_LOOP_MS: Final = 250.0  # an iteration of the loop that takes longer delays every stream
UNHEALTHY: Final = 503
SHOWN: Final = 10  # targets listed for one provider
MAX_NAME: Final = 80  # characters of a target's name
WAITING: Final = {"idle": "not loaded", "loading": "loading"}  # states of a model on this machine, in words

Status = Literal["healthy", "degraded", "unhealthy"]
CheckStatus = Literal["ok", "loading", "degraded", "failed"]


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The health of one part.

    Attributes:
        status: its state.
        latency: the time that the check took, in milliseconds.
        detail: what is wrong; absent for nothing.
    """

    status: CheckStatus
    latency: float
    detail: str = ""


class Health(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The body of every health endpoint.

    Attributes:
        status: of the whole service.
        timestamp: when the checks were made.
        checks: each part, by name; absent for a caller without a key, where keys are required.
    """

    status: Status
    timestamp: Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
    checks: dict[str, Check] | msgspec.UnsetType = msgspec.UNSET


def add_routes(app: web.Application) -> None:
    """Add the three routes."""
    add_operations(app, health, live, ready)


@Operation(
    "GET",
    "/api/health",
    name="getHealth",
    tag=HEALTH,
    summary="Get the health of each part.",
    answers=(
        Answer(200, "The service works, perhaps in part.", Health),
        Answer(503, "The service does not work.", Health),
    ),
)
async def health(request: web.Request) -> JsonResponse:
    """Return the health of each part: 200, or 503 where the service can't work at all."""
    container = container_of(request)
    checks = await _checks(container) | _connections(request)
    status = overall(checks)
    return _answer(request, status, checks, ok=status != "unhealthy")


@Operation(
    "GET",
    "/api/health/live",
    name="getLiveness",
    tag=HEALTH,
    summary="Get whether the process runs.",
    answers=(Answer(200, "It runs.", Health),),
)
async def live(request: web.Request) -> JsonResponse:
    """Report that the event loop runs; asks no actor."""
    return _answer(request, "healthy", {"event_loop": await _event_loop(container_of(request))}, ok=True)


@Operation(
    "GET",
    "/api/health/ready",
    name="getReadiness",
    tag=HEALTH,
    summary="Get whether traffic may be sent.",
    answers=(
        Answer(200, "Traffic may be sent.", Health),
        Answer(503, "Not now: the service starts, stops, or its model loads.", Health),
    ),
)
async def ready(request: web.Request) -> JsonResponse:
    """Report whether traffic may be sent: not while the model loads, nor while the service starts or stops."""
    container = container_of(request)
    checks = await _checks(container) | _connections(request)
    phase = container.lifecycle.phase
    if phase != "serving":
        checks["lifecycle"] = Check(status="failed", latency=0.0, detail=phase)
    status = overall(checks)
    loading = any(check.status == "loading" for check in checks.values())
    return _answer(request, status, checks, ok=status != "unhealthy" and not loading)


def overall(checks: dict[str, Check]) -> Status:
    """Return the overall status: unhealthy with a failed check, degraded with one that is not ``ok``."""
    states = {check.status for check in checks.values()}
    if "failed" in states:
        return "unhealthy"
    return "healthy" if states <= {"ok"} else "degraded"


async def _checks(container: Container) -> dict[str, Check]:
    loop, providers, routes, cache, hub = await asyncio.gather(
        _event_loop(container),
        _timed(lambda: _provider(container), worst="failed"),
        _timed(lambda: _routes(container), worst="degraded"),
        _timed(lambda: container.cache.ask(GetCacheStats(), timeout=ASK_TIMEOUT), worst="degraded"),
        _timed(lambda: container.hub.ask(GetHubStats(), timeout=ASK_TIMEOUT), worst="failed"),
    )
    checks = {"event_loop": loop, "provider": providers, "routes": routes, "cache": cache, "hub": hub}
    return checks | {"actors": _actors(container)}


async def _event_loop(container: Container) -> Check:
    """Return how long an iteration takes now, and the lags of the last minute with the handler of the longest."""
    started = time.perf_counter()
    await asyncio.sleep(0)
    latency = _since(started)
    lags, longest = container.watchdog.recent()
    if longest is None:
        return Check(status="ok" if latency < SLOW_LOOP_MS else "degraded", latency=latency)
    where = longest.sample.handler or longest.sample.task or "unknown code"
    detail = f"{lags} lags in the last minute, the longest of {longest.seconds * 1000:.0f} ms in {where}"
    return Check(status="degraded", latency=latency, detail=detail)


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
    """Return the state of the default model's first provider, with the problems of all providers as the detail.

    Another provider that failed only degrades the service; so does a target whose breaker is not closed, and a provider
    whose fault only the operator can mend. A model that is not loaded before its first request does not count.
    """
    providers = await container.gateway.ask(GetProviders(), timeout=ASK_TIMEOUT)
    default = (await container.gateway.ask(ResolveModel("default"), timeout=ASK_TIMEOUT)).provider
    state = next((provider.state for provider in providers if provider.name == default), "ready")
    failed = [provider for provider in providers if provider.state == "failed"]
    details = [f"{provider.name}: {provider.detail or provider.state}" for provider in failed]
    details += [f"{provider.name}: {WAITING[provider.state]}" for provider in providers if provider.state in WAITING]
    faults = [(provider.name, provider.fault) for provider in providers if provider.fault is not None]
    details += [f"{name}: {_refusing(fault)}" for name, fault in faults]
    details += [_described(provider, target) for provider in providers for target in provider.targets[:SHOWN]]
    detail = ", ".join(details)
    if state not in ("ready", "idle"):
        return ("loading" if state == "loading" else "failed"), detail or default
    broken = any(target.state != "closed" for provider in providers for target in provider.targets)
    return ("degraded" if failed or faults or broken else "ok"), detail


async def _routes(container: Container) -> tuple[CheckStatus, str]:
    """Return whether the routes' file is in force. The faults of one that is rejected are for the operator."""
    rejected = await container.routes.ask(GetRejected(), timeout=ASK_TIMEOUT)
    if not rejected:
        return "ok", ""
    return "degraded", ConfigurationError.of(rejected).detail


def _refusing(fault: ProviderFault) -> str:
    return f"refuses calls since {fault.since}: {fault.code}, status {fault.status or 'unknown'}"


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


def _connections(request: web.Request) -> dict[str, Check]:
    """Return how many connections and descriptors are left, where the application is served with bounds."""
    capacity = request.app.get(CAPACITY)
    if capacity is None:
        return {}
    started = time.perf_counter()
    enough, detail = capacity.status()
    return {"connections": Check(status="ok" if enough else "degraded", latency=_since(started), detail=detail)}


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 3)


def _answer(request: web.Request, status: Status, checks: dict[str, Check], *, ok: bool) -> JsonResponse:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    shown = checks if call_of(request).authenticated else msgspec.UNSET
    body = msgspec.json.encode(Health(status=status, timestamp=now, checks=shown))
    return JsonResponse(body, status=200 if ok else UNHEALTHY, headers={"Cache-Control": "no-store"})
