"""The command in real processes, against a real service with a scripted upstream."""

import asyncio
import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import pytest

from actors.testing import End, Reply, Say, ScriptedUpstream, Wait, say
from tests.cutting_proxy import CuttingProxy

COMMAND: Final = (sys.executable, "-m", "service.cli.main")


@dataclass(frozen=True)
class Service:
    """A service in its own process."""

    process: asyncio.subprocess.Process
    address: str

    async def kill(self) -> None:
        """Kill the process."""
        self.process.kill()
        await self.process.wait()


class Terminal:
    """A command on a terminal: ``seen`` is its output so far, ``until`` waits for a text."""

    def __init__(self) -> None:
        self.seen = ""
        self._near, self._far = pty.openpty()
        self._changed = asyncio.Event()
        self.process: asyncio.subprocess.Process

    @classmethod
    async def run(cls, root: Path, *arguments: str) -> Self:
        """Start a command."""
        terminal = cls()
        terminal.process = await asyncio.create_subprocess_exec(
            *COMMAND,
            *arguments,
            cwd=root,
            stdout=terminal._far,
            stderr=terminal._far,
            env=environment(root),
            preexec_fn=heed_interrupts,
        )
        os.close(terminal._far)
        fcntl.fcntl(terminal._near, fcntl.F_SETFL, os.O_NONBLOCK)
        asyncio.get_running_loop().add_reader(terminal._near, terminal._read)
        return terminal

    async def until(self, text: str) -> None:
        """Wait for ``text``."""
        while text not in self.seen:
            assert self.process.returncode is None, self.seen
            self._changed.clear()
            await self._changed.wait()

    async def end(self) -> int:
        """Wait for the command's end and return its exit code."""
        return await self.process.wait()

    def _read(self) -> None:
        try:
            data = os.read(self._near, 65_536)
        except OSError:
            asyncio.get_running_loop().remove_reader(self._near)
            os.close(self._near)
        else:
            self.seen += data.decode().replace("\r\n", "\n")
        self._changed.set()


def heed_interrupts() -> None:
    """Handle Ctrl-C as at a terminal: a shell's background process would ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def environment(root: Path, **settings: str) -> dict[str, str]:
    """Return the environment of a command, without the developer's settings."""
    return {**os.environ, "PYTHONPATH": str(root), "TERM": "dumb", "COLUMNS": "200", **settings}


async def tidegate(root: Path, *arguments: str, stdin: str = "", **settings: str) -> tuple[int, str, str]:
    """Run a command to its end: exit code, output, notes."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *arguments,
        cwd=root,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(root, **settings),
    )
    out, notes = await process.communicate(stdin.encode())
    return await process.wait(), out.decode(), notes.decode()


@asynccontextmanager
async def serving(root: Path, upstream: ScriptedUpstream, port: int = 0, **settings: str) -> AsyncIterator[Service]:
    """Serve in a process, with ``upstream`` as the provider."""
    process = await asyncio.create_subprocess_exec(
        *(*COMMAND, "serve", "--port", str(port)),
        cwd=root,
        stderr=asyncio.subprocess.PIPE,
        env=environment(
            root,
            OPENAI_API_KEY="made-up",
            OPENAI_BASE_URL=upstream.openai_url,
            LOG_FORMAT="json",
            SHUTDOWN_GRACE_SECONDS="0",
            **settings,
        ),
    )
    assert process.stderr is not None
    try:
        async for line in process.stderr:
            entry = json.loads(line)
            if entry["event"] == "serving":
                break
        else:
            raise AssertionError("the service did not start")
        draining = asyncio.create_task(process.stderr.read())
        yield Service(process, entry["address"])
        if process.returncode is None:
            process.terminate()
        await draining
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@pytest.fixture
async def service(root: Path, upstream: ScriptedUpstream) -> AsyncIterator[Service]:
    """A service that runs."""
    async with serving(root, upstream) as service:
        yield service


async def test_version_loads_nothing(root: Path) -> None:
    """``tidegate version`` prints a version without importing the service, the client or an SDK."""
    code = (
        "import sys, typer.testing, service.cli.main as cli;"
        "print(typer.testing.CliRunner().invoke(cli.app, ['version']).output.strip());"
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
    assert re.fullmatch(r"\d+\.\d+.*|unknown \(not installed\)", version)
    heavy = {"actors", "aiohttp", "anthropic", "msgspec", "openai", "opentelemetry", "pydantic_settings"}
    assert heavy.isdisjoint(loaded.split())


async def test_ask(root: Path, upstream: ScriptedUpstream, service: Service) -> None:
    """A pipe gets exactly the text and a newline; the prompt may come from standard input."""
    upstream.default = say("Hel", "lo\n", "你好")
    asked = await tidegate(root, "ask", "hi", "--url", service.address)
    assert asked == (0, "Hello\n你好\n", "")
    assert await tidegate(root, "ask", "-", stdin="hi there", TIDEGATE_URL=service.address) == asked
    assert upstream.received[-1].body["messages"] == [{"role": "user", "content": "hi there"}]


async def test_ask_for_json(root: Path, upstream: ScriptedUpstream, service: Service, tmp_path: Path) -> None:
    """With a schema the output is the validated JSON; a file without a schema is a usage error."""
    upstream.script(say('{"food":', " true}"))
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"food": {"type": "boolean"}}, "required": ["food"]}')
    code, out, notes = await tidegate(root, "ask", "pizza", "--schema", str(schema), "--url", service.address)
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
    assert shown == "one two three\n"
    assert upstream.calls == 1


async def test_leaving_and_coming_back(root: Path, upstream: ScriptedUpstream, service: Service) -> None:
    """Ctrl-C leaves the request running, and ``watch`` shows all of it."""
    rest = asyncio.Event()
    upstream.script(Reply(steps=(Say("one "), Wait(rest), Say("two"), End())))
    terminal = await Terminal.run(root, "ask", "count", "--url", service.address)
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
        asked = await tidegate(root, "ask", "hi", TIDEGATE_URL=service.address, TIDEGATE_API_KEY="the-key-of-the-tests")
        assert asked == (0, "Hello world\n", "")


async def test_a_key_is_made_once(root: Path, tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """The key is printed to the terminal and its table to the file, which then protects every route."""
    made = await tidegate(root, "key", "create", "web", "--tenant", "acme", "--model", "gpt-*", "--model", "fast")
    code, table, notes = made
    key = re.findall(r"tg_[\w-]{43}", notes)[0]
    assert (code, key in table) == (0, False)
    lines = table.splitlines()
    assert (lines[0], lines[2:]) == ("[keys.web]", ['tenant = "acme"', 'models = ["gpt-*", "fast"]'])
    file = tmp_path / "tidegate.toml"
    await asyncio.to_thread(file.write_text, table, encoding="utf-8")
    async with serving(root, upstream, ROUTES_FILE=str(file), HOST="0.0.0.0") as service:  # noqa: S104 - it is guarded
        for sent, code in (("wrong", 1), (key, 0)):
            said = await tidegate(
                root, "ask", "hi", "--model", "gpt-5", "--url", service.address, TIDEGATE_API_KEY=sent
            )
            assert said[0] == code


async def test_a_key_needs_a_plain_name(root: Path) -> None:
    """An invalid table is not printed."""
    for arguments, said in (("we b",), "a name is"), (("web", "--tenant", "~x"), "keys.web.tenant"):
        code, out, notes = await tidegate(root, "key", "create", *arguments)
        assert (code, out) == (2, "")
        assert said in notes


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


async def test_a_wrong_address_is_one_sentence(root: Path) -> None:
    """An invalid URL is reported at once."""
    code, _, notes = await tidegate(root, "watch", "req_1", "--url", "localhost:3000")
    assert code == 1
    assert "begins with http://" in notes
