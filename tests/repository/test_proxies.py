"""The configurations of ``docs/proxies.md``, run before a real service where nginx and Caddy are installed."""

import asyncio
import io
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from actors.testing import Reply, Say, ScriptedUpstream, Stall
from service.config.settings import load_settings
from service.container import open_container
from service.server.server import listening

KEY = "a-key-that-is-long-enough"
HOST = "tidegate.example.com"
READY = 10.0  # seconds
LISTENING = (b"getrlimit(", b"serving initial configuration")  # what nginx and Caddy say once they listen

Write = Callable[[str, Path, int, int], list[str]]


def block(page: str, language: str) -> str:
    """Return the page's only block of a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return str(found)


def nginx(page: str, folder: Path, port: int, service: int) -> list[str]:
    """Write nginx's configuration, without TLS and for other ports; return the command."""
    text = block(page, "nginx")
    text = re.sub(r"^ *ssl_certificate.*\n", "", text, flags=re.MULTILINE)
    text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};").replace(
        "127.0.0.1:3000", f"127.0.0.1:{service}"
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "\n".join(f"{kind}_temp_path {folder / kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; error_log stderr notice; pid {folder / 'pid'};\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{paths}\n{text}\n}}\n",
        encoding="utf-8",
    )
    return ["nginx", "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]


def caddy(page: str, folder: Path, port: int, service: int) -> list[str]:
    """Write Caddy's configuration, without TLS and for other ports; return the command."""
    text = block(page, "caddy").replace(f"{HOST} {{", f"http://{HOST}:{port} {{")
    text = text.replace("127.0.0.1:3000", f"127.0.0.1:{service}")
    (folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + text, encoding="utf-8")
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


PROXIES = [
    pytest.param(
        write, id=name, marks=pytest.mark.skipif(shutil.which(name) is None, reason=f"{name} is not installed")
    )
    for name, write in (("nginx", nginx), ("caddy", caddy))
]


def free_port() -> int:
    """Return a port that nobody has now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@asynccontextmanager
async def proxied(root: Path, folder: Path, write: Write) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve behind a proxy, in production; yields a client of the proxy."""
    page = (root / "docs" / "proxies.md").read_text(encoding="utf-8")
    upstream = ScriptedUpstream(Reply(steps=(Say("one "), Stall())), Reply(steps=(Say("one "), Stall())))
    async with upstream:
        settings = load_settings(
            None,
            port=0,
            environment="production",
            api_keys=KEY,
            openai_api_key="made-up",
            openai_base_url=upstream.openai_url,
            shutdown_grace_seconds=0,
        )
        async with open_container(settings) as container, listening(container) as (_, address):
            container.lifecycle.serve()
            port = free_port()
            command = write(page, folder, port, int(address.rpartition(":")[2]))
            variables = {**os.environ, "HOME": str(folder)}
            process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, env=variables)
            try:
                await _until_it_listens(process)
                base = f"http://127.0.0.1:{port}"
                headers = {"Host": HOST, "Authorization": f"Bearer {KEY}"}
                async with aiohttp.ClientSession(base, headers=headers) as client:
                    yield client
            finally:
                process.terminate()
                await process.wait()


async def _until_it_listens(process: asyncio.subprocess.Process) -> None:
    assert process.stderr is not None
    said = b""
    async with asyncio.timeout(READY):
        while not any(line in said for line in LISTENING):
            line = await process.stderr.readline()
            assert line, said.decode()
            said += line


@pytest.mark.parametrize("write", PROXIES)
async def test_a_stream_passes_piece_by_piece(root: Path, tmp_path: Path, write: Write) -> None:
    """The first piece of an answer that never ends arrives; so nothing waits for the end."""
    body = {"model": "default", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    async with (
        proxied(root, tmp_path, write) as client,
        asyncio.timeout(READY),
        client.post("/v1/chat/completions", json=body) as response,
    ):
        assert response.status == 200
        text = b""
        while b"one " not in text:
            text += await response.content.readany()


@pytest.mark.parametrize("write", PROXIES)
async def test_a_socket_passes_with_its_origin(root: Path, tmp_path: Path, write: Write) -> None:
    """A page of the proxy's own host opens a socket and follows an answer in pieces; another page does not."""
    submit = {"type": "submit", "id": 1, "messages": [{"role": "user", "content": "hi"}]}
    async with proxied(root, tmp_path, write) as client, asyncio.timeout(READY):
        async with client.ws_connect("/ws", headers={"Origin": f"http://{HOST}"}) as ws:
            await ws.send_json(submit)
            while "one " not in await ws.receive_str():
                pass
        del client.headers["Authorization"]  # as in a browser, which sends none
        async with client.ws_connect("/ws", headers={"Origin": f"http://{HOST}"}):
            pass
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.ws_connect("/ws", headers={"Origin": "http://elsewhere.example.com"})
        assert refused.value.status == 403


@pytest.mark.parametrize("write", PROXIES[:1])
async def test_a_body_that_is_too_large_is_refused(root: Path, tmp_path: Path, write: Write) -> None:
    """By nginx already, where it is above the service's own limit."""
    async with (
        proxied(root, tmp_path, write) as client,
        asyncio.timeout(READY),
        client.post(
            "/api/requests", data=io.BytesIO(b" " * 34_000_000), headers={"Content-Type": "application/json"}
        ) as response,
    ):
        assert response.status == 413
