"""The examples, run with a scripted model if the test needs a fixed answer, and with the real local model."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from actors.testing import ScriptedUpstream, say
from service.config.settings import load_settings
from service.container import open_container
from service.server.server import listening
from tests.local_service import environment, local_service, needs_local_model


@pytest.fixture(scope="module")
def address(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with the real local model."""
    with local_service(root, tmp_path_factory.mktemp("service")) as address:
        yield address


@asynccontextmanager
async def scripted_service(upstream: ScriptedUpstream) -> AsyncIterator[str]:
    """A service in this process, with a scripted model."""
    settings = load_settings(None, port=0, openai_api_key="made-up", openai_base_url=upstream.openai_url)
    async with open_container(settings) as container, listening(container) as (_, address):
        container.lifecycle.serve()
        yield address


def run(root: Path, *words: str, **settings: str) -> str:
    """Run a program to its end and return what it prints."""
    variables = environment(root, **settings)
    done = subprocess.run(  # noqa: S603 - our own examples
        words, cwd=root / "examples", capture_output=True, text=True, timeout=50, check=False, env=variables
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


async def test_embed_calls_the_model_once(root: Path) -> None:
    """Of three identical questions one calls the model, one joins it, and one is replayed."""
    async with ScriptedUpstream(say("an apple, ", "a pear")) as upstream:
        settings = {"OPENAI_API_KEY": "made-up", "OPENAI_BASE_URL": upstream.openai_url}
        printed = await asyncio.to_thread(run, root, sys.executable, "embed.py", **settings)
        assert upstream.calls == 1
    answers = [line.partition(", completed: ")[::2] for line in printed.splitlines()]
    assert sorted(source for source, _ in answers) == ["cache", "joined", "upstream"]
    assert {text for _, text in answers} == {"an apple, a pear"}


@needs_local_model
def test_embed_with_the_local_model(root: Path) -> None:
    """Without a key the real local model answers, in the same program."""
    printed = run(root, sys.executable, "embed.py")
    assert printed.count(", completed: ") == 3


@needs_local_model
def test_openai_client(root: Path, address: str) -> None:
    """The official SDK accepts the unary and the streamed answer, with their usage."""
    printed = run(root, sys.executable, "openai_client.py", TIDEGATE_URL=address)
    assert "CompletionUsage(" in printed
    assert "tokens; request req_" in printed


@needs_local_model
@pytest.mark.parametrize("text", ["pizza near me", 'a "quoted" \\ line\nand another'])
def test_food_gate(root: Path, address: str, text: str) -> None:
    """The answer is JSON that matches the schema, whatever the text."""
    gate = json.loads(run(root, "./food_gate.sh", text, TIDEGATE_URL=address))
    assert gate.keys() == {"isFoodRelated", "language", "confidence"}
    assert isinstance(gate["isFoodRelated"], bool)
    assert gate["language"] in {"he", "en", "ru", "ar", "fr", "es", "other"}
    assert 0 <= gate["confidence"] <= 1


async def test_food_gate_fails_when_the_answer_does(root: Path) -> None:
    """After an answer that does not match, the script fails with the error on standard error and an empty output."""
    async with ScriptedUpstream(say("not JSON")) as upstream, scripted_service(upstream) as address:
        process = await asyncio.create_subprocess_exec(
            "./food_gate.sh",
            cwd=root / "examples",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(root, TIDEGATE_URL=address),
        )
        out, notes = await process.communicate()
    assert (process.returncode, out) == (1, b"")
    assert b"schema_mismatch" in notes
