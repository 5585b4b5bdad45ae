"""Replacing the routes of a running gateway."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from actors.llm_gateway import LLMGateway
from actors.llm_gateway.providers.openai import OpenAIProvider
from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.testing import End, Reply, Say, ScriptedUpstream, Wait
from actors.wire.client import WireClient
from protocol.errors import ConfigurationError, NotFound
from protocol.gateway import Complete, GetProviders, ResolveModel
from protocol.llm import ChatMessage, ChatRequest
from protocol.routes import ProviderSpec, Route, Routes, SetRoutes

Spawn = Callable[..., Ref[Any]]


def routes(upstream: ScriptedUpstream, **aliases: str) -> Routes:
    """Routes of one target each, and a provider of the routes' own."""
    return Routes(
        providers={"mine": ProviderSpec(kind="openai", base_url=upstream.openai_url)},
        routes={alias: Route(targets=(target,)) for alias, target in aliases.items()},
    )


async def ask(gateway: Ref[Any], model: str) -> str:
    """Send a request, and return the provider that answered."""
    request = ChatRequest(model=model, messages=(ChatMessage(role="user", content="hi"),))
    provider: str = (await gateway.ask(Complete(request=request), timeout=60)).provider
    return provider


async def providers(gateway: Ref[Any]) -> list[str]:
    """The names of the providers."""
    return [status.name for status in await gateway.ask(GetProviders(), timeout=5)]


async def test_other_routes_take_the_place_of_those_before(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """New names are there, old ones are gone, and so is a provider that no route names any more."""
    gateway = spawn(routes=routes(upstream, one="mine/a"))
    assert await ask(gateway, "one") == "mine"
    await gateway.ask(SetRoutes(Routes(default="two", routes={"two": Route(targets=("openai/b",))})), timeout=5)
    assert await ask(gateway, "default") == "openai"
    assert "mine" not in await providers(gateway)
    assert (await gateway.ask(ResolveModel("one"), timeout=5)).provider == "openai"
    assert upstream.received[1].body["model"] == "b"
    await gateway.ask(SetRoutes(routes(upstream, one="mine/a")), timeout=5)
    assert await ask(gateway, "one") == "mine"


async def test_routes_that_lead_nowhere_change_nothing(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """The reply is the error; the old routes stay, with their providers."""
    gateway = spawn(routes=routes(upstream, one="mine/a"))
    with pytest.raises(ConfigurationError, match=r"routes\.one"):
        await gateway.ask(SetRoutes(Routes(routes={"one": Route(targets=("gone/a",))})), timeout=5)
    assert await ask(gateway, "one") == "mine"


async def test_a_provider_that_stays_the_same_keeps_its_places(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """Its calls under way still count: new routes do not reset its concurrency."""
    gate = asyncio.Event()
    upstream.default = Reply(steps=(Wait(gate), Say("Hi"), End()))
    gateway = spawn(routes=routes(upstream, one="mine/a"))
    waiting = asyncio.ensure_future(ask(gateway, "one"))
    await upstream.called()
    await gateway.ask(SetRoutes(routes(upstream, two="mine/b")), timeout=5)
    statuses = await gateway.ask(GetProviders(), timeout=5)
    assert {status.name: status.in_flight for status in statuses}["mine"] == 1
    gate.set()
    assert await waiting == "mine"


async def test_a_provider_of_the_routes_may_replace_a_built_in_one(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """As long as the routes name it."""
    gateway = spawn()
    spec = ProviderSpec(kind="openai", base_url=upstream.openai_url, models=("only",))
    await gateway.ask(SetRoutes(Routes(providers={"openai": spec})), timeout=5)
    assert await ask(gateway, "openai/only") == "openai"
    with pytest.raises(NotFound):
        await ask(gateway, "openai/other")
    await gateway.ask(SetRoutes(Routes()), timeout=5)
    assert await ask(gateway, "openai/other") == "openai"


class Noted(OpenAIProvider):
    """Counts how often it is closed."""

    closed = 0

    async def close(self) -> None:
        self.closed += 1
        await super().close()


async def test_a_provider_that_is_gone_is_closed_after_its_last_request(
    system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """Not sooner, and not only at the gateway's end."""
    gate = asyncio.Event()
    upstream.script(Reply(steps=(Wait(gate), Say("Hi"), End())))
    wire = WireClient()
    mine = Noted(wire, base_url=upstream.openai_url, name="mine")
    own = OpenAIProvider(wire, base_url=upstream.openai_url)
    gateway = system.spawn(
        lambda: LLMGateway(
            {"openai": own},
            default_model="openai/m",
            routes=routes(upstream, one="mine/a"),
            make_provider=lambda _name, _spec: mine,
        ),
        name="llm-gateway",
    )
    waiting = asyncio.ensure_future(ask(gateway, "one"))
    await upstream.called()
    await gateway.ask(SetRoutes(Routes()), timeout=5)
    assert mine.closed == 0
    gate.set()
    assert await waiting == "mine"
    assert mine.closed == 1
    assert await ask(gateway, "default") == "openai"
