from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.llm_gateway import GatewayConfig, LLMGateway, ProviderDeadlines, build_gateway
from actors.llm_gateway.defaults import default_provider
from actors.llm_gateway.named import NamedProviders
from actors.runtime.testing import TestSystem
from actors.testing import Received, ScriptedUpstream
from actors.wire.client import WireClient
from protocol.errors import ConfigurationError
from protocol.gateway import Complete, GetProviders, ListModels
from protocol.llm import ChatMessage, ChatRequest
from protocol.routes import ProviderSpec, Route, Routes

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
    """As set, else the one with a key, else the local one; another address than the vendor's may need no key."""
    assert default_provider(config) == name


def test_an_unknown_provider_names_the_known_ones() -> None:
    """The error has the remedy."""
    with pytest.raises(ConfigurationError, match=r"'gemini'.*anthropic, local, openai"):
        build_gateway(GatewayConfig(llm_provider="gemini"))


@pytest.mark.parametrize("name", ["openai", "anthropic"])
def test_a_provider_without_a_key_names_the_setting(name: str) -> None:
    """The vendor's own address needs a key."""
    with pytest.raises(ConfigurationError, match=f"{name.upper()}_API_KEY"):
        build_gateway(GatewayConfig(llm_provider=name))


OPENAI = {"llm_provider": "openai"}
MINE = Routes(
    providers={"mine": ProviderSpec(kind="openai", base_url=ELSEWHERE, models=("m",))},
    routes={"fast": Route(targets=("mine/m",))},
)
REPLACED = Routes(providers={"openai": ProviderSpec(kind="openai", base_url=ELSEWHERE)})


@pytest.mark.parametrize(
    ("fields", "models"),
    [
        ({"openai_api_key": "k"}, ["default", "openai/gpt-5-mini", "local/smollm2"]),
        ({"openai_api_key": "k", "default_model": "gpt-9"}, ["default", "openai/gpt-9", "openai/gpt-5-mini"]),
        ({"openai_base_url": ELSEWHERE, **OPENAI, "default_model": "vendor/gpt"}, ["default", "openai/vendor/gpt"]),
        ({"openai_api_key": "k", "default_model": "mine/m", "routes": MINE}, ["default", "mine/m"]),
        ({"llm_provider": "openai", "routes": REPLACED}, ["default", "openai/gpt-5-mini"]),
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
    """The local model has the name of its file."""
    config = GatewayConfig(openai_api_key="k", local_model_path=Path("models") / "Tiny-1B.gguf")
    async with TestSystem() as system:
        gateway = system.spawn(build_gateway(config), name="llm-gateway")
        assert "local/tiny-1b" in [model.name for model in await gateway.ask(ListModels(), timeout=5)]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"openai_api_key": "k", "default_model": "opnai/m"}, r"no provider 'opnai'.*: local, openai; .*'openai'"),
        ({"openai_api_key": "k", "default_model": "anthropic/m"}, r"set ANTHROPIC_API_KEY for anthropic"),
        ({"anthropic_api_key": "k", "default_model": "foo/bar"}, r"no provider 'foo'; .*: anthropic, local$"),
        ({"default_model": "foo/bar"}, r"no provider 'foo'; the providers are: local$"),
        ({"default_model": "gpt-5"}, r"local has no model 'gpt-5'; it has: smollm2"),
        ({"default_model": "local/smolm2"}, r"it has: smollm2; did you mean 'smollm2'"),
        ({"openai_api_key": "k", "default_model": "openai/"}, r"names no model of openai: write provider/model"),
        ({"openai_api_key": "k", "default_model": "mine/n", "routes": MINE}, r"mine has no model 'n'; it has: m"),
        ({"openai_api_key": "k", "default_model": "fast", "routes": MINE}, r"an alias .*write it there, as `default`"),
    ],
)
def test_a_default_model_that_no_provider_has(fields: dict[str, Any], says: str) -> None:
    """The error names the setting and what is known."""
    with pytest.raises(ConfigurationError, match=f"^DEFAULT_LLM_MODEL: .*{says}"):
        build_gateway(GatewayConfig(**fields))


def test_a_provider_without_a_key_and_a_wrong_model_are_said_at_once() -> None:
    """Each fault is named."""
    with pytest.raises(ConfigurationError) as caught:
        build_gateway(GatewayConfig(llm_provider="openai", default_model="foo/bar"))
    assert [fault.path for fault in caught.value.faults] == ["LLM_PROVIDER", "DEFAULT_LLM_MODEL"]


async def asked(
    spec: ProviderSpec,
    upstream: ScriptedUpstream,
    *,
    seed: int | None = None,
    **fields: Any,  # noqa: ANN401
) -> Received:
    """Send a request to a provider of the routes, and return what its upstream received."""
    config = GatewayConfig(routes=Routes(providers={"mine": spec}), **fields)
    async with TestSystem() as system:
        gateway = system.spawn(build_gateway(config), name="llm-gateway")
        request = ChatRequest(model="mine/some/model", messages=(ChatMessage(role="user", content="hi"),))
        answer = await gateway.ask(Complete(request=request, seed=seed), timeout=60)
        assert (answer.provider, answer.model, answer.cost) == ("mine", "some/model", None)
        assert "mine" in [status.name for status in await gateway.ask(GetProviders(), timeout=5)]
    return upstream.received[0]


async def test_a_named_provider_has_its_own_address_and_key(upstream: ScriptedUpstream) -> None:
    """In either dialect; the key comes from the named variable, and there is no price unless ``price_id`` is set."""
    spec = ProviderSpec(kind="openai", base_url=upstream.openai_url, api_key_env="MY_KEY")
    received = await asked(spec, upstream, secrets={"MY_KEY": "k-1"}.get)
    assert received.headers["authorization"] == "Bearer k-1"
    assert received.body["model"] == "some/model"
    upstream.received.clear()
    spec = ProviderSpec(kind="anthropic", base_url=upstream.anthropic_url)
    assert "x-api-key" not in (await asked(spec, upstream)).headers


@pytest.mark.parametrize(
    ("name", "spec", "says"),
    [
        ("mine", ProviderSpec(kind="openai", api_key_env="NO_KEY"), r"providers\.mine\.api_key_env: NO_KEY is not set"),
        ("mine", ProviderSpec(kind="openai", path="m.gguf"), r"providers\.mine\.path: it is for local, not for openai"),
        (
            "mine",
            ProviderSpec(kind="openai", region="eu"),
            r"mine\.region: it is for bedrock and vertex, not for openai",
        ),
        ("mine", ProviderSpec(kind="anthropic", omit=("seed",)), r"mine\.omit: it is for openai and azure, not for"),
        ("mine", ProviderSpec(kind="anthropic", seeds=True), r"mine\.seeds: it is for openai, not for anthropic"),
        ("mine", ProviderSpec(kind="vertex", profile="p"), r"mine\.profile: it is for bedrock, not for vertex"),
        ("mine", ProviderSpec(kind="azure", base_url=ELSEWHERE), r"mine\.api_version: azure needs one"),
        ("mine", ProviderSpec(kind="azure", api_version="v"), r"mine\.base_url: azure needs one"),
        ("mine", ProviderSpec(kind="bedrock"), r"mine\.region: bedrock needs one"),
        ("mine", ProviderSpec(kind="vertex", region="eu"), r"mine\.project: vertex needs one"),
        ("mine", ProviderSpec(kind="bedrock", region="r", profile="p", api_key_env="K"), r"mine: a profile is for"),
        ("mine", ProviderSpec(kind="local", base_url=ELSEWHERE), r"providers\.mine: a local provider has a path"),
        ("mine", ProviderSpec(kind="local", structured="tool"), r"mine\.structured: a local provider has a grammar"),
        ("a/b", ProviderSpec(kind="openai"), r"providers\.a/b: .* no slash"),
    ],
)
async def test_a_named_provider_that_makes_no_sense_is_a_mistake(name: str, spec: ProviderSpec, says: str) -> None:
    """The error comes at the start, and names the field."""
    config = GatewayConfig(routes=Routes(providers={name: spec}), secrets=lambda _: None)
    async with TestSystem() as system:
        with pytest.raises(ConfigurationError, match=says):
            system.spawn(build_gateway(config), name="llm-gateway")


async def test_an_upstream_is_not_sent_what_it_refuses(upstream: ScriptedUpstream) -> None:
    """Fields in its ``omit``, in whichever form of the dialect the request came."""
    for spec in (
        ProviderSpec(kind="openai", base_url=upstream.openai_url, omit=("stream_options", "seed")),
        ProviderSpec(
            kind="azure", base_url=upstream.cloud_url, api_version="v", api_key_env="K", omit=("stream_options",)
        ),
    ):
        received = await asked(spec, upstream, secrets={"K": "k"}.get)
        assert sorted(received.body) == ["messages", "model", "stream"]
        upstream.received.clear()


@pytest.mark.parametrize(
    ("spec", "sent"),
    [
        (ProviderSpec(kind="openai"), False),
        (ProviderSpec(kind="openai", seeds=True), True),
        (ProviderSpec(kind="openai", seeds=True, structured="tool"), True),
        (ProviderSpec(kind="openai", seeds=True, omit=("seed",)), False),
        (ProviderSpec(kind="azure", api_version="v", api_key_env="K"), True),
        (ProviderSpec(kind="anthropic"), False),
    ],
)
async def test_a_made_up_seed_is_sent_where_seeds_are_known(
    upstream: ScriptedUpstream, spec: ProviderSpec, sent: bool
) -> None:
    """An upstream that may refuse the field does not get one that nobody asked for."""
    urls = {"openai": upstream.openai_url, "anthropic": upstream.anthropic_url, "azure": upstream.cloud_url}
    spec = msgspec.structs.replace(spec, base_url=urls[spec.kind])
    received = await asked(spec, upstream, seed=7, secrets={"K": "k"}.get)
    assert received.body.get("seed") == (7 if sent else None)


async def test_a_cloud_has_its_own_address_key_and_price(upstream: ScriptedUpstream) -> None:
    """Its prices are looked up under the cloud's name, unless ``price_id`` is set."""
    spec = ProviderSpec(kind="azure", base_url=upstream.cloud_url, api_version="2024-10-21", api_key_env="MY_KEY")
    received = await asked(spec, upstream, secrets={"MY_KEY": "k-1"}.get)
    assert received.headers["api-key"] == "k-1"
    assert received.path == "/openai/deployments/some/model/chat/completions"


@pytest.mark.parametrize(
    ("spec", "price_id"),
    [
        (ProviderSpec(kind="azure", base_url=ELSEWHERE, api_version="v"), "azure"),
        (ProviderSpec(kind="bedrock", region="eu-west-3"), "aws"),
        (ProviderSpec(kind="vertex", region="global", project="p"), "google"),
        (ProviderSpec(kind="vertex", region="global", project="p", price_id="anthropic"), "anthropic"),
    ],
)
def test_a_cloud_whose_package_is_missing(spec: ProviderSpec, price_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes at the start and names the extra; with a key the package is not needed."""
    make = NamedProviders(WireClient(), deadlines=ProviderDeadlines(), secrets={"KEY": "k"}.get, local_model_path=None)
    assert make("mine", spec).price_id == price_id
    monkeypatch.setattr("actors.llm_gateway.named.find_spec", lambda _: None)
    assert make("mine", msgspec.structs.replace(spec, api_key_env="KEY")).name == "mine"
    with pytest.raises(ConfigurationError, match=rf"providers\.mine: .*pip install 'tidegate\[{spec.kind}\]'"):
        make("mine", spec)


async def test_a_named_local_model_is_its_file() -> None:
    """A second local model beside the installed one."""
    routes = Routes(providers={"tiny": ProviderSpec(kind="local", path="models/Tiny-1B.gguf")})
    async with TestSystem() as system:
        gateway = system.spawn(build_gateway(GatewayConfig(openai_api_key="k", routes=routes)), name="llm-gateway")
        assert "tiny/tiny-1b" in [model.name for model in await gateway.ask(ListModels(), timeout=5)]


def test_an_embedders_providers_are_all_there_are() -> None:
    """A gateway that is given its providers makes none."""
    routes = Routes(providers={"mine": ProviderSpec(kind="openai")})
    with pytest.raises(ConfigurationError, match=r"providers\.mine"):
        LLMGateway({}, default_model="mine/m", routes=routes)
