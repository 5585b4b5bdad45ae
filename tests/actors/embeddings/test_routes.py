"""Routes of embeddings: the targets of a name, and fallback between them."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest

from actors.embeddings import EmbeddingBounds, EmbeddingsConfig, build_embeddings
from actors.llm_gateway import RetryPolicy
from actors.runtime.testing import TestSystem
from actors.testing import Reply, ScriptedUpstream, Stall, Wait, refuse
from protocol.embeddings import Embed, Embedded
from protocol.errors import ConfigurationError, NotFound, ProviderError
from protocol.gateway import ListModels
from protocol.routes import EmbeddingRoute, ProviderSpec, Routes, SetRoutes

Spawn = Callable[..., Any]
WINDOW = EmbeddingBounds().window
ONCE = RetryPolicy(attempts=1)
IN_A_ROW = 10


def spec(upstream: ScriptedUpstream, **changes: Any) -> ProviderSpec:  # noqa: ANN401 - fields of ProviderSpec
    """A provider at the scripted address."""
    return ProviderSpec(kind="openai", base_url=upstream.openai_url, **changes)


def routes(upstream: ScriptedUpstream, **embeddings: EmbeddingRoute) -> Routes:
    """Return routes with two providers and these aliases."""
    providers = {"first": spec(upstream, api_key_env="FIRST"), "second": spec(upstream, api_key_env="SECOND")}
    return Routes(providers=providers, embeddings=embeddings)


DOCS = EmbeddingRoute(targets=("first/m", "second/m"))


def secrets(name: str) -> str:
    """Each provider's key is its own name."""
    return name.lower()


def asked(upstream: ScriptedUpstream) -> list[tuple[str, str]]:
    """Return the provider and the model of each call."""
    return [(call.headers["authorization"].removeprefix("Bearer "), call.body["model"]) for call in upstream.received]


async def embed(system: TestSystem, embeddings: Any, model: str = "docs", text: str = "a", **changes: Any) -> Embedded:  # noqa: ANN401
    """Send a request, and end the batch's window."""
    waiting = asyncio.ensure_future(embeddings.ask(Embed(model=model, inputs=(text,), **changes), timeout=60))
    await system.advance(WINDOW)
    embedded: Embedded = await waiting
    return embedded


async def test_an_alias_is_asked_and_falls_over(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """The first target answers; where it fails, the next one is called at once."""
    embeddings = spawn(routes=routes(upstream, docs=DOCS), secrets=secrets)
    await embed(system, embeddings)
    upstream.script(refuse(503))
    await embed(system, embeddings, text="b")
    assert asked(upstream) == [("first", "m"), ("first", "m"), ("second", "m")]


async def test_what_fails_everywhere_is_the_last_failure(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """Each target is called once, also where a request has fewer attempts."""
    upstream.script(refuse(503), refuse(500))
    embeddings = spawn(routes=routes(upstream, docs=DOCS), secrets=secrets, retry=ONCE)
    with pytest.raises(ProviderError) as caught:
        await embed(system, embeddings)
    assert caught.value.code == "provider_error"
    assert [who for who, _ in asked(upstream)] == ["first", "second"]


async def test_a_target_that_limits_our_rate_is_asked_last(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """For the seconds of its ``retry-after``."""
    upstream.script(refuse(429, retry_after="7"))
    embeddings = spawn(routes=routes(upstream, docs=DOCS), secrets=secrets)
    for text in ("a", "b"):
        await embed(system, embeddings, text=text)
    await system.advance(7)
    await embed(system, embeddings, text="c")
    assert [who for who, _ in asked(upstream)] == ["first", "second", "second", "first"]


async def test_an_outage_opens_the_breaker(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """After failures in a row a target is passed over until a probe; alone, it is unavailable."""
    upstream.script(*(refuse(503) for _ in range(IN_A_ROW)))
    embeddings = spawn(routes=routes(upstream, docs=DOCS), secrets=secrets, retry=ONCE)
    for number in range(IN_A_ROW):
        with pytest.raises(ProviderError):
            await embed(system, embeddings, "first/m", str(number))
    calls = upstream.calls
    with pytest.raises(ProviderError) as caught:
        await embed(system, embeddings, "first/m")
    assert caught.value.code == "provider_unavailable"
    assert 9 < (caught.value.retry_after or 0) <= 10
    assert upstream.calls == calls
    await embed(system, embeddings)
    assert asked(upstream)[calls:] == [("second", "m")]
    await system.advance(10)
    await embed(system, embeddings, "first/m")
    assert asked(upstream)[-1] == ("first", "m")


async def test_repeated_calls_have_a_budget(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """A provider that fails every first call and answers every repeated one soon gets first calls only."""
    embeddings = spawn(retry=RetryPolicy(attempts=2, jitter=lambda: 0.0))
    failed = 0
    for number in range(20):
        upstream.script(refuse(500))
        try:
            await embed(system, embeddings, "default", str(number))
        except ProviderError:
            failed += 1
    assert 0 < failed < 10


async def test_an_alias_shares_with_its_only_target(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """Both names share cached vectors; with a second target the alias has its own."""
    embeddings = spawn(routes=routes(upstream, docs=DOCS, one=EmbeddingRoute(targets=("first/m",))), secrets=secrets)
    assert (await embed(system, embeddings, "one")).asked == 1
    assert (await embed(system, embeddings, "first/m")).cached == 1
    assert (await embed(system, embeddings)).asked == 1


async def test_the_default_may_be_an_alias(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """It is listed, with all other names."""
    embeddings = spawn(routes=routes(upstream, docs=DOCS), secrets=secrets, default_model="docs")
    await embed(system, embeddings, "default")
    await embed(system, embeddings, "plain")
    assert asked(upstream) == [("first", "m"), ("first", "plain")]
    listed = await embeddings.ask(ListModels(), timeout=5)
    assert [(model.name, model.provider) for model in listed] == [
        ("default", "first"),
        ("docs", "first"),
        ("local/smollm2", "local"),
        ("openai/text-embedding-3-small", "openai"),
    ]


def test_models_of_different_names_are_different() -> None:
    """Unless the operator says that they are one: their vectors can't be compared."""
    targets = ("a/text-embedding-3-small", "b/openai/text-embedding-3-small")
    with pytest.raises(ValueError, match="can't be compared"):
        EmbeddingRoute(targets=targets)
    assert EmbeddingRoute(targets=targets, same_space=True).targets == targets


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"docs": EmbeddingRoute(targets=("nobody/m",))}, r"embeddings.docs: 'nobody/m' is no `provider/model`"),
        ({"docs": EmbeddingRoute(targets=("first",))}, r"embeddings.docs: 'first' is no `provider/model`"),
        ({"docs": EmbeddingRoute(targets=("local/gpt",))}, r"embeddings.docs: local has no model 'gpt'"),
        ({"default": EmbeddingRoute(targets=("first/m",))}, r"embeddings.default: name the route otherwise"),
    ],
)
async def test_a_name_that_leads_nowhere_is_refused(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream, wrong: dict[str, EmbeddingRoute], reason: str
) -> None:
    """At the start, and when routes are replaced; then the old ones stay."""
    with pytest.raises(ConfigurationError, match=reason):
        build_embeddings(EmbeddingsConfig(routes=routes(upstream, **wrong), secrets=secrets))()
    embeddings = spawn(routes=routes(upstream, docs=DOCS), secrets=secrets)
    with pytest.raises(ConfigurationError, match=reason):
        await embeddings.ask(SetRoutes(routes(upstream, **wrong)), timeout=5)
    await embed(system, embeddings)


async def test_other_routes_are_put_in_force(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """Calls under way go on unchanged; from then on names follow the new routes."""
    gate = asyncio.Event()
    upstream.script(Reply(before=(Wait(gate),)))
    embeddings = spawn(routes=routes(upstream, docs=DOCS), secrets=secrets)
    waiting = asyncio.ensure_future(embeddings.ask(Embed(model="docs", inputs=("a",)), timeout=60))
    await system.advance(WINDOW)
    await upstream.called()
    other = Routes(providers={"second": spec(upstream, api_key_env="SECOND")}, embeddings={})
    await embeddings.ask(SetRoutes(other), timeout=5)
    with pytest.raises(NotFound):
        await embed(system, embeddings, "local/docs")
    gate.set()
    assert len((await waiting).vectors) == 1
    await embed(system, embeddings, "second/m", "b")
    assert [who for who, _ in asked(upstream)] == ["first", "second"]


async def test_a_provider_that_is_gone_is_closed_after_its_last_call(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the call is cancelled; a provider that stays is not made again."""
    from actors.embeddings.openai import OpenAIEmbedder  # noqa: PLC0415 - as the factory does

    closed: list[str] = []
    close = OpenAIEmbedder.close

    async def closing(embedder: OpenAIEmbedder) -> None:
        closed.append(embedder.name)
        await close(embedder)

    monkeypatch.setattr(OpenAIEmbedder, "close", closing)
    upstream.script(Reply(before=(Stall(),)))
    held = routes(upstream, docs=DOCS)
    embeddings = spawn(routes=held, secrets=secrets)
    under_way = asyncio.ensure_future(embeddings.ask(Embed(model="docs", inputs=("a",)), timeout=60))
    await system.advance(WINDOW)
    await upstream.called()
    gathered = asyncio.ensure_future(embeddings.ask(Embed(model="first/m", inputs=("b",)), timeout=60))
    await system.settle()
    await embeddings.ask(SetRoutes(Routes(providers={"second": held.providers["second"]})), timeout=5)
    under_way.cancel()
    await upstream.abandoned()
    assert closed == []
    await system.advance(WINDOW)
    assert len((await gathered).vectors) == 1
    await embeddings.ask(ListModels(), timeout=5)
    assert closed == ["first"]
    await embeddings.ask(SetRoutes(Routes()), timeout=5)
    assert closed == ["first", "second"]


async def test_what_vectors_cost(spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream) -> None:
    """The price of the tokens that a request has sent: none from the cache, and unknown where a price is."""
    embeddings = spawn(routes=routes(upstream, docs=DOCS), secrets=secrets)
    model = "openai/text-embedding-3-small"
    embedded = await embed(system, embeddings, model, "three words long")
    assert (embedded.tokens, embedded.usd) == (3, Decimal("0.00000006"))
    assert (await embed(system, embeddings, model, "three words long")).usd == 0
    assert (await embed(system, embeddings)).usd is None
