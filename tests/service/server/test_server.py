"""The server as a process: it binds, logs and exits."""

import asyncio
import os
import socket
import threading
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from actors.testing import ScriptedUpstream, say
from protocol.errors import ConfigurationError
from service.config.settings import Settings
from service.container import open_container
from service.context import ACCEPTED, CALL
from service.server.server import exit_after, listening
from tests.service.server.process import SOON, run_server, serve

BODY = {"model": "default", "stream": True, "messages": [{"role": "user", "content": "hi"}]}


async def test_a_collector_that_never_answers_does_not_hold_up_the_exit(root: Path, upstream: ScriptedUpstream) -> None:
    """Spans that can't be exported are dropped."""
    upstream.script(say("Hello"))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with serve(root, upstream, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as served:
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
    process = await run_server(root, LOCAL_MODEL_PATH=model, PYTHONPATH=os.pathsep.join((str(tmp_path), str(root))))
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
    process = await run_server(root, HOST="0.0.0.0")  # noqa: S104 - refused
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
