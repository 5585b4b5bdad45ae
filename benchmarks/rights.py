"""How long what is open by a key lives on after the key is revoked in the file: each kind, in seconds, as JSON.

    python benchmarks/rights.py [--seconds 8]

A kind that lives on for all of ``--seconds`` is null. The service and its model are in this process, on loopback.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import aiohttp

from actors.testing import Reply, Say, ScriptedUpstream, Wait
from service.auth.keys import digest_of
from service.config.settings import load_settings
from service.container import open_container
from service.server.server import listening

KEY = f'[keys.web]\nhash = "{digest_of("web").hex()}"\ntenant = "acme"\n'
OTHER = f'[keys.other]\nhash = "{digest_of("other").hex()}"\ntenant = "acme"\n'
HEADERS = {"Authorization": "Bearer web"}
CHAT: dict[str, Any] = {"model": "openai/m", "messages": [{"role": "user", "content": "hi"}]}


async def drained(response: aiohttp.ClientResponse) -> None:
    """Read a response to its end."""
    await response.read()


async def closed(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Read a socket to its end."""
    async for _ in socket:
        pass


async def measure(seconds: float) -> dict[str, float | None]:
    """Open one of each kind, revoke the key, and return how long each lives on."""
    gate = asyncio.Event()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "tidegate.toml"
        file.write_text(KEY + OTHER, encoding="utf-8")
        async with ScriptedUpstream() as upstream:
            upstream.script(*(Reply(steps=(Say("early"), Wait(gate))) for _ in range(6)))
            settings = load_settings(
                None, port=0, routes_file=file, openai_api_key="k", openai_base_url=upstream.openai_url
            )
            async with (
                open_container(settings) as container,
                listening(container) as (_, address),
                aiohttp.ClientSession(address, headers=HEADERS) as client,
            ):
                container.lifecycle.serve()
                kinds = await _opened(client)
                began = time.perf_counter()
                file.write_text(OTHER, encoding="utf-8")
                found = await asyncio.gather(*(_until(wait, began, seconds) for wait in kinds.values()))
                gate.set()
    return dict(zip(kinds, found, strict=True))


async def _opened(client: aiohttp.ClientSession) -> dict[str, Awaitable[object]]:
    native = {"messages": CHAT["messages"], "model": "openai/m", "options": {"dedupe": False}}
    accepted = await (await client.post("/api/requests", json=native)).json()
    socket = await client.ws_connect("/ws")
    await socket.send_json({"type": "subscribe", "id": 1, "requestId": accepted["requestId"]})
    await socket.receive()
    streams = {
        "events": await client.get(f"/api/requests/{accepted['requestId']}/events"),
        "chat": await client.post("/v1/chat/completions", json=CHAT | {"stream": True}),
        "messages": await client.post("/v1/messages", json=CHAT | {"stream": True, "max_tokens": 9}),
        "responses": await client.post("/v1/responses", json={"model": "openai/m", "input": "hi", "stream": True}),
    }
    poll = client.get(
        f"/api/requests/{accepted['requestId']}/events?wait=50&mode=live", headers={"Accept": "application/json"}
    )
    whole = client.post("/v1/chat/completions", json=CHAT)
    waiting = {"long poll": poll, "whole answer": whole}
    tasks = {name: asyncio.ensure_future(_answered(call)) for name, call in waiting.items()}
    await asyncio.sleep(0.5)
    return {"socket": closed(socket), **{name: drained(one) for name, one in streams.items()}, **tasks}


async def _answered(call: Any) -> None:  # noqa: ANN401 - aiohttp's context manager
    async with call as response:
        await response.read()


async def _until(wait: Awaitable[object], began: float, seconds: float) -> float | None:
    try:
        async with asyncio.timeout(seconds):
            await wait
    except TimeoutError:
        return None
    return round(time.perf_counter() - began, 2)


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    print(json.dumps(asyncio.run(measure(parser.parse_args().seconds))))


if __name__ == "__main__":
    main()
