"""The composition of the service."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from actors.testing import ScriptedUpstream, say
from protocol.errors import ConfigurationError
from protocol.gateway import ListModels
from service.config.settings import Settings, load_settings
from service.container import open_container

BODY = {"model": "default", "messages": [{"role": "user", "content": "hi"}]}


async def test_a_request_goes_all_the_way(start: Callable[..., Awaitable[Any]], upstream: ScriptedUpstream) -> None:
    """A request gets an answer from the model, with the call's ids."""
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
    """The message names the missing setting."""
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        async with open_container(load_settings(None, llm_provider="openai")):
            pytest.fail("it must not open")


async def test_the_gateway_is_made_as_the_settings_say(settings: Settings) -> None:
    """Keys and addresses reach the gateway."""
    config = settings.gateway()
    assert config.openai_api_key == "upstream-key"
    assert config.openai_base_url == settings.openai_base_url
    async with open_container(settings) as container:
        models = await container.gateway.ask(ListModels(), timeout=5)
    assert "openai" in {model.provider for model in models}
