"""The server as a process: it binds, logs, and stops in order."""

import asyncio
import os
import signal
import socket
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from actors.testing import End, Reply, Say, ScriptedUpstream, Stall, Wait, say
from protocol.errors import ConfigurationError
from service.config.settings import Settings
from service.container import open_container
from service.context import ACCEPTED, CALL
from service.server.server import exit_after, listening

BODY = {"model": "default", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
SOON = 40.0  # seconds, the bound of a wait for an event


class Served:
    """A server process, and its log."""

    def __init__(self, process: Process, address: str) -> None:
        self.process = process
        self.address = address

    async def logged(self, event: str) -> dict[str, Any]:
        """Wait for a line."""
        return await _logged(self.process, event)

    def stop(self) -> None:
        """Send it a signal."""
        self.process.send_signal(signal.SIGTERM)


async def _logged(process: Process, event: str) -> dict[str, Any]:
    assert process.stderr is not None
    async with asyncio.timeout(SOON):
        while text := await process.stderr.readline():
            line: dict[str, Any] = orjson.loads(text)
            if line["event"] == event:
                return line
    raise AssertionError(f"the log ended without {event}")


async def _run(root: Path, **env: str) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "service.cli.main",
        "serve",
        "--port",
        "0",
        stderr=PIPE,
        cwd=root,
        env={"PATH": os.environ["PATH"], "LOG_FORMAT": "json", "PYTHONPATH": str(root), **env},
    )


@asynccontextmanager
async def _serve(root: Path, upstream: ScriptedUpstream, **env: str) -> AsyncIterator[Served]:
    process = await _run(root, OPENAI_API_KEY="key", OPENAI_BASE_URL=upstream.openai_url, **env)
    try:
        yield Served(process, (await _logged(process, "serving"))["address"])
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_a_running_stream_is_finished_before_the_end(root: Path, upstream: ScriptedUpstream) -> None:
    """After SIGTERM new work is refused, the running response is completed, and the process exits with 0."""
    rest = asyncio.Event()
    upstream.script(Reply(steps=(Say("Hel"), Wait(rest), Say("lo"), End())))
    async with _serve(root, upstream) as served, aiohttp.ClientSession(served.address) as client:
        async with client.post("/v1/chat/completions", json=BODY) as response:
            await response.content.readuntil(b"Hel")
            served.stop()
            assert (await served.logged("stopping"))["running"] == 1
            rest.set()
            text = await response.text()
        assert '"lo"' in text
        assert text.endswith("data: [DONE]\n\n")
        assert (await served.logged("stopped"))["whole"] is True
        assert await served.process.wait() == 0


async def test_a_second_signal_ends_it_at_once(root: Path, upstream: ScriptedUpstream) -> None:
    """A second signal does not wait for a stalled model; the exit code is 1."""
    upstream.script(Reply(steps=(Say("Hel"), Stall())))
    async with (
        _serve(root, upstream, SHUTDOWN_GRACE_SECONDS="3600") as served,
        aiohttp.ClientSession(served.address) as client,
        client.post("/v1/chat/completions", json=BODY) as response,
    ):
        await response.content.readuntil(b"Hel")
        served.stop()
        await served.logged("stopping")
        served.stop()
        assert (await served.logged("stopped"))["whole"] is False
        assert await served.process.wait() == 1


async def test_sockets_are_told_that_the_server_goes(root: Path, upstream: ScriptedUpstream) -> None:
    """A socket gets its reconnect delay before it is closed, and does not block the shutdown."""
    async with (
        _serve(root, upstream, SHUTDOWN_GRACE_SECONDS="3600") as served,
        aiohttp.ClientSession(served.address) as client,
        client.ws_connect("/ws") as ws,
    ):
        await ws.send_json({"type": "ping"})
        assert (await ws.receive_json())["type"] == "pong"
        served.stop()
        disconnect = await ws.receive_json()
        assert disconnect["type"] == "disconnect"
        assert disconnect["data"]["reconnect"] is True
        assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
        assert (await served.logged("stopped"))["whole"] is True
        assert await served.process.wait() == 0


async def test_a_collector_that_never_answers_does_not_hold_up_the_exit(root: Path, upstream: ScriptedUpstream) -> None:
    """Spans that can't be exported are dropped."""
    upstream.script(say("Hello"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with _serve(root, upstream, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as served:
            async with aiohttp.ClientSession(served.address) as client:
                response = await client.post("/v1/chat/completions", json=BODY)
                assert (await response.text()).endswith("data: [DONE]\n\n")
            served.stop()
            await served.logged("stopped")
            assert await served.process.wait() == 0


async def test_a_local_model_that_can_not_be_loaded_is_a_warning(root: Path, tmp_path: Path) -> None:
    """The log has the reason and the remedy, no line says that the model was loaded, and no request is retried."""
    engine = tmp_path / "xllamacpp" / "__init__.py"
    await asyncio.to_thread(engine.parent.mkdir)
    await asyncio.to_thread(engine.write_text, "raise ImportError('libgomp.so.1: cannot open shared object file')")
    model = str(tmp_path / "any.gguf")
    process = await _run(root, LOCAL_MODEL_PATH=model, PYTHONPATH=os.pathsep.join((str(tmp_path), str(root))))
    lines: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(SOON):
            assert process.stderr is not None
            while {"serving", "model_failed"} - {line["event"] for line in lines}:
                lines.append(orjson.loads(await process.stderr.readline()))
            address = next(line["address"] for line in lines if line["event"] == "serving")
            async with aiohttp.ClientSession(address) as client:
                async with client.post("/v1/chat/completions", json={**BODY, "stream": False}) as response:
                    error = (await response.json())["error"]
                    assert (response.status, response.headers["x-should-retry"]) == (502, "false")
                async with client.get("/api/health") as response:
                    health = await response.json()
            process.terminate()
            lines += [orjson.loads(line) async for line in process.stderr]
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    failed = next(line for line in lines if line["event"] == "model_failed")
    assert failed["level"] == "warning"
    assert "libgomp.so.1: cannot open" in failed["reason"]
    assert error["code"] == "local_model_failed"
    for text in (failed["remedy"], error["message"], health["checks"]["provider"]["detail"]):
        assert "apt-get install libgomp1" in text
        assert "pip install 'tidegate[local]'" in text
    assert "model_loaded" not in {line["event"] for line in lines}


async def test_an_open_address_without_keys_is_refused(root: Path) -> None:
    """The process exits with one message that names the setting."""
    process = await _run(root, HOST="0.0.0.0")  # noqa: S104 - refused
    _, text = await process.communicate()
    assert process.returncode == 2
    assert text.startswith(b"tidegate: HOST=0.0.0.0 ")
    assert b"API_KEYS" in text
    assert text.count(b"\n") == 1


async def test_an_address_that_is_taken_is_a_setting_to_change(settings: Settings) -> None:
    """The message names the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with open_container(settings.model_copy(update={"port": port})) as container:
            with pytest.raises(ConfigurationError, match=f"PORT={port} can't be bound"):
                async with listening(container):
                    pytest.fail("it must not listen")


async def test_arrival_is_noted_before_the_handler_runs(settings: Settings) -> None:
    """Each request has the time when its headers had been read, so that waiting for the loop is counted."""
    async with open_container(settings) as container, listening(container) as (runner, address):
        assert runner.server is not None
        make, made = runner.server.request_factory, []

        def kept(*args: Any) -> web.BaseRequest:  # noqa: ANN401 - handed on as they come
            made.append(make(*args))
            return made[-1]

        runner.server.request_factory = kept
        async with aiohttp.ClientSession(address) as client:
            await client.get("/v1/models")
        assert made[0][CALL].accepted == made[0][ACCEPTED]


def test_a_thread_that_hangs_can_not_keep_the_process() -> None:
    """After the grace period a thread ends the process."""
    left = threading.Event()
    exit_after(0.0, lambda _code: left.set())
    assert left.wait(SOON)
