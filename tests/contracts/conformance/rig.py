"""A service in front of the scripted upstream, and its footprint: what it holds at a moment."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from actors.llm_gateway.config import GatewayLimits
from actors.llm_gateway.gateway import LLMGateway
from actors.llm_gateway.provider import ProviderDeadlines
from actors.requests.record import RequestRecord
from actors.requests.router import RequestRouter
from actors.requests.runs import RunTable
from actors.resilience.retry import RetryPolicy
from actors.testing import ScriptedUpstream
from actors.wire.client import WireClient
from protocol.gateway import GetProviders
from protocol.hub import GetHubStats
from protocol.requests import GetRequest
from service.config.settings import load_settings
from service.container import Container, open_container
from service.server.server import listening
from service.telemetry.setup import Telemetry
from tests.contracts.conformance.adapters import Adapter
from tests.contracts.conformance.faults import ATTEMPTS, MAX_EVENT

SOON = 15.0  # seconds, the bound of every request
SETTLED = 5.0  # seconds, the bound of what may still go on after its end
DRAIN = 0.1  # seconds
CONNECTION = "RequestHandler.start"  # serves one connection, at the service and at the upstream
PRICES = "Prices.load"  # once, at the start
ACTOR = "ActorCell._run"  # one for each actor, and the actors are counted
LEFT_OUT = (CONNECTION, PRICES, ACTOR)


@dataclass(frozen=True)
class Footprint:
    """What the service holds at a moment.

    Attributes:
        tasks: the names of the running coroutines, except those that serve a connection, and the actors'.
        actors: how many there are.
        clients: connections of clients to the service.
        calls: busy connections to the upstream, as counted by the gateway and by the upstream.
        runs: runs in progress.
        hub: sockets, subscriptions and followed requests.
        in_flight: calls in flight and queued, of all providers together.
        serving: calls that the service answers.
    """

    tasks: tuple[str, ...]
    actors: int
    clients: int
    calls: tuple[int, int]
    runs: int
    hub: tuple[int, int, int]
    in_flight: tuple[int, int]
    serving: int


@dataclass(frozen=True)
class Rig:
    """A running service, the scripted upstream, and a client without keep-alive."""

    upstream: ScriptedUpstream
    container: Container
    client: ClientSession
    runs: RunTable
    wire: WireClient

    async def footprint(self) -> Footprint:
        """The footprint now."""
        hub = await self.container.hub.ask(GetHubStats(), timeout=SOON)
        providers = await self.container.gateway.ask(GetProviders(), timeout=SOON)
        tasks = [_title(task) for task in asyncio.all_tasks()]
        return Footprint(
            tasks=tuple(sorted(title for title in tasks if title not in LEFT_OUT)),
            actors=sum(child.actors for child in self.container.system.children()),
            clients=tasks.count(CONNECTION) - self.upstream.connections,
            calls=(self.wire.busy, self.upstream.busy),
            runs=len(self.runs),
            hub=(hub.sockets, hub.subscriptions, hub.requests),
            in_flight=(sum(one.in_flight for one in providers), sum(one.queued for one in providers)),
            serving=self.container.lifecycle.running,
        )

    async def wait_for(self, expected: Footprint) -> None:
        """Wait until the footprint is the expected one."""
        found = await self.footprint()
        try:
            async with asyncio.timeout(SETTLED):
                while found != expected:
                    await asyncio.sleep(0)
                    found = await self.footprint()
        except TimeoutError:
            pytest.fail(f"left over: {found}, where there was: {expected}")

    async def record_of(self, request_id: str) -> RequestRecord:
        """A stored request, whose log has exactly one terminal entry, the last one."""
        record = await self.container.router.ask(GetRequest(request_id), timeout=SOON)
        assert isinstance(record, RequestRecord)
        ends = [event.terminal for event in record.run.log.events()]
        assert ends == [False] * (len(ends) - 1) + [True]
        return record

    async def state_of(self, request_id: str, *, usage: tuple[int, int]) -> Any:  # noqa: ANN401 - JSON
        """A request's state over HTTP, once it has this usage: tokens in and out."""
        found: Any = None
        try:
            async with asyncio.timeout(SETTLED):
                while found != usage:
                    async with self.client.get(f"/api/requests/{request_id}") as response:
                        assert response.status == 200
                        state = await response.json()
                    found = state["usage"]["inputTokens"], state["usage"]["outputTokens"]
        except TimeoutError:
            pytest.fail(f"{found} tokens were used, not {usage}")
        return state

    async def until_text(self, text: str, count: int) -> None:
        """Wait until ``text`` is in the logs of ``count`` runs."""
        changed = asyncio.Event()
        runs = tuple(self.runs)
        for run in runs:
            run.log.listen(changed.set)
        try:
            async with asyncio.timeout(SETTLED):
                while (found := sum(run.log.snapshot().text == text for run in runs)) != count:
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            pytest.fail(f"{text!r} came into the logs of {found} requests, not of {count}")
        finally:
            for run in runs:
                run.log.unlisten(changed.set)


@asynccontextmanager
async def open_rig(
    adapters: Sequence[Adapter], *, deadlines: ProviderDeadlines, total: float, **overrides: object
) -> AsyncIterator[Rig]:
    """Serve these adapters, with a retry that does not wait; each override is a setting."""
    routers: list[RequestRouter] = []
    wire = WireClient(max_connections=0, max_event_bytes=MAX_EVENT)

    def keep(**options: Any) -> RequestRouter:  # noqa: ANN401 - the router's own
        routers.append(RequestRouter(**options))
        return routers[-1]

    async with ScriptedUpstream() as upstream:

        def gateway() -> LLMGateway:
            return LLMGateway(
                {adapter.name: adapter.make(wire, upstream, deadlines) for adapter in adapters},
                default_model=adapters[0].target,
                limits=GatewayLimits(total=total, drain=DRAIN),
                retry=RetryPolicy(attempts=ATTEMPTS, base=0.0),
            )

        settings = load_settings(None, port=0, openai_base_url=upstream.openai_url, **overrides)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("service.container.RequestRouter", keep)
            async with (
                open_container(settings, telemetry=Telemetry(), gateway=gateway) as container,
                listening(container) as (_, address),
                ClientSession(
                    address, connector=TCPConnector(limit=0, force_close=True), timeout=ClientTimeout(total=SOON)
                ) as client,
            ):
                container.lifecycle.serve()
                yield Rig(upstream, container, client, routers[0]._runs, wire)


def _title(task: "asyncio.Task[Any]") -> str:
    return getattr(task.get_coro(), "__qualname__", "") or task.get_name()
