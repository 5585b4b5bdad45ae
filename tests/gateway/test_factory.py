from pathlib import Path
from typing import Any

import pytest

from actors.llm_gateway import GatewayConfig, build_gateway
from actors.llm_gateway.factory import default_provider
from actors.runtime.testing import TestSystem
from protocol.errors import ConfigurationError
from protocol.gateway import ListModels

ELSEWHERE = "http://127.0.0.1:1/v1"


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (GatewayConfig(), "local"),
        (GatewayConfig(openai_api_key="k"), "openai"),
        (GatewayConfig(anthropic_api_key="k"), "anthropic"),
        (GatewayConfig(openai_api_key="k", anthropic_api_key="k"), "openai"),
        (GatewayConfig(openai_api_key="k", llm_provider="local"), "local"),
        (GatewayConfig(llm_provider="openai", openai_base_url=ELSEWHERE), "openai"),
    ],
)
def test_the_default_provider(config: GatewayConfig, name: str) -> None:
    """As set, else the one with a key, else the local one; an address of one's own may need no key."""
    assert default_provider(config) == name


def test_an_unknown_provider_names_the_known_ones() -> None:
    """The mistake and its remedy are in the message."""
    with pytest.raises(ConfigurationError, match=r"'gemini'.*anthropic, local, openai"):
        build_gateway(GatewayConfig(llm_provider="gemini"))


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_provider_without_a_key_names_the_setting(name: str) -> None:
    """The vendor's own address is of no use without a key."""
    with pytest.raises(ConfigurationError, match=f"{name.upper()}_API_KEY"):
        build_gateway(GatewayConfig(llm_provider=name))


@pytest.mark.parametrize(
    ("fields", "models"),
    [
        ({"openai_api_key": "k"}, ["default", "openai/gpt-5-mini", "local/smollm2"]),
        ({"openai_api_key": "k", "default_model": "gpt-9"}, ["default", "openai/gpt-9", "openai/gpt-5-mini"]),
        ({"openai_api_key": "k", "default_model": "vendor/gpt"}, ["default", "openai/vendor/gpt"]),
        (
            {"openai_api_key": "k", "anthropic_api_key": "k", "default_model": "anthropic/claude"},
            ["default", "anthropic/claude", "openai/gpt-5-mini", "anthropic/claude-haiku-4-5", "local/smollm2"],
        ),
    ],
)
async def test_what_default_means(fields: dict[str, Any], models: list[str]) -> None:
    """The setting is a model of the default provider, or names another provider in front."""
    async with TestSystem() as system:
        gateway = system.spawn(build_gateway(GatewayConfig(**fields)), name="llm-gateway")
        listed = await gateway.ask(ListModels(), timeout=5)
        assert [model.name for model in listed][: len(models)] == models


async def test_another_file_is_another_model() -> None:
    """The local model is called after its file."""
    config = GatewayConfig(openai_api_key="k", local_model_path=Path("models") / "Tiny-1B.gguf")
    async with TestSystem() as system:
        gateway = system.spawn(build_gateway(config), name="llm-gateway")
        assert "local/tiny-1b" in [model.name for model in await gateway.ask(ListModels(), timeout=5)]
