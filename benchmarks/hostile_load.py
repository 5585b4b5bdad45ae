"""Mixed hostile load beside a well-behaved tenant: ``python -m benchmarks.hostile_load --minutes 30 --json FILE``.

The service runs in a process of its own, with its defaults, keys and a routes' file. Strangers send garbage, slow
headers and idle connections, and open sockets; a tenant with a key sends identical slow requests, costly schemas, large
bodies, bombs and replays, takes tickets and subscriptions and reads nothing; an upstream sends what
``hostile_upstream`` has; keys come and go in the file, and stand in odd places. Meanwhile another tenant does what
clients do.

Reported: its calls and failures, its latencies, the longest wait for ``/api/health/live``, the service's memory each
minute, and whether the log has a traceback or a key. Everything is on loopback, seeded, and ends by itself.
"""

import argparse
import asyncio
import gzip
import json
import random
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from benchmarks.hostile_upstreams import TOP, Looks, resident, started
from service.auth.keys import digest_of

GOOD: Final = "tg_" + "g" * 40
BAD: Final = "tg_" + "b" * 40
GONE: Final = "tg_" + "n" * 40
SECRETS: Final = (GOOD, BAD, GONE, "sk-the-upstream-key")
BOMB: Final = gzip.compress(b" " * (200 * 1024 * 1024))
LARGE: Final = "x" * 3_000_000
SCHEMAS: Final[tuple[dict[str, Any], ...]] = (
    {"properties": {f"p{n}": {"pattern": r"(?i)[\p{L}\p{N}0]{100}"} for n in range(300)}},
    {"pattern": r"^(?=.*\d)(?=.*[a-z]).{8,64}$"},
    {"enum": [f"v{n}" for n in range(20_000)]},
    {
        "$defs": {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(17)} | {"a17": {}},
        "$ref": "#/$defs/a0",
    },
)  # fmt: skip
HEAD: Final = (
    f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nx-api-key: {GOOD}\r\nContent-Length: 5\r\n\r\nhello".encode()
)
LONG: Final = 400  # chunks of a long answer
TIMEOUT: Final = aiohttp.ClientTimeout(total=40)

Act = Callable[[], Awaitable[None]]


def routes(port: int, evil: int, *, gone: bool, keys: bool = True) -> str:
    """Return the routes' file; ``gone`` says whether the key that comes and goes is there."""
    held = ({"good": GOOD, "bad": BAD} if keys else {}) | ({"gone": GONE} if gone else {})
    tables = [f'[keys.{name}]\nhash = "{digest_of(key).hex()}"\ntenant = "{name}"\n' for name, key in held.items()]
    for name, at in (("fine", port), ("evil", evil)):
        tables.append(f'[providers.{name}]\nkind = "openai"\nbase_url = "http://127.0.0.1:{at}/v1"\n')
    return "\n".join(tables)


async def answer(request: web.Request) -> web.StreamResponse:
    """Answer as a provider does: long, slow, as JSON, or at once, as the prompt says."""
    body = await request.json()
    said = body["messages"][-1]["content"]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    pieces = (
        ["word " * 200] * LONG
        if said.startswith("long")
        else ['{"a":', "1}"]
        if said.startswith("json")
        else ["Hello", " you"]
    )
    if said.startswith("slow"):
        await asyncio.sleep(8)
    for piece in pieces:
        chunk = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": piece}}]}
        await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
    end = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    await response.write(b"data: " + json.dumps(end).encode() + b"\n\ndata: [DONE]\n\n")
    return response


class Tenant:
    """A client with a key; its calls are counted by kind."""

    def __init__(self, base: str, key: str, dice: random.Random) -> None:
        self.base = base
        self.dice = dice
        self.client = aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT)
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.seconds: list[float] = []
        self.number = 0

    def chat(self, said: str, **more: object) -> dict[str, Any]:
        """Return the body of a chat call."""
        self.number += 1
        return {"model": "fine/m", "messages": [{"role": "user", "content": f"{said} {self.number}"}], **more}

    async def run(self, acts: dict[str, Act], until: float, pause: float) -> None:
        """Do these one after the other until the time is over."""
        while time.monotonic() < until:
            for name, act in acts.items():
                began = time.perf_counter()
                try:
                    await act()
                except (AssertionError, aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                    self.failed[f"{name}: {type(error).__name__}: {str(error)[:120]}"] += 1
                self.done[name] += 1
                self.seconds.append(time.perf_counter() - began)
                await asyncio.sleep(pause * self.dice.random())


class WellBehaved(Tenant):
    """Does what clients do; each act checks its answer."""

    def acts(self) -> dict[str, Act]:
        """Return the acts by name."""
        return {
            "whole": self.whole,
            "stream": self.stream,
            "structured": self.structured,
            "resume": self.resume,
            "socket": self.socket,
            "channel": self.channel,
        }

    async def whole(self) -> None:
        """One answer as JSON."""
        async with self.client.post(f"{self.base}/v1/chat/completions", json=self.chat("hi")) as response:
            body = await response.json()
            assert response.status == 200, body
            assert body["choices"][0]["message"]["content"] == "Hello you"

    async def stream(self) -> None:
        """One answer as a stream."""
        async with self.client.post(f"{self.base}/v1/chat/completions", json=self.chat("hi", stream=True)) as response:
            assert (await response.text()).endswith("data: [DONE]\n\n")

    async def structured(self) -> None:
        """One answer with a schema."""
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
        form = {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}
        body = self.chat("json", response_format=form)
        async with self.client.post(f"{self.base}/v1/chat/completions", json=body) as response:
            assert response.status == 200, await response.text()

    async def resume(self) -> None:
        """A native request, whose events are read in two parts."""
        body = self.chat("hi")
        async with self.client.post(f"{self.base}/api/requests", json=body) as response:
            assert response.status == 202, await response.text()
            path = response.headers["Location"]
        async with self.client.get(f"{self.base}{path}/events") as response:
            line = await response.content.readline()
            position = line.decode().removeprefix("id: ").strip()
        async with self.client.get(f"{self.base}{path}/events", params={"after": position}) as response:
            assert "event: complete" in await response.text()

    async def socket(self) -> None:
        """A request over a socket."""
        body = {"type": "submit", "id": 1, **self.chat("hi")}
        async with self.client.ws_connect(f"{self.base}/ws") as socket:
            await socket.send_json(body)
            while True:
                frame = await socket.receive_json(timeout=30)
                assert frame["type"] != "error", frame
                if frame["type"] == "complete":
                    return

    async def channel(self) -> None:
        """A publication that is received."""
        name = f"room:{self.number}"
        async with self.client.ws_connect(f"{self.base}/ws") as socket:
            await socket.send_json({"type": "subscribe", "id": 1, "channel": name})
            assert (await socket.receive_json(timeout=30))["type"] == "ack"
            publish = f"{self.base}/api/channels/{name}/publish"
            async with self.client.post(publish, json={"event": "e", "data": {}}) as response:
                assert response.status in {200, 202}, await response.text()
            assert (await socket.receive_json(timeout=30))["type"] == "update"


class Hostile(Tenant):
    """A tenant with a key at its worst. Its refusals are no failures."""

    modes: Sequence[str] = ()

    def acts(self) -> dict[str, Act]:
        """Return the acts by name."""
        return {
            "identical": self.identical,
            "schemas": self.schemas,
            "replays": self.replays,
            "tickets": self.tickets,
            "subscriptions": self.subscriptions,
            "large": self.large,
            "deaf": self.deaf,
            "evil": self.evil,
            "bomb": self.bomb,
            "keys": self.keys,
        }

    async def _post(self, path: str, body: object, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        async with self.client.post(self.base + path, json=body, **options) as response:
            await response.read()

    async def identical(self) -> None:
        """One slow request, many times at once."""
        body = {"model": "fine/m", "messages": [{"role": "user", "content": f"slow {self.number // 50}"}]}
        await asyncio.gather(*[self._post("/api/requests", body) for _ in range(100)])

    async def schemas(self) -> None:
        """A schema that is made to cost."""
        form = {"type": "json_schema", "json_schema": {"name": "s", "schema": self.dice.choice(SCHEMAS)}}
        await self._post("/v1/chat/completions", self.chat("json", response_format=form))

    async def replays(self) -> None:
        """One cached answer, many times."""
        body = {"model": "fine/m", "temperature": 0, "messages": [{"role": "user", "content": "again"}]}
        await asyncio.gather(*[self._post("/v1/chat/completions", body) for _ in range(50)])

    async def tickets(self) -> None:
        """Many tickets."""
        await asyncio.gather(*[self._post("/api/tickets", {}) for _ in range(50)])

    async def subscriptions(self) -> None:
        """Many subscriptions of a socket that then ends without a word."""
        async with self.client.ws_connect(f"{self.base}/ws") as socket:
            for number in range(150):
                await socket.send_json({"type": "subscribe", "id": number, "channel": f"c{self.number}:{number}"})
            await asyncio.sleep(0.5)

    async def large(self) -> None:
        """A large body."""
        await self._post("/v1/chat/completions", self.chat(LARGE))

    async def deaf(self) -> None:
        """A long answer that nobody reads."""
        response = await self.client.post(f"{self.base}/v1/chat/completions", json=self.chat("long", stream=True))
        await asyncio.sleep(2)
        response.close()

    async def evil(self) -> None:
        """An upstream at its worst."""
        body = {"model": f"evil/{self.dice.choice(self.modes)}", "messages": [{"role": "user", "content": "x"}]}
        await self._post("/api/requests", body | {"options": {"timeoutMs": 5000, "dedupe": False}})

    async def bomb(self) -> None:
        """A body that inflates."""
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        async with self.client.post(f"{self.base}/v1/chat/completions", data=BOMB, headers=headers) as response:
            await response.read()

    async def keys(self) -> None:
        """Keys in odd places."""
        for path in (f"/v1/{GOOD}", f"/api/requests/{BAD}?key={GOOD}", f"/nowhere?token={GONE}"):
            async with self.client.get(self.base + path, headers={"User-Agent": GOOD, "X-Key": BAD}) as response:
                await response.read()


class Strangers:
    """Clients without a key, over raw connections."""

    def __init__(self, port: int, dice: random.Random) -> None:
        self._port = port
        self._dice = dice
        self.done: Counter[str] = Counter()

    async def run(self, until: float) -> None:
        """Do all of it at once until the time is over."""
        await asyncio.gather(*[self._again(act, until) for act in (self.garbage, self.idle, self.slow, self.sockets)])

    async def _again(self, act: Act, until: float) -> None:
        while time.monotonic() < until:
            with suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
                await act()
            self.done[act.__name__] += 1
            await asyncio.sleep(0.2)

    async def garbage(self) -> None:
        """Bytes that are nearly a request."""
        head = bytearray(HEAD)
        for _ in range(self._dice.randrange(1, 6)):
            head[self._dice.randrange(len(head))] = self._dice.randrange(256)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(bytes(head))
        with suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await reader.read(4096)
        writer.transport.abort()

    async def idle(self) -> None:
        """Connections that say nothing."""
        pairs = [await asyncio.open_connection("127.0.0.1", self._port) for _ in range(100)]
        await asyncio.sleep(3)
        for _, writer in pairs:
            writer.transport.abort()

    async def slow(self) -> None:
        """Headers that come a byte at a time."""
        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for byte in b"GET /api/health HTTP/1.1\r\nHost: localhost\r\n":
            writer.write(bytes((byte,)))
            await asyncio.sleep(0.1)
        writer.transport.abort()

    async def sockets(self) -> None:
        """Sockets that do not authenticate."""
        head = b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"  # noqa: E501 - a head
        pairs = [await asyncio.open_connection("127.0.0.1", self._port) for _ in range(60)]
        for _, writer in pairs:
            writer.write(head + bytes(self._dice.randrange(256) for _ in range(8)))
        await asyncio.sleep(2)
        for _, writer in pairs:
            writer.transport.abort()


class Log:
    """Reads the service's log: how many lines, and which of them are wrong."""

    def __init__(self) -> None:
        self.lines: Counter[str] = Counter()
        self.wrong: list[str] = []

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Read to the end."""
        while line := await stream.readline():
            text = line.decode(errors="replace")
            try:
                entry = json.loads(text)
            except ValueError:
                entry = {"event": "not JSON", "level": "error"}
            self.lines[f"{entry.get('level')} {entry.get('event')}"[:80]] += 1
            leaked = any(secret in text for secret in SECRETS)
            if (leaked or "exception" in entry or entry.get("event") == "not JSON") and len(self.wrong) < 50:
                self.wrong.append(text[:600])


async def serving(folder: str, file: Path) -> tuple[Process, str]:
    """Start the service with this routes' file; return its process and its address."""
    service = await started(
        ["-m", "service.cli.main", "serve", "--port", "0"],
        folder,
        TOP,
        LOG_FORMAT="json",
        LLM_PROVIDER="openai",
        OPENAI_API_KEY="sk-the-upstream-key",
        ROUTES_FILE=str(file),
    )
    assert service.stderr is not None
    base = ""
    while not base:
        base = json.loads(await service.stderr.readline()).get("address", "")
    return service, base


async def ended(process: Process) -> None:
    """End a process."""
    process.terminate()
    with suppress(TimeoutError):
        async with asyncio.timeout(15):
            await process.wait()
    if process.returncode is None:
        process.kill()
        await process.wait()


async def run(minutes: float, seed: int) -> dict[str, Any]:
    """Run the load and return what was seen."""
    app = web.Application(client_max_size=1 << 28)
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    with tempfile.TemporaryDirectory() as folder:
        evil = await started(["-m", "benchmarks.processes.hostile_upstream"], folder, TOP)
        assert evil.stdout is not None
        hello = json.loads(await evil.stdout.readline())
        file = Path(folder) / "tidegate.toml"

        def write(*, gone: bool) -> None:
            file.write_text(routes(runner.addresses[0][1], hello["port"], gone=gone), encoding="utf-8")

        write(gone=False)
        service, base = await serving(folder, file)
        try:
            return await load(service, base, write, hello["modes"], minutes=minutes, seed=seed)
        finally:
            evil.kill()
            await evil.wait()
            await runner.cleanup()


async def load(
    service: Process, base: str, write: Callable[..., None], modes: Sequence[str], *, minutes: float, seed: int
) -> dict[str, Any]:
    """Put the load on a service, which has ended then; ``write`` writes its routes' file."""
    assert service.stderr is not None
    log, dice, memory = Log(), random.Random(seed), list[int]()
    reading = asyncio.create_task(log.read(service.stderr))
    until = time.monotonic() + 60 * minutes
    good, bad = WellBehaved(base, GOOD, dice), Hostile(base, BAD, dice)
    bad.modes = modes
    strangers = Strangers(int(base.rpartition(":")[2]), dice)

    async def watch() -> None:
        while time.monotonic() < until:
            memory.append(resident(service.pid))
            write(gone=len(memory) % 2 == 0)
            await asyncio.sleep(min(60.0, max(1.0, until - time.monotonic())))

    try:
        async with Looks(base, service.pid) as looks:
            await asyncio.gather(
                watch(),
                strangers.run(until),
                *[good.run(good.acts(), until, 0.2) for _ in range(2)],
                *[bad.run(bad.acts(), until, 0.4) for _ in range(2)],
            )
        memory.append(resident(service.pid))
    finally:
        await good.client.close()
        await bad.client.close()
        await ended(service)
        await reading
    half = memory[len(memory) // 2 :]
    quantiles = statistics.quantiles(good.seconds, n=100)
    return {
        "minutes": minutes,
        "seed": seed,
        "good": {"calls": good.done.total(), "failed": dict(good.failed)},
        "seconds": {"p50": quantiles[49], "p99": quantiles[98], "most": max(good.seconds)},
        "hostile": dict(bad.done),
        "hostile_refused": dict(bad.failed),
        "strangers": dict(strangers.done),
        "stall_ms": round(looks.longest * 1000),
        "memory_mib": memory,
        "slope_mib_a_minute": round((half[-1] - half[0]) / max(1, len(half) - 1), 2),
        "log": dict(log.lines.most_common(40)),
        "wrong_lines": log.wrong,
    }


def main() -> None:
    """Run it as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile_load", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was seen there")
    chosen = parser.parse_args()
    seen = json.dumps(asyncio.run(run(chosen.minutes, chosen.seed)), indent=2)
    sys.stdout.write(seen + "\n")
    if chosen.json:
        chosen.json.write_text(seen + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
