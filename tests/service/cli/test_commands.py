"""The commands beside ``serve`` and ``key``, in real processes: input, output, messages and exit codes."""

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from actors.testing import Cut, Reply, Say, ScriptedUpstream, Wait
from service.cli.main import app
from tests.service.cli.command import COMMAND, Service, Terminal, environment, serving, tidegate

ESCAPE = "\x1b["


@pytest.fixture
async def service(root: Path, upstream: ScriptedUpstream) -> AsyncIterator[Service]:
    """A service that runs."""
    async with serving(root, upstream) as service:
        yield service


class Silent:
    """A service that accepts connections and answers nothing; ``asked`` is set with the first request."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.address = ""
        self._ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read a request, and keep its caller waiting."""
        await reader.read(1)
        self.asked.set()
        await self._ended.wait()
        writer.close()

    def end(self) -> None:
        """Close every connection."""
        self._ended.set()


@asynccontextmanager
async def open_silent() -> AsyncIterator[Silent]:
    """Listen on a free port."""
    silent = Silent()
    server = await asyncio.start_server(silent.serve, "127.0.0.1", 0)
    silent.address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield silent
    finally:
        silent.end()
        server.close()


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401 - typer's own
    """Yield each command with its words."""
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


# ----------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize(("path", "command"), list(commands(typer.main.get_command(app))))
def test_each_command_has_examples_that_parse(path: tuple[str, ...], command: Any, tmp_path: Path) -> None:  # noqa: ANN401
    """Each line of the examples is a command line of ``tidegate`` whose options exist."""
    lines = [line for line in (command.epilog or "").splitlines() if "tidegate" in line]
    assert lines, path
    root = typer.main.get_command(app)
    for line in lines:
        code = line.partition("#")[0]
        words = shlex.split(re.split(r"[|>]", code[code.index("tidegate") :].replace(')"', ""))[0])
        found: Any = root
        rest = words[1:]
        while hasattr(found, "commands") and rest and not rest[0].startswith("-"):
            found = found.commands[rest.pop(0)]
        options = {name for parameter in found.params for name in parameter.opts}
        assert {word for word in rest if word.startswith("-") and word != "-"} <= options, line


async def test_version_is_an_option(root: Path) -> None:
    """``--version`` names the program and its version."""
    code, out, notes = await tidegate(root, "--version")
    assert (code, notes) == (0, "")
    assert out.startswith("tidegate ")


@pytest.mark.parametrize(
    ("shell", "variables", "said"),
    [
        ("bash", {"COMP_WORDS": "tidegate key re", "COMP_CWORD": "2"}, "revoke"),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "tidegate ask --ma"}, "--max-tokens"),
        ("fish", {"_TYPER_COMPLETE_ARGS": "tidegate st", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}, "status"),
    ],
)
async def test_completion(root: Path, tmp_path: Path, shell: str, variables: dict[str, str], said: str) -> None:
    """A script is printed, what it calls answers, and no file of the user is touched."""
    code, script, notes = await tidegate(root, "completion", shell, HOME=str(tmp_path))
    assert (code, notes) == (0, "")
    assert f"_TIDEGATE_COMPLETE=complete_{shell}" in script
    variables = {"_TIDEGATE_COMPLETE": f"complete_{shell}", "HOME": str(tmp_path), **variables}
    _, out, _ = await tidegate(root, **variables)
    assert said in out
    assert await asyncio.to_thread(os.listdir, tmp_path) == []


# ------------------------------------------------------------------------------------------------------------------ ask


async def test_the_request_is_named_and_timed(root: Path, upstream: ScriptedUpstream, service: Service) -> None:
    """Standard error has the id, which ``watch`` takes, and the times; neither has the start of the command in it."""
    code, out, notes = await tidegate(root, "ask", "hi", "--url", service.address)
    assert (code, out) == (0, "Hello world\n")
    found = re.fullmatch(
        r"request: (req_\w+)\n\[first token after ([\d.]+) s, end after ([\d.]+) s; \d+ tokens in, \d+ out\]\n", notes
    )
    assert found is not None, notes
    assert 0 <= float(found[2]) <= float(found[3])
    assert ESCAPE not in notes
    assert (await tidegate(root, "watch", found[1], "-q", "--url", service.address))[:2] == (0, out)


async def test_times_begin_with_the_request(root: Path, upstream: ScriptedUpstream, service: Service) -> None:
    """The time of the whole answer is that of the request, not that of the command."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    _, out, _ = await tidegate(root, "ask", "hi", "--json", "--url", service.address)
    whole = (loop.time() - started) * 1000
    state = json.loads(out)
    assert 0 < state["times"]["firstTokenMs"] <= state["times"]["totalMs"] < whole / 2


async def test_ask_as_json(root: Path, upstream: ScriptedUpstream, service: Service) -> None:
    """``--json`` prints the request's state, or the error, as one object on one line."""
    code, out, _ = await tidegate(root, "ask", "hi", "--json", "--url", service.address)
    state = json.loads(out)
    assert (code, out.count("\n")) == (0, 1)
    assert state["coreResult"]["text"] == "Hello world"
    assert (state["assistantStatus"], state["source"], state["finishReason"]) == ("completed", "upstream", "stop")
    upstream.script(Reply(status=401))
    code, out, notes = await tidegate(root, "ask", "other", "--json", "--url", service.address)
    failed = json.loads(out)
    assert (code, failed["error"]["code"]) == (1, "provider_credentials")
    assert failed["requestId"] in notes


async def test_options_reach_the_model(
    root: Path, upstream: ScriptedUpstream, service: Service, tmp_path: Path
) -> None:
    """Instructions, the bound of tokens, and files after the prompt."""
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"file {name}\n", encoding="utf-8")
    words = ["ask", "Summarize:", "-f", str(tmp_path / "a"), "--file", str(tmp_path / "b")]
    words += ["--system", "Be brief.", "--max-tokens", "7", "--model", "gpt-5-nano"]
    code, _, notes = await tidegate(root, *words, "--url", service.address)
    assert code == 0, notes
    body = upstream.received[-1].body
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Summarize:\n\nfile a\n\n\nfile b\n"},
    ]
    assert 7 in (body.get("max_tokens"), body.get("max_completion_tokens"))


@pytest.mark.parametrize("words", [[""], [" \n"], [], ["-"], ["-f", "FILE"]])
async def test_an_empty_prompt_is_refused(root: Path, tmp_path: Path, words: list[str]) -> None:
    """Nothing is sent, and no service is needed to say so."""
    file = tmp_path / "empty"
    file.touch()
    words = [str(file) if word == "FILE" else word for word in words]
    code, out, notes = await tidegate(root, "ask", *words, stdin=" \n", TIDEGATE_URL="http://127.0.0.1:1")
    assert (code, out) == (2, "")
    assert "the prompt: it is empty" in notes


async def test_no_prompt_at_a_terminal_is_refused(root: Path) -> None:
    """The command does not wait for input that nobody was asked for."""
    terminal = await Terminal.run(root, "ask", at_terminal=True)
    assert await terminal.end() == 2
    assert "pipe one in" in terminal.seen


async def test_what_is_no_text_is_refused(root: Path, tmp_path: Path) -> None:
    """A file that is not UTF-8 is named."""
    file = tmp_path / "picture"
    file.write_bytes(b"\xff\xd8")
    code, _, notes = await tidegate(root, "ask", "-f", str(file))
    assert code == 2
    assert f"{file} is not UTF-8 text: byte 0" in notes


# --------------------------------------------------------------------------------------------------------------- Ctrl-C


async def test_an_interrupt_cancels(root: Path, upstream: ScriptedUpstream, service: Service) -> None:
    """Ctrl-C at ``ask`` cancels the request."""
    upstream.script(Reply(steps=(Say("one "), Wait(asyncio.Event()))))
    terminal = await Terminal.run(root, "ask", "count", "--url", service.address)
    await terminal.until("one ")
    terminal.process.send_signal(signal.SIGINT)
    assert await terminal.end() == 130
    assert "Traceback" not in terminal.seen
    named = re.search(r"The request is cancelled: (req_\w+)", terminal.seen)
    assert named is not None, terminal.seen
    code, _, notes = await tidegate(root, "watch", named[1], "--url", service.address)
    assert (code, "(cancelled)" in notes) == (1, True)
    code, out, _ = await tidegate(root, "cancel", named[1], "--url", service.address)
    assert (code, out) == (0, f"{named[1]} had ended already: cancelled\n")


async def test_an_interrupt_before_the_answer_is_silent(root: Path) -> None:
    """Where the service does not answer, a second Ctrl-C ends the command, without a traceback."""
    async with open_silent() as silent:
        terminal = await Terminal.run(root, "ask", "count", "--url", silent.address)
        await silent.asked.wait()
        terminal.process.send_signal(signal.SIGINT)
        await terminal.until("cancelling")
        terminal.process.send_signal(signal.SIGINT)
        assert await terminal.end() == 130
    assert "may have been submitted" in terminal.seen
    assert "Traceback" not in terminal.seen


# --------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:3000", "http://localhost:3000 has it"),
        ("ftp://localhost", "begins with ftp://"),
        ("http://", "is no address"),
        ("http://a b", "is no address"),
        ("http://localhost:port", "is no address"),
        ("http://localhost:99999", "is no address"),
        ("http://[::1", "is no address"),
        ("http://me:secret@localhost", "TIDEGATE_API_KEY"),
        ("http://localhost?key=1", "TIDEGATE_API_KEY"),
        ("http://localhost:3000/v1", "the service's own is http://localhost:3000"),
    ],
)
def test_a_wrong_address_is_one_sentence(url: str, said: str) -> None:
    """A mistake in the address is a usage error of every command, and no service is asked."""
    for words in (["ask", "hi"], ["watch", "req_1"], ["status"], ["cancel", "req_1"]):
        done = CliRunner().invoke(app, [*words, "--url", url], env={"COLUMNS": "500"})
        assert (done.exit_code, done.stdout) == (2, "")
        assert said in done.stderr


async def test_tls_at_a_plain_port(root: Path, service: Service) -> None:
    """The message names the address that works, at once, for calls and for sockets."""
    url = service.address.replace("http://", "https://")
    for words in (("ask", "hi"), ("watch", "req_1"), ("status",), ("models",)):
        code, out, notes = await tidegate(root, *words, "--url", url)
        assert (code, out) == (1, "")
        assert f"{url} does not speak TLS; {service.address} may be its address" in notes
        assert "trying again" not in notes


async def test_nothing_listens(root: Path) -> None:
    """Where nothing listens, the reason and the remedy are named, and the exit code says that it may pass."""
    code, out, notes = await tidegate(root, "status", "--url", "http://127.0.0.1:1")
    assert (code, out) == (75, "")
    assert "http://127.0.0.1:1 does not answer (connection refused)" in notes
    assert "tidegate serve" in notes


async def test_a_timeout(root: Path) -> None:
    """A service that answers nothing ends the command after the time that the user allows."""
    async with open_silent() as silent:
        address = silent.address
        code, out, notes = await tidegate(root, "ask", "hi", "--timeout", "0.5", "--json", "--url", address)
    assert (code, json.loads(out)["error"]["code"]) == (75, "deadline_exceeded")
    assert f"{address} did not end the request within 0.5 s" in notes
    assert "cancelling" not in notes
    assert "--timeout" in notes


async def test_an_interrupted_stream_says_how_to_go_on(root: Path, upstream: ScriptedUpstream) -> None:
    """An upstream that breaks off is one error with a remedy, and what it sent is not on standard output."""
    upstream.script(Reply(steps=(Say("half"), Cut())))
    async with serving(root, upstream) as service:
        code, out, notes = await tidegate(root, "ask", "hi", "--url", service.address)
    assert (code, out) == (75, "")
    assert "(provider_stream_broken)" in notes
    assert "what to do: " in notes


# --------------------------------------------------------------------------------------------------------------- output


@pytest.mark.parametrize("words", [("ask", "hi"), ("ask", "hi", "--json"), ("models",), ("status",), ("usage",)])
async def test_a_reader_that_leaves(root: Path, service: Service, words: tuple[str, ...]) -> None:
    """A closed pipe ends the command silently, as it ends others in a shell."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = await asyncio.to_thread(
            subprocess.run,
            [*COMMAND, *words, "--url", service.address],
            cwd=root,
            stdout=writer,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            env=environment(root),
        )
    finally:
        os.close(writer)
    assert done.returncode == 141
    assert "Error" not in done.stderr
    assert "Traceback" not in done.stderr


async def test_output_that_can_not_be_written(root: Path, service: Service) -> None:
    """A full disk is one sentence; a closed standard output is none."""
    for redirection, code, said in ((">/dev/full", 1, "the output can't be written: No space"), (">&-", 0, "")):
        process = await asyncio.create_subprocess_shell(
            f"{shlex.join(COMMAND)} ask hi -q --url {service.address} {redirection}",
            cwd=root,
            stderr=asyncio.subprocess.PIPE,
            env=environment(root),
        )
        _, notes = await process.communicate()
        assert process.returncode == code, notes
        assert notes.decode().startswith(f"tidegate: {said}" if said else "")
        assert notes.count(b"\n") == bool(said), notes


async def test_colours_only_on_a_terminal(root: Path, service: Service) -> None:
    """A terminal gets colours, unless NO_COLOR is set; a pipe gets none."""
    for switch, coloured in (("", True), ("1", False)):
        terminal = await Terminal.run(root, "ask", "hi", "--url", service.address, TERM="xterm", NO_COLOR=switch)
        await terminal.until("world")
        await terminal.end()
        assert (ESCAPE in terminal.seen) is coloured
    code, _, notes = await tidegate(root, "watch", "req_1", "--url", service.address, TERM="xterm")
    assert (code, ESCAPE in notes) == (1, False)
