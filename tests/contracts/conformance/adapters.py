"""The provider adapters under test, each in front of the scripted upstream. A new adapter is a new row."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from actors.llm_gateway.provider import Provider, ProviderDeadlines
from actors.llm_gateway.providers.anthropic import AnthropicProvider
from actors.llm_gateway.providers.azure import AzureProvider
from actors.llm_gateway.providers.bedrock import BedrockProvider
from actors.llm_gateway.providers.local import LocalProvider
from actors.llm_gateway.providers.openai import OpenAIProvider
from actors.llm_gateway.providers.vertex import VertexProvider
from actors.local.process import Address, LocalProcess
from actors.testing import ScriptedUpstream
from actors.wire.client import WireClient
from protocol.gateway import ProviderState
from protocol.routes import ProviderSpec

KEY = "upstream-key"


@dataclass(frozen=True)
class Adapter:
    """A provider adapter.

    Attributes:
        name: the provider's name.
        model: a model that it accepts; where it has prices, one with a known price.
        make: creates the provider, with these deadlines, in front of this upstream.
        price_id: its name in the price list; empty for none.
        surfaces: the surfaces that run every fault; empty for all. An adapter on our own wire with a tested reader
            needs one of each vendor only.
    """

    name: str
    model: str
    make: Callable[[WireClient, ScriptedUpstream, ProviderDeadlines], Provider]
    price_id: str = ""
    surfaces: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        """The model name in a request."""
        return f"{self.name}/{self.model}"


class ScriptedProcess(LocalProcess):
    """A model process that is ready, with the scripted upstream's address."""

    def __init__(self, path: Path, name: str, url: str) -> None:
        super().__init__(path, name)
        self._where = Address(url=url, key=KEY, guided=True)

    def status(self) -> tuple[ProviderState, str]:
        return "ready", ""

    def start(self) -> None:
        """Does nothing: there is no process."""

    async def address(self) -> Address:
        return self._where


def openai(wire: WireClient, upstream: ScriptedUpstream, deadlines: ProviderDeadlines) -> Provider:
    """OpenAI's dialect over our own wire."""
    return OpenAIProvider(wire, base_url=upstream.openai_url, api_key=KEY, deadlines=deadlines)


def anthropic(wire: WireClient, upstream: ScriptedUpstream, deadlines: ProviderDeadlines) -> Provider:
    """Anthropic's dialect over our own wire."""
    return AnthropicProvider(wire, base_url=upstream.anthropic_url, api_key=KEY, deadlines=deadlines)


def local(wire: WireClient, upstream: ScriptedUpstream, deadlines: ProviderDeadlines) -> Provider:
    """The local model, whose engine speaks OpenAI's dialect."""
    path = Path("scripted.gguf")
    provider = LocalProvider(wire, path=path, eager=False, deadlines=deadlines)
    provider._process = ScriptedProcess(path, path.stem, upstream.anthropic_url)
    return provider


def azure(wire: WireClient, upstream: ScriptedUpstream, deadlines: ProviderDeadlines) -> Provider:
    """OpenAI's dialect at Azure's addresses."""
    spec = ProviderSpec(kind="azure", base_url=upstream.cloud_url, api_version="2024-10-21")
    return AzureProvider(wire, spec, api_key=KEY, deadlines=deadlines)


def bedrock(wire: WireClient, upstream: ScriptedUpstream, deadlines: ProviderDeadlines) -> Provider:
    """Anthropic's dialect in AWS's event stream."""
    spec = ProviderSpec(kind="bedrock", base_url=upstream.cloud_url, region="us-east-1")
    return BedrockProvider(wire, spec, api_key=KEY, deadlines=deadlines)


def vertex(wire: WireClient, upstream: ScriptedUpstream, deadlines: ProviderDeadlines) -> Provider:
    """Anthropic's dialect at Google's addresses."""
    spec = ProviderSpec(kind="vertex", base_url=f"{upstream.cloud_url}/v1", project="p", region="us-east5")
    return VertexProvider(wire, spec, api_key=KEY, deadlines=deadlines)


ONE_OF_EACH = ("native", "openai_streamed", "anthropic_whole")

ADAPTERS = (
    Adapter("openai", "gpt-4o-mini", openai, "openai"),
    Adapter("anthropic", "claude-haiku-4-5", anthropic, "anthropic"),
    Adapter("local", "scripted", local),
    Adapter("azure", "gpt-4o-mini", azure, "azure", ONE_OF_EACH),
    Adapter("bedrock", "anthropic.claude-haiku-4-5-20251001-v1:0", bedrock, "aws", ONE_OF_EACH),
    Adapter("vertex", "claude-haiku-4-5@20251001", vertex, "google", ONE_OF_EACH),
)
