import pytest

from actors.embeddings.openai import OpenAIEmbedder
from actors.llm_gateway.providers.anthropic import AnthropicProvider
from actors.llm_gateway.providers.openai import OpenAIProvider
from actors.wire.client import WireClient
from actors.wire.unary import JsonWire
from protocol.errors import ConfigurationError


@pytest.mark.parametrize("url", ["nowhere", "ftp://h/v1", "https://user:password@h/v1"])
def test_an_address_that_nothing_can_be_sent_to_is_a_fault_of_the_settings(url: str) -> None:
    """The error comes where the provider is made, with its name and without possible secrets."""
    for make in (OpenAIProvider, AnthropicProvider):
        with pytest.raises(ConfigurationError, match="mine: a provider's URL") as caught:
            make(WireClient(), base_url=url, name="mine")
        assert "password@" not in caught.value.detail
    with pytest.raises(ConfigurationError, match="mine: a provider's URL"):
        OpenAIEmbedder(JsonWire(connect_timeout=1), base_url=url, name="mine")


def test_a_key_that_no_header_can_have_is_a_fault_of_the_settings() -> None:
    """A newline from a file, for one; the error does not repeat the key."""
    for make in (OpenAIProvider, AnthropicProvider):
        with pytest.raises(ConfigurationError, match="mine: the header") as caught:
            make(WireClient(), api_key="secret\n", name="mine")
        assert "secret" not in caught.value.detail
    with pytest.raises(ConfigurationError, match="mine: the header"):
        OpenAIEmbedder(JsonWire(connect_timeout=1), api_key="secret\n", name="mine")
