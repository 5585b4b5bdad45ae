"""The service put together."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from actors.llm_gateway import GatewayConfig
from actors.log.event_log import RING_BYTES
from actors.requests import router
from actors.testing import ScriptedUpstream, say
from protocol.errors import ConfigurationError
from protocol.gateway import ListModels
from service.config.settings import Settings, load_settings
from service.container import gateway_config, open_container

BODY = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}


async def test_a_request_goes_all_the_way(start: Callable[..., Awaitable[Any]], upstream: ScriptedUpstream) -> None:
    """From the socket that accepts it to the model and back, with the ids of the call on the answer."""
    upstream.script(say("Hel", "lo"))
    running = await start()
    response = await running.client.post("/v1/chat/completions", json=BODY, headers={"x-request-id": "mine"})
    body = await response.json()
    assert response.status == 200, body
    assert body["choices"][0]["message"]["content"] == "Hello"
    assert response.headers["x-request-id"] == "mine"
    assert upstream.calls == 1


async def test_everything_ends_with_the_container(settings: Settings) -> None:
    """After the block no actor takes a message."""
    async with open_container(settings) as container:
        refs = (container.router, container.gateway, container.hub, container.cache)
        assert all(ref.alive for ref in refs)
        assert {child.name for child in container.system.children()} >= {ref.name for ref in refs}
    assert not any(ref.alive for ref in refs)


async def test_a_provider_without_a_key_is_refused_before_anything_starts() -> None:
    """The operator reads which setting is missing."""
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        async with open_container(load_settings(None, llm_provider="openai")):
            pytest.fail("it must not open")


def test_the_settings_change_no_default_of_the_actors() -> None:
    """Whoever embeds the actors and whoever runs the service get the same bounds."""
    settings, config = load_settings(None), GatewayConfig()
    assert settings.connect_timeout_seconds == config.connect_timeout
    assert settings.first_token_timeout_seconds == config.first_token_timeout
    assert settings.idle_timeout_seconds == config.idle_timeout
    assert (settings.provider_concurrency, settings.provider_queue) == (config.concurrency, config.queue)
    assert settings.request_ttl_seconds == router.TTL
    assert settings.max_requests == router.MAX_REQUESTS
    assert settings.requests_max_bytes == router.MAX_STORED_BYTES
    assert settings.abandon_grace_seconds == router.ABANDON_GRACE
    assert settings.log_max_bytes == RING_BYTES


async def test_the_gateway_is_made_as_the_settings_say(settings: Settings) -> None:
    """Keys, addresses, bounds and deadlines reach the gateway."""
    config = gateway_config(settings.model_copy(update={"provider_queue": 7, "idle_timeout_seconds": 3.0}))
    assert config.openai_api_key == "upstream-key"
    assert config.openai_base_url == settings.openai_base_url
    assert (config.queue, config.idle_timeout) == (7, 3.0)
    async with open_container(settings) as container:
        models = await container.gateway.ask(ListModels(), timeout=5)
    assert "openai" in {model.provider for model in models}
