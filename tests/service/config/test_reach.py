"""From a setting to its user: each default stands once, in the user's struct, and each changed value arrives."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from actors.cache import CacheLimits
from actors.channels.limits import ChannelLimits
from actors.embeddings import EmbeddingsConfig
from actors.embeddings import factory as embeddings_factory
from actors.llm_gateway import GatewayConfig
from actors.llm_gateway import factory as gateway_factory
from actors.requests.limits import RequestLimits
from protocol.routes import Routes
from protocol.upstream import BASE_URLS
from service import container as composition
from service.auth import tokens
from service.auth.token_config import TokenConfig
from service.config.settings import Settings, load_settings, variable
from service.container import open_container
from service.descriptors import UNLIMITED, Descriptors
from service.server import server
from service.server.acceptor import Site
from service.websocket import upgrade

ROW = re.compile(r"^\| `(?P<name>[A-Z_]+)` \| (?:`(?P<default>[^`]*)`)? \|", re.MULTILINE)
ROUTES = Routes(default="openai/m")

Arguments = dict[str, Any]


def test_the_settings_change_no_default() -> None:
    """Embedded actors and a service without settings have the same values."""
    settings = load_settings(None)
    openai, anthropic = BASE_URLS["openai"], BASE_URLS["anthropic"]
    assert settings.gateway(ROUTES) == GatewayConfig(
        openai_base_url=openai, anthropic_base_url=anthropic, routes=ROUTES, secrets=variable
    )
    assert settings.embeddings(ROUTES) == EmbeddingsConfig(openai_base_url=openai, routes=ROUTES, secrets=variable)
    assert settings.requests() == RequestLimits()
    assert settings.cache() == CacheLimits()
    assert settings.channels() == ChannelLimits()
    assert settings.tokens() == TokenConfig()


def test_the_page_of_settings_has_every_default(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings set to the page's values equal the defaults."""
    rows = {row["name"]: row["default"] or "" for row in ROW.finditer((root / "docs/settings.md").read_text("utf-8"))}
    assert list(rows) == [name.upper() for name in Settings.model_fields]
    defaults = load_settings(None)
    for name, default in rows.items():
        monkeypatch.setenv(name, default)
    assert load_settings(None) == defaults


def numeric() -> Mapping[str, int | float]:
    """Return another value for each setting that is a number."""
    changed: dict[str, int | float] = {}
    for name, field in Settings.model_fields.items():
        if type(field.default) in {int, float}:
            changed[name] = field.default + 2 * len(changed) + 1
    return changed


class Doors:
    """The arguments with which the users of settings were made, by the users' names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.made: dict[str, Arguments] = {}

    def watch(self, module: Any, name: str, **instead: object) -> None:  # noqa: ANN401 - any module
        """Record the arguments of ``name``; ``instead`` replaces some of them."""
        make = getattr(module, name)

        def kept(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - passed on
            self.made[name] = dict(enumerate(args)) | options  # type: ignore[assignment]
            return make(*args, **options | instead)

        self._monkeypatch.setattr(module, name, kept)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - as the user takes them
        return self.made[name]


REACHED: dict[str, Callable[[Doors], object]] = {
    "port": lambda doors: doors["Site"]["port"],
    "jwt_leeway_seconds": lambda doors: doors["TokenVerifier"][0].leeway,
    "ws_heartbeat_seconds": lambda doors: doors["SocketTransport"][2],
    "max_connections": lambda doors: doors["AddressTable"][0],
    "max_connections_per_address": lambda doors: doors["AddressTable"][1],
    "keep_alive_seconds": lambda doors: doors["Runner"]["keep_alive"],
    "loop_lag_warning_ms": lambda doors: doors["LoopWatchdog"][0] * 1000,
    "max_body_bytes": lambda doors: doors["Application"]["client_max_size"],
    "max_bodies_bytes": lambda doors: doors["RequestRouter"]["limits"].max_input_bytes,
    "shutdown_grace_seconds": lambda doors: doors["shut_down"]["grace"],
    "embedding_batch_inputs": lambda doors: doors["EmbeddingsActor"][0]["openai"].limits.inputs,
    "embedding_cache_max_bytes": lambda doors: doors["EmbeddingsActor"]["bounds"].cache_bytes,
    "provider_concurrency": lambda doors: doors["LLMGateway"]["limits"].concurrency,
    "provider_queue": lambda doors: doors["LLMGateway"]["limits"].queue,
    "connect_timeout_seconds": lambda doors: doors["LLMGateway"][0]["openai"].deadlines.connect,
    "first_token_timeout_seconds": lambda doors: doors["LLMGateway"][0]["openai"].deadlines.first_token,
    "idle_timeout_seconds": lambda doors: doors["LLMGateway"][0]["openai"].deadlines.between_chunks,
    "drain_seconds": lambda doors: doors["LLMGateway"]["limits"].drain,
    "request_ttl_seconds": lambda doors: doors["RequestRouter"]["limits"].ttl,
    "max_requests": lambda doors: doors["RequestRouter"]["limits"].max_requests,
    "max_tenants": lambda doors: doors["RequestRouter"]["tenants"].limit,
    "max_idempotency_keys": lambda doors: doors["RequestRouter"]["limits"].max_keys,
    "idempotency_ttl_seconds": lambda doors: doors["RequestRouter"]["limits"].key_ttl,
    "requests_max_bytes": lambda doors: doors["RequestRouter"]["limits"].max_bytes,
    "log_max_bytes": lambda doors: doors["RequestRouter"]["limits"].ring_bytes,
    "abandon_grace_seconds": lambda doors: doors["RequestRouter"]["limits"].abandon_grace,
    "cache_max_bytes": lambda doors: doors["CacheActor"][0].max_bytes,
    "cache_max_entries": lambda doors: doors["CacheActor"][0].max_entries,
    "channel_history_entries": lambda doors: doors["SubscriptionHub"]["channels"].history.entries,
    "channel_history_bytes": lambda doors: doors["SubscriptionHub"]["channels"].history.size,
    "channel_history_ttl_seconds": lambda doors: doors["SubscriptionHub"]["channels"].history.ttl,
    "channels_max_bytes": lambda doors: doors["SubscriptionHub"]["channels"].size,
    "max_channels": lambda doors: doors["SubscriptionHub"]["channels"].channels,
    "max_subscriptions": lambda doors: doors["SubscriptionHub"]["subscriptions"],
}
"""Each numeric setting, with the argument by which its user gets it."""


async def test_a_changed_number_reaches_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """All are changed at once, each to its own value, and the whole service is started and stopped."""
    changed = numeric()
    assert changed.keys() == REACHED.keys()
    assert len(set(changed.values())) == len(changed)
    doors = Doors(monkeypatch)
    for name in ("CacheActor", "RequestRouter", "SubscriptionHub", "LoopWatchdog"):
        doors.watch(composition, name)
    doors.watch(tokens, "TokenVerifier")
    doors.watch(upgrade, "SocketTransport")
    doors.watch(gateway_factory, "LLMGateway")
    doors.watch(embeddings_factory, "EmbeddingsActor")
    doors.watch(web, "Application")
    doors.watch(server, "shut_down", grace=0.0)
    monkeypatch.setattr(server, "exit_after", lambda: None)
    monkeypatch.setattr(server, "read_descriptors", lambda: Descriptors(UNLIMITED))
    monkeypatch.setattr(server, "Site", listen(doors, Site))
    doors.watch(server, "AddressTable")
    doors.watch(server, "Runner")
    settings = load_settings(None, openai_api_key="k", jwt_secret="s" * 32, **changed)
    async with open_container(settings) as container, server.listening(container) as (runner, address):
        async with aiohttp.ClientSession(address) as client, client.ws_connect("/ws"):
            pass
        await server._stop(container, runner)
    assert {name: reached(doors) for name, reached in REACHED.items()} == changed


def listen(doors: Doors, site: type[Site]) -> Callable[..., Site]:
    """Return a factory of sites that listen on a free port, and record the configured one."""

    def make(runner: web.AppRunner, host: str, port: int, **bounds: Any) -> Site:  # noqa: ANN401 - passed on
        doors.made["Site"] = {"port": port}
        return site(runner, host, 0, **bounds)

    return make


def test_a_setting_that_two_actors_use_reaches_both() -> None:
    """The gateway's attempts and the embeddings' calls have the same time for a connection."""
    settings = load_settings(None, connect_timeout_seconds=3)
    assert (settings.gateway().deadlines.connect, settings.embeddings().connect_timeout) == (3, 3)
