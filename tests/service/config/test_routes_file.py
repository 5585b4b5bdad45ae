"""The routes' file: its format, and how a change is applied."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from actors.llm_gateway import GatewayConfig, build_gateway
from actors.requests.router_messages import ForgetModels
from actors.runtime.testing import Probe, TestSystem
from actors.testing import End, Reply, Say, ScriptedUpstream, Wait
from protocol.budgets import Budget
from protocol.errors import ConfigurationError, FieldError, NotFound, Overloaded
from protocol.gateway import Complete, ListModels, ResolveModel
from protocol.identity import ChannelGrant
from protocol.llm import ChatMessage, ChatRequest
from protocol.requests import CancelOwned
from protocol.routes import EmbeddingRoute, ProviderSpec, Route, Routes, SetRoutes, Target
from service.auth.authenticator import Authenticator
from service.auth.keys import KeyRing, KeySpec, digest_of
from service.config.routes_file import open_routes
from service.config.routes_watcher import CHECK_INTERVAL, CheckFile, GetRejected, RoutesWatcher
from service.config.settings import load_settings, variable
from service.container import open_container

SECRET = "the-key-of-the-tests"
HASH = digest_of(SECRET).hex()
WHOLE = f"""
default = "fast"

[providers.groq]
kind = "openai"
base_url = "https://groq.example/openai/v1"
api_key_env = "GROQ_API_KEY"
models = ["llama"]
concurrency = 8

[routes.fast]
order = "weighted"
targets = [
    "groq/llama",
    {{ model = "anthropic/claude", weight = 3, temperature = 0, max_tokens = 100, first_token_timeout = 2.5 }},
]

[routes."vendor/model"]
targets = ["groq/llama"]

[embeddings.docs]
targets = ["groq/m", "openai/vendor/m"]
same_space = true

[keys.web]
hash = "{HASH}"
tenant = "acme"
scopes = ["inference", "admin"]
models = ["fast", "groq/*"]
channels = [{{ pattern = "room:*", rights = ["subscribe"] }}]
budgets = [{{ per = "day", usd = 2.5, tokens = 100_000 }}]
default = "vendor/model"
disabled = true
"""
ONE = '[routes.one]\ntargets = ["openai/a"]\n'
KEY = '[keys.web]\nenv = "K"\n'
KEYS: dict[str, Any] = {"api_keys": (SecretStr("a-key-of-the-tests"),)}
TWO = '[routes.two]\ntargets = ["openai/b"]\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file's path."""
    return tmp_path / "tidegate.toml"


def write(file: Path, text: str | None) -> None:
    """Write a new version with a later time, or remove the file."""
    if text is None:
        file.unlink()
        return
    before = file.stat().st_mtime_ns if file.exists() else 0
    file.write_text(text, encoding="utf-8")
    os.utime(file, ns=(before + 10**9, before + 10**9))


def test_all_that_it_may_say(file: Path) -> None:
    """Providers, aliases with targets in short and in full, the default, and keys."""
    write(file, WHOLE)
    read = open_routes(file)
    assert read.keys == {
        "web": KeySpec(
            hash=HASH,
            tenant="acme",
            scopes=("inference", "admin"),
            models=("fast", "groq/*"),
            channels=(ChannelGrant("room:*", ("subscribe",)),),
            budgets=(Budget(per="day", usd=Decimal("2.5"), tokens=100_000),),
            default="vendor/model",
            disabled=True,
        )
    }
    assert read.routes == Routes(
        default="fast",
        providers={
            "groq": ProviderSpec(
                kind="openai",
                base_url="https://groq.example/openai/v1",
                api_key_env="GROQ_API_KEY",
                models=("llama",),
                concurrency=8,
            )
        },
        routes={
            "fast": Route(
                order="weighted",
                targets=(
                    "groq/llama",
                    Target(model="anthropic/claude", weight=3, temperature=0, max_tokens=100, first_token_timeout=2.5),
                ),
            ),
            "vendor/model": Route(targets=("groq/llama",)),
        },
        embeddings={"docs": EmbeddingRoute(targets=("groq/m", "openai/vendor/m"), same_space=True)},
    )


async def test_the_pages_example_is_one(root: Path, file: Path) -> None:
    """The documentation's example is valid, except for the key."""
    page = (root / "docs" / "routes.md").read_text(encoding="utf-8")
    write(file, page.partition("```toml\n")[2].partition("```")[0])
    config = GatewayConfig(
        openai_api_key="k", anthropic_api_key="k", routes=open_routes(file).routes, secrets=str.lower
    )
    async with TestSystem() as system:
        gateway = system.spawn(build_gateway(config), name="llm-gateway")
        assert (await gateway.ask(ResolveModel("default"), timeout=5)).provider == "groq"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fallback = 1", ["1: fallback: there is no such key; there are: default, embeddings, jwt"]),
        ("default = 1", ["1: default: should be a text, got a whole number"]),
        ("routes = 1", ["1: routes: should be tables, as [routes.NAME]"]),
        ("route.a.targets = []", ["1: route: there is no such key; did you mean 'routes'?"]),
        ("[keys.a]\nenv = 'K'\nmodel = 'x'", ["3: keys.a.model: there is no such key; did you mean 'models'?"]),
        ("[routes.a]\ntargets = []", ["2: routes.a.targets: should be a list of length >= 1"]),
        ("[routes.a]\norder = 'listed'", ["1: routes.a.targets: it is missing"]),
        ("[routes.a]\ntargets = [\n'a/b',\n 1]", ["4: routes.a.targets[1]: should be a text or a table, got a whole"]),
        (
            "[routes.a]\ntargets = [{model = 'a/b', wieght = 1}]",
            ["2: routes.a.targets[0].wieght: there is no such key; did you mean 'weight'?"],
        ),
        (
            "[routes.a]\ntargets = [{model = 'a/b', weight = 0}]",
            ["2: routes.a.targets[0].weight: should be a number > 0"],
        ),
        (
            "[routes.a]\ntargets = ['a/b']\norder = 'weighed'",
            ["3: routes.a.order: should be 'listed' or 'weighted'; did you mean 'weighted'?"],
        ),
        ("[routes]\na = 1", ["2: routes.a: should be a table, got a whole number"]),
        (
            "[providers.p]\nkind = 'gemini'",
            ["2: providers.p.kind: should be 'openai', 'anthropic', 'local', 'azure', 'bedrock' or 'vertex'"],
        ),
        (
            "[providers.p]\nkind = 'openai'\nbase_url = 'x.example'",
            ["3: providers.p.base_url: should be an address that"],
        ),
        ("[providers.p]\nkind = 'openai'\nqueue = '7'", ["3: providers.p.queue: should be a whole number, got a text"]),
        (
            "[providers.p]\nkind = 'openai'\napi_key = 'sk-secret-secret'",
            ["3: providers.p.api_key: there is no such key; did you mean 'api_key_env'?"],
        ),
        ("[routes", ["1: Expected ']' at the end of a table declaration"]),
        ("[routes.a]\ntargets = ['a/b']\n[routes.a]\ntargets = []", ["3: routes.a: it is there already, in line 1"]),
        ("[routes.a]\ntargets = []\ntargets = []", ["3: routes.a.targets: it is there already, in line 2"]),
        (
            "fallback = 1\n[keys.a]\nscopes = ['root']\n[[keys.a.budgets]]\nper = 'week'\n[keys.'b c']\nenv = 'K'",
            [
                "1: fallback: there",
                "3: keys.a.scopes[0]: should be 'inference', 'channels' or 'admin'",
                "5: keys.a.budgets[0].per: should be 'day' or 'month'",
                "6: keys.b c: a name is 1 to 64",
            ],
        ),
    ],
)
def test_every_mistake_has_its_line_and_its_key(file: Path, text: str, says: list[str]) -> None:
    """The message names the file, the line, the key, and what is allowed; it has no value that may be a secret."""
    write(file, text)
    with pytest.raises(ConfigurationError) as caught:
        open_routes(file)
    faults = [f"{fault.path}: {fault.message}" for fault in caught.value.faults]
    found = sorted(faults, key=lambda fault: int(fault.removeprefix(f"{file}:").partition(":")[0]))
    assert len(found) == len(says), found
    for fault, start in zip(found, says, strict=True):
        assert fault.startswith(f"{file}:{start}"), fault
    assert "secret-secret" not in caught.value.detail


def test_only_a_file_that_was_named_has_to_be_there(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of the default name is read if it exists."""
    monkeypatch.chdir(tmp_path)
    assert open_routes(None).routes == Routes()
    with pytest.raises(ConfigurationError, match="No such file"):
        open_routes(file)
    write(file, ONE)
    assert open_routes(None).routes == open_routes(file).routes == Routes(routes={"one": Route(targets=("openai/a",))})


def test_what_is_no_text_or_too_long_is_a_mistake(file: Path) -> None:
    """An unreadable file is a configuration error."""
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="no UTF-8 text"):
        open_routes(file)
    file.write_bytes(b"#" * 2_000_000)
    with pytest.raises(ConfigurationError, match="larger than"):
        open_routes(file)
    file.write_text("a = " + "[" * 100_000, encoding="utf-8")
    with pytest.raises(ConfigurationError, match="nested too deeply"):
        open_routes(file)
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigurationError, match="Is a directory"):
        open_routes(file)


def test_a_byte_order_mark_is_no_mistake(file: Path) -> None:
    """Editors on Windows write one; line ends may be theirs, too."""
    file.write_bytes(b"\xef\xbb\xbf" + ONE.replace("\n", "\r\n").encode())
    assert open_routes(file).routes == Routes(routes={"one": Route(targets=("openai/a",))})


def test_a_key_is_in_the_environment_or_in_the_settings_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment wins; an empty value counts as unset."""
    env = tmp_path / ".env"
    env.write_text("GROQ_API_KEY=from-file\nOTHER=\n", encoding="utf-8")
    assert (variable("GROQ_API_KEY", env), variable("OTHER", env), variable("NONE", env)) == ("from-file", None, None)
    monkeypatch.setenv("GROQ_API_KEY", "from-environment")
    assert variable("GROQ_API_KEY", env) == "from-environment"
    assert variable("GROQ_API_KEY", tmp_path / "none") == "from-environment"


class Watched:
    """A watcher between a file and probes."""

    def __init__(self, system: TestSystem, file: Path) -> None:
        self.system = system
        self.embeddings: Probe[SetRoutes] = system.probe(SetRoutes, name="embeddings")
        self.gateway: Probe[SetRoutes] = system.probe(SetRoutes, name="gateway")
        self.router: Probe[ForgetModels | CancelOwned] = system.probe(ForgetModels, CancelOwned, name="router")
        self.keys = KeyRing(variable={"K": SECRET}.get)
        opened = open_routes(file)
        self.keys.replace(opened.keys)
        targets = self.embeddings.ref, self.gateway.ref
        self.watcher = system.spawn(
            lambda: RoutesWatcher(
                opened, targets=targets, router=self.router.ref, keys=self.keys, rights=Authenticator(self.keys)
            ),
            name="routes-watcher",
        )

    async def rejected(self) -> tuple[FieldError, ...]:
        """Return what the watcher says is wrong in the file."""
        return await self.watcher.ask(GetRejected(), timeout=5)

    def opens(self) -> bool:
        """Whether the key that the tests use is in force."""
        return self.keys.known(self.keys.digest(SECRET)) is not None

    async def look(self, reply: Exception | None = None) -> list[str]:
        """Let the watcher check once; returns the aliases that the gateway got."""
        self.embeddings.reply(SetRoutes, None)
        self.gateway.reply(SetRoutes, reply)
        await self.system.advance(CHECK_INTERVAL)
        await self.embeddings.expect(SetRoutes)
        return sorted((await self.gateway.expect(SetRoutes)).routes.routes)


async def test_a_change_is_put_in_force(file: Path) -> None:
    """The gateway gets the routes, then the router's cache of models is cleared; the log has one line."""
    write(file, ONE)
    async with TestSystem() as system:
        watched = Watched(system, file)
        with capture_logs() as logs:
            assert await watched.look() == ["one"]
            await watched.router.expect_nothing()
            write(file, TWO)
            assert await watched.look() == ["two"]
            await watched.router.expect(ForgetModels)
            assert await watched.look() == ["two"]
            await watched.router.expect_nothing()
    assert [(line["event"], line["routes"]) for line in logs] == [("routes_changed", ["two"])]


@pytest.mark.parametrize("bad", ["[routes", None])
async def test_a_bad_file_is_reported_once_and_the_old_one_stays(file: Path, bad: str | None) -> None:
    """A malformed or removed file changes nothing; a valid one is applied later."""
    write(file, ONE)
    async with TestSystem() as system:
        watched = Watched(system, file)
        with capture_logs() as logs:
            write(file, bad)
            assert await watched.look() == ["one"]
            assert await watched.look() == ["one"]
            assert [(line["event"], line["log_level"], line["kept"]) for line in logs] == [
                ("routes_rejected", "warning", ["one"])
            ]
            assert [fault.path.partition(":")[0] for fault in await watched.rejected()] == [str(file)]
            write(file, TWO)
            assert await watched.look() == ["two"]
            assert await watched.rejected() == ()


async def test_what_the_gateway_refuses_is_reported_once_and_the_old_one_stays(file: Path) -> None:
    """A route with an unknown target is refused by the gateway, with the key in the reason."""
    write(file, ONE)
    async with TestSystem() as system:
        watched = Watched(system, file)
        write(file, TWO)
        with capture_logs() as logs:
            assert await watched.look(ConfigurationError("routes.two.targets[0]: no")) == ["two"]
            assert await watched.look() == ["one"]
            await watched.router.expect_nothing()
        assert [(line["event"], line["reason"]) for line in logs] == [("routes_rejected", "routes.two.targets[0]: no")]
        assert await watched.rejected() == (FieldError("routes.two.targets[0]", "no"),)


async def test_routes_that_one_actor_refuses_are_not_sent_to_later_ones(file: Path) -> None:
    """Where the embeddings refuse the routes, the gateway does not get them."""
    write(file, ONE)
    async with TestSystem() as system:
        watched = Watched(system, file)
        write(file, TWO)
        watched.embeddings.reply(SetRoutes, ConfigurationError("embeddings.two: no"))
        with capture_logs() as logs:
            await system.advance(CHECK_INTERVAL)
            await watched.embeddings.expect(SetRoutes)
            await watched.gateway.expect_nothing()
            assert await watched.look() == ["one"]
        assert [line["reason"] for line in logs] == ["embeddings.two: no"]


async def test_a_change_of_keys_is_put_in_force(file: Path) -> None:
    """An added key is valid, a removed one is not; the log has one line, and the router gets nothing."""
    write(file, ONE)
    async with TestSystem() as system:
        watched = Watched(system, file)
        with capture_logs() as logs:
            write(file, ONE + KEY)
            await watched.look()
            assert watched.opens()
            await watched.look()
            write(file, ONE)
            await watched.look()
            assert not watched.opens()
            await watched.router.expect_nothing()
    assert [(line["event"], line["keys"]) for line in logs] == [("keys_changed", ["web"]), ("keys_changed", [])]


@pytest.mark.parametrize("bad", ["[routes", '[keys.web]\nenv = "K"\nrights = 1', '[keys.web]\nenv = "NONE"', None])
async def test_a_bad_file_leaves_the_keys_as_they_are(file: Path, bad: str | None) -> None:
    """An invalid key in the file, or in the environment, keeps the valid routes from being applied."""
    write(file, ONE + KEY)
    async with TestSystem() as system:
        watched = Watched(system, file)
        with capture_logs() as logs:
            write(file, bad if bad is None else TWO + bad)
            assert await watched.look() == ["one"]
            assert watched.opens()
    assert [line["event"] for line in logs] == ["routes_rejected"]


async def test_a_key_is_gone_at_once_whatever_the_gateway_says(file: Path) -> None:
    """A removed key is refused even where the file's routes are invalid."""
    write(file, ONE + KEY)
    async with TestSystem() as system:
        watched = Watched(system, file)
        write(file, TWO)
        await watched.look(ConfigurationError("routes.two.targets[0]: no"))
        assert not watched.opens()


async def test_a_gateway_that_is_busy_is_told_again(file: Path) -> None:
    """A busy gateway gets the routes again at the next check, without a log line."""
    write(file, ONE)
    async with TestSystem() as system:
        watched = Watched(system, file)
        write(file, TWO)
        with capture_logs() as logs:
            assert await watched.look(Overloaded()) == ["two"]
            assert logs == []
            assert await watched.look() == ["two"]
            await watched.router.expect(ForgetModels)


async def test_a_reload_drops_no_request(upstream: ScriptedUpstream, file: Path) -> None:
    """A running request ends under the old routes, even where the new ones lack its provider."""
    gate = asyncio.Event()
    upstream.script(Reply(steps=(Say("Hel"), Wait(gate), Say("lo"), End())))
    provider = f'[providers.old]\nkind = "openai"\nbase_url = "{upstream.openai_url}"\n'
    write(file, provider + '[routes.one]\ntargets = ["old/a"]\n')
    opened = open_routes(file)
    async with TestSystem() as system:
        config = GatewayConfig(openai_base_url=upstream.openai_url, llm_provider="openai", routes=opened.routes)
        gateway = system.spawn(build_gateway(config), name="llm-gateway")
        router: Probe[ForgetModels | CancelOwned] = system.probe(ForgetModels, CancelOwned, name="router")
        system.spawn(
            lambda: RoutesWatcher(
                opened, targets=(gateway,), router=router.ref, keys=KeyRing(), rights=Authenticator(KeyRing())
            ),
            name="routes-watcher",
        )
        request = ChatRequest(model="one", messages=(ChatMessage(role="user", content="hi"),))
        waiting = asyncio.ensure_future(gateway.ask(Complete(request=request), timeout=60))
        await upstream.called()
        write(file, TWO)
        await system.advance(CHECK_INTERVAL)
        await router.expect(ForgetModels)
        assert (await gateway.ask(ResolveModel("two"), timeout=5)).provider == "openai"
        with pytest.raises(NotFound):
            await gateway.ask(ResolveModel("local/a"), timeout=5)
        assert not any(model.provider == "old" for model in await gateway.ask(ListModels(), timeout=5))
        gate.set()
        assert ((await waiting).text, (await waiting).provider) == ("Hello", "old")


async def test_the_service_reads_its_file(
    start: Callable[..., Awaitable[Any]], upstream: ScriptedUpstream, file: Path
) -> None:
    """An alias of the file is a model on every surface."""
    write(file, ONE)
    running = await start(routes_file=file)
    models = await (await running.client.get("/v1/models")).json()
    assert "one" in [model["id"] for model in models["data"]]
    body = {"model": "one", "messages": [{"role": "user", "content": "hi"}]}
    assert (await running.client.post("/v1/chat/completions", json=body)).status == 200
    assert upstream.received[0].body["model"] == "a"


async def test_the_service_does_not_start_with_routes_that_lead_nowhere(file: Path) -> None:
    """The message names the wrong key."""
    write(file, '[routes.one]\ntargets = ["nobody/a"]\n')
    with pytest.raises(ConfigurationError, match=r"tidegate\.toml:2: routes\.one\.targets\[0\]"):
        async with open_container(load_settings(None, routes_file=file)):
            pytest.fail("it must not open")


async def test_a_running_service_shows_what_is_wrong_in_a_changed_file(
    start: Callable[..., Awaitable[Any]], file: Path
) -> None:
    """All faults with their lines are in the health of who may see them; others see that there are some."""
    write(file, ONE)
    wrong = '[providers.p]\nkind = "openai"\napi_key_env = "NOT_SET"\n[routes.two]\ntargets = ["p/a", "opnai/b"]\n'
    for settings, headers, detailed in (
        ({}, {}, True),
        (KEYS, {}, False),
        (KEYS, {"x-api-key": "wrong"}, False),
        (KEYS, {"x-api-key": KEYS["api_keys"][0].get_secret_value()}, True),
    ):
        write(file, ONE)
        running = await start(routes_file=file, **settings)
        write(file, wrong)
        await running.container.routes.tell(CheckFile())
        await running.container.routes.ask(GetRejected(), timeout=5)
        response = await running.client.get("/api/health", headers=headers)
        body = await response.json()
        assert (response.status, body["status"]) == (200, "degraded")
        assert ("checks" in body) == detailed
        if detailed:
            check = body["checks"]["routes"]
            assert check["status"] == "degraded"
            assert f"{file}:3: providers.p.api_key_env: NOT_SET is not set" in check["detail"]
            assert f"{file}:5: routes.two.targets[1]: 'opnai/b'" in check["detail"]
        assert (await running.client.get("/api/health/ready")).status == 200
        write(file, ONE)
        await running.container.routes.tell(CheckFile())
        await running.container.routes.ask(GetRejected(), timeout=5)
        assert (await (await running.client.get("/api/health", headers=headers)).json())["status"] == "healthy"
