"""The command in real processes, against a real service with a scripted upstream."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from actors.testing import End, Reply, Say, ScriptedUpstream, Wait, say
from tests.cutting_proxy import CuttingProxy
from tests.service.cli.command import Service, Terminal, environment, serving, tidegate


@pytest.fixture
async def service(root: Path, upstream: ScriptedUpstream) -> AsyncIterator[Service]:
    """A service that runs."""
    async with serving(root, upstream) as service:
        yield service


@pytest.mark.parametrize("words", [["version"], ["--version"], ["completion", "bash"]])
async def test_version_loads_nothing(root: Path, words: list[str]) -> None:
    """What needs no service imports neither the service, the client nor an SDK."""
    code = (
        "import sys, typer.testing, service.cli.main as cli;"
        f"print(typer.testing.CliRunner().invoke(cli.app, {words}).output.splitlines()[0]);"
        "print(*(name for name in sys.modules))"
    )
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
        env=environment(root),
    )
    version, loaded = done.stdout.splitlines()
    expected = r"(tidegate )?(\d+\.\d+.*|unknown \(not installed\))|_tidegate_completion\(\) \{"
    assert re.fullmatch(expected, version)
    heavy = {"actors", "aiohttp", "anthropic", "msgspec", "openai", "opentelemetry", "pydantic_settings"}
    assert heavy.isdisjoint(loaded.split())


async def test_ask(root: Path, upstream: ScriptedUpstream, service: Service) -> None:
    """A pipe gets exactly the text and a newline; the prompt may come from standard input."""
    upstream.default = say("Hel", "lo\n", "你好")
    asked = await tidegate(root, "ask", "hi", "--quiet", "--url", service.address)
    assert asked == (0, "Hello\n你好\n", "")
    for words in (("ask", "-q", "-"), ("ask", "-q")):
        assert await tidegate(root, *words, stdin="hi there", TIDEGATE_URL=service.address) == asked
        assert upstream.received[-1].body["messages"] == [{"role": "user", "content": "hi there"}]


async def test_ask_for_json(root: Path, upstream: ScriptedUpstream, service: Service, tmp_path: Path) -> None:
    """With a schema the output is the validated JSON; a file without a schema is a usage error."""
    upstream.script(say('{"food":', " true}"))
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"food": {"type": "boolean"}}, "required": ["food"]}')
    code, out, notes = await tidegate(root, "ask", "pizza", "-q", "--schema", str(schema), "--url", service.address)
    assert (code, json.loads(out), notes) == (0, {"food": True}, "")
    schema.write_text("[")
    code, out, notes = await tidegate(root, "ask", "pizza", "--schema", str(schema), "--url", service.address)
    assert (code, out) == (2, "")
    assert "can't be read as JSON" in notes


async def test_a_failure_has_a_remedy(root: Path, upstream: ScriptedUpstream, service: Service) -> None:
    """A failed request prints the reason and the remedy to standard error; the pipe stays empty."""
    upstream.script(Reply(steps=(Say("half"), End(finish_reason="stop"))), Reply(status=401))
    assert (await tidegate(root, "ask", "hi", "--url", service.address))[0] == 0
    code, out, notes = await tidegate(root, "ask", "other", "--url", service.address)
    assert (code, out) == (1, "")
    assert "(provider_credentials)" in notes
    assert "what to do: The operator has to set a valid key" in notes


async def test_ask_shows_pieces_and_resumes(root: Path, upstream: ScriptedUpstream, service: Service) -> None:
    """On a terminal each piece is shown at once; a lost connection is resumed without a gap or a repetition."""
    first, second = asyncio.Event(), asyncio.Event()
    upstream.script(Reply(steps=(Say("one "), Wait(first), Say("two "), Wait(second), Say("three"), End())))
    async with CuttingProxy(service.address) as proxy:
        terminal = await Terminal.run(root, "ask", "count", "--url", proxy.url)
        await terminal.until("one ")
        proxy.cut()
        first.set()
        await terminal.until("two ")
        proxy.cut()
        second.set()
        assert await terminal.end() == 0
        await terminal.until("three") if "three" not in terminal.seen else None
    shown = re.sub(r"\[.*?; trying again\]\n", "", terminal.seen)
    assert re.fullmatch(r"request: req_\w+\none two three\n\[first token after .* out\]\n", shown)
    assert upstream.calls == 1


async def test_leaving_and_coming_back(root: Path, upstream: ScriptedUpstream, service: Service) -> None:
    """With ``--keep`` Ctrl-C leaves the request running, and ``watch`` shows all of it."""
    rest = asyncio.Event()
    upstream.script(Reply(steps=(Say("one "), Wait(rest), Say("two"), End())))
    terminal = await Terminal.run(root, "ask", "count", "--keep", "--url", service.address)
    await terminal.until("one ")
    terminal.process.send_signal(signal.SIGINT)
    assert await terminal.end() == 130
    hint = re.search(r"tidegate watch (req_\w+) --url (\S+)", terminal.seen)
    assert hint is not None, terminal.seen
    rest.set()
    assert await tidegate(root, "watch", hint[1], "--url", hint[2]) == (0, "one two\n", "")
    assert upstream.left == 0


async def test_a_killed_service_has_forgotten(root: Path, upstream: ScriptedUpstream) -> None:
    """After a restart of the service, a follower reports that the request does not exist any more."""
    upstream.script(Reply(steps=(Say("one "), Wait(asyncio.Event()))))
    async with serving(root, upstream) as service:
        terminal = await Terminal.run(root, "ask", "count", "--url", service.address)
        await terminal.until("one ")
        await service.kill()
        await terminal.until("trying again")
        async with serving(root, upstream, port=int(service.address.rpartition(":")[2])):
            assert await terminal.end() == 1
    assert "(request_not_found)" in terminal.seen
    assert "submit it again" in terminal.seen


async def test_a_stranger_is_refused(root: Path, upstream: ScriptedUpstream) -> None:
    """A wrong key prints what to send; the right key from the environment is accepted."""
    async with serving(root, upstream, API_KEYS="the-key-of-the-tests") as service:
        code, out, notes = await tidegate(root, "watch", "req_1", "--url", service.address, "--key", "wrong")
        assert (code, out) == (1, "")
        assert "(unauthenticated)" in notes
        assert "TIDEGATE_API_KEY" in notes
        asked = await tidegate(
            root, "ask", "hi", "-q", TIDEGATE_URL=service.address, TIDEGATE_API_KEY="the-key-of-the-tests"
        )
        assert asked == (0, "Hello world\n", "")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"HOST": "0.0.0.0"}, "Set API_KEYS"),  # noqa: S104 - what must be refused
        ({"LLM_PROVIDER": "nobody"}, "LLM_PROVIDER"),
        ({"LLM_PROVIDER": "openai"}, "OPENAI_API_KEY"),
        ({"PORT": "many"}, "PORT"),
    ],
)
async def test_a_wrong_setting_is_one_sentence(root: Path, settings: dict[str, str], said: str) -> None:
    """A service with an invalid setting names it, without a traceback, and exits with 2."""
    code, _, notes = await tidegate(root, "serve", **settings)
    assert code == 2
    assert notes.startswith("tidegate: ")
    assert said in notes
    assert "Traceback" not in notes
