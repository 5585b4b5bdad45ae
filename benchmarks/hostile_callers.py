"""What hostile callers do to the service: ``python -m benchmarks.hostile_callers [scenario ...] [--root DIR]``.

Each scenario has a service of its own, of the checkout at ``--root``, with two keys and a model that answers at once;
another client asks for ``/api/health/live`` all the time. **stall** is its longest wait, **memory** what the service's
resident memory has grown at its peak, **seen** what came back, and **neighbour** what another tenant's call got at the
end. What upstreams do is ``hostile_upstreams``; how long revoked keys live on is ``rights``.
"""

import argparse
import asyncio
import gzip
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from benchmarks.hostile_load import BAD, GOOD, SECRETS, Log, answer, ended, routes
from benchmarks.hostile_upstreams import TOP, Looks, started

MIB: Final = 1024 * 1024
JSON: Final = {"Content-Type": "application/json"}
UPGRADE: Final = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


class Attack:
    """One scenario at work.

    Args:
        base: the service's address.
        client: of the hostile tenant.

    Attributes:
        seen: what came back, by kind.
    """

    def __init__(self, base: str, client: aiohttp.ClientSession) -> None:
        self.base = base
        self.client = client
        self.seen: Counter[str] = Counter()

    @property
    def port(self) -> int:
        """The service's port."""
        return int(self.base.rpartition(":")[2])

    async def post(self, path: str, body: object, **headers: str) -> str:
        """Post JSON or bytes, count the status and the code, and return the answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            async with self.client.post(self.base + path, data=BytesIO(data), headers=JSON | headers) as response:
                text = await response.text()
                self.seen[f"{response.status} {_code(text)}".strip()] += 1
                return text
        except aiohttp.ClientError as error:
            self.seen[type(error).__name__] += 1
            return ""

    async def many(self, path: str, bodies: list[Any]) -> None:
        """Post many bodies, 50 at once."""
        waiting = iter(bodies)

        async def worker() -> None:
            for body in waiting:
                await self.post(path, body)

        await asyncio.gather(*[worker() for _ in range(50)])


def chat(said: str, **more: object) -> dict[str, Any]:
    """Return the body of a chat call."""
    return {"model": "fine/m", "messages": [{"role": "user", "content": said}], **more}


def with_schema(schema: object) -> dict[str, Any]:
    """Return a chat call whose answer has to match."""
    return chat("json", response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": schema}})


def chain(links: int) -> dict[str, Any]:
    """Return a schema of doubled unions."""
    steps = {f"a{n}": {"anyOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(links)}
    return {"$defs": {**steps, f"a{links}": {"type": "integer"}}, "$ref": "#/$defs/a0"}


async def patterns(attack: Attack) -> None:
    """Finding 1: 300 patterns of large classes."""
    wide = {"properties": {f"p{n}": {"pattern": r"(?i)[\p{L}\p{N}0]{100}"} for n in range(300)}}
    await attack.post("/v1/chat/completions", with_schema(wide))
    await attack.post("/v1/messages/count_tokens", chat("x") | {"tools": [{"name": "f", "input_schema": wide}]})


async def unions(attack: Attack) -> None:
    """Finding 1: a chain of unions."""
    await attack.post("/v1/chat/completions", with_schema(chain(16)))


async def enum(attack: Attack) -> None:
    """Finding 1: an enum of a megabyte."""
    await attack.post("/v1/chat/completions", with_schema({"enum": [f"value {n:06}" for n in range(60_000)]}))


async def bombs(attack: Attack) -> None:
    """Finding 2: a gzip bomb with a key, without, to nobody, and ten at once."""
    bomb = gzip.compress(b" " * (500 * MIB))
    encoded = {"Content-Encoding": "gzip"}
    await attack.post("/v1/chat/completions", bomb, **encoded)
    await attack.post("/v1/chat/completions", bomb, **encoded, Authorization="Bearer nobody")
    await attack.post("/nowhere", bomb, **encoded)
    await asyncio.gather(*[attack.post("/v1/chat/completions", bomb, **encoded) for _ in range(10)])


async def values(attack: Attack) -> None:
    """Finding 9: many fields, many messages."""
    await attack.post("/v1/chat/completions", chat("x") | {f"k{n}": 1 for n in range(80_000)})
    await attack.post("/v1/chat/completions", {"model": "fine/m", "messages": chat("x")["messages"] * 33_000})


async def large(attack: Attack) -> None:
    """Finding 9 and CLIENTS: bodies as large as may be."""
    await attack.post("/v1/chat/completions", chat("x" * (30 * MIB)))
    await attack.post("/v1/chat/completions", {"model": "fine/m", "messages": chat("x")["messages"] * 800_000})


async def identical(attack: Attack) -> None:
    """Finding 3: one slow request, 20,000 times."""
    await attack.many("/api/requests", [chat("slow")] * 20_000)


async def tickets(attack: Attack) -> None:
    """Finding 3: 10,000 tickets."""
    await attack.many("/api/tickets", [{}] * 10_000)


async def strangers(attack: Attack) -> None:
    """Finding 3: 1,005 sockets that do not authenticate."""
    head = "GET /ws HTTP/1.1\r\nHost: localhost\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in UPGRADE.items()
    )
    writers = []
    for _ in range(1005):
        _, writer = await asyncio.open_connection("127.0.0.1", attack.port)
        writer.write(f"{head}\r\n".encode())
        writers.append(writer)
    await asyncio.sleep(1)
    async with aiohttp.ClientSession() as other, other.ws_connect(f"{attack.base}/ws") as socket:
        await socket.send_json({"type": "authenticate", "id": 1, "token": GOOD})
        said = await socket.receive(timeout=10)
        attack.seen[f"a client that authenticates: {said.data}"[:80]] += 1
    for writer in writers:
        writer.transport.abort()


async def pages(attack: Attack) -> None:
    """Finding 4: a page of another origin, and another name for this host."""
    async with aiohttp.ClientSession() as page:
        for name, headers in {
            "origin": UPGRADE | {"Origin": "http://evil.example"},
            "host": {"Host": "evil.example"},
        }.items():
            path = "/ws" if name == "origin" else "/v1/models"
            async with page.get(attack.base + path, headers=headers) as response:
                attack.seen[f"{name}: {response.status}"] += 1


async def garbage(attack: Attack) -> None:
    """Findings 6 and 9: bytes that are no request, with keys in them."""
    for data in (
        b"GET / HTTP/1.1\nHost: localhost\nx-api-key: " + GOOD.encode() + b"\n\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nx-long: " + GOOD.encode() * 400 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"nonsense\r\n\r\n",
        b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", attack.port)
        writer.write(data)
        text = b""
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(2):
                text = await reader.read(4096)
        ours = b"x-request-id" in text and b"Python/" not in text and GOOD.encode() not in text
        attack.seen["our answer" if ours else f"not ours: {text[:40]!r}"] += 1
        writer.transport.abort()


async def descriptors(attack: Attack) -> None:
    """Finding 11: 300 idle connections where there are 256 descriptors."""
    writers = []
    for _ in range(300):
        with suppress(OSError):
            writers.append((await asyncio.open_connection("127.0.0.1", attack.port))[1])
    for number in range(10):
        await attack.post("/v1/chat/completions", chat(f"hi {number}"))
    for writer in writers:
        writer.transport.abort()


SCENARIOS: Final[dict[str, Callable[[Attack], Awaitable[None]]]] = {
    one.__name__: one
    for one in (
        patterns,
        unions,
        enum,
        bombs,
        values,
        large,
        identical,
        tickets,
        strangers,
        pages,
        garbage,
        descriptors,
    )
}
KEYLESS: Final = ("pages",)  # the defaults without keys
FEW_FILES: Final = ("descriptors",)
DESCRIPTORS: Final = 256


@asynccontextmanager
async def model() -> AsyncIterator[int]:
    """Serve the model; yields its port."""
    app = web.Application(client_max_size=1 << 28)
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def measure(name: str, root: Path, port: int) -> dict[str, Any]:
    """Run one scenario."""
    log = Log()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tidegate.toml").write_text(
            routes(port, 9, gone=False, keys=name not in KEYLESS), encoding="utf-8"
        )
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if name in FEW_FILES:
            resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS if hard == DESCRIPTORS else hard))
        arguments = ["-m", "service.cli.main", "serve", "--port", "0"]
        if name in FEW_FILES:
            limit = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({DESCRIPTORS}, {DESCRIPTORS}))"
            run = "from service.cli.main import main; import sys; sys.argv[1:] = ['serve', '--port', '0']; main()"
            arguments = ["-c", f"{limit}; {run}"]
        settings = {"LOG_FORMAT": "json", "LLM_PROVIDER": "openai", "OPENAI_API_KEY": "sk-the-upstream-key"}
        service = await started(arguments, folder, root, **settings)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert service.stderr is not None
        base = ""
        while not base:
            base = json.loads(await service.stderr.readline()).get("address", "")
        reading = asyncio.create_task(log.read(service.stderr))
        timeout = aiohttp.ClientTimeout(total=120)
        headers = {"Authorization": f"Bearer {BAD}"}
        try:
            async with (
                Looks(base, service.pid) as looks,
                aiohttp.ClientSession(headers=headers, timeout=timeout) as client,
            ):
                await asyncio.sleep(0.1)
                attack = Attack(base, client)
                began = time.perf_counter()
                await SCENARIOS[name](attack)
                seconds = time.perf_counter() - began
                other = Attack(base, client)
                await other.post("/v1/chat/completions", chat("after"), Authorization=f"Bearer {GOOD}")
        finally:
            await ended(service)
            await reading
    return {
        "scenario": name,
        "stall_ms": round(looks.longest * 1000),
        "memory_mib": looks.peak - looks.first,
        "seconds": round(seconds, 2),
        "seen": dict(attack.seen),
        "neighbour": dict(other.seen),
        "wrong_lines": len(log.wrong),
        "leaked": any(secret in line for line in log.wrong for secret in SECRETS),
    }


def _code(text: str) -> str:
    """Return the code of an error."""
    try:
        said = json.loads(text)
    except ValueError:
        return ""
    error = said.get("error") if isinstance(said, dict) else None
    found = error.get("code") or error.get("type") if isinstance(error, dict) else said.get("code", "")
    return str(found or "")


async def run(root: Path, names: list[str]) -> list[dict[str, Any]]:
    """Run these scenarios, or all."""
    found = []
    async with model() as port:
        for name in names or SCENARIOS:
            found.append(await measure(name, root, port))
            sys.stdout.write(json.dumps(found[-1]) + "\n")
            sys.stdout.flush()
    return found


def main() -> None:
    """Run the scenarios named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile_callers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="scenario", help=", ".join(SCENARIOS))
    parser.add_argument("--root", type=Path, default=TOP, help="the checkout that serves")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    chosen = parser.parse_args()
    unknown = set(chosen.names) - set(SCENARIOS)
    if unknown:
        parser.error(f"there is no scenario {min(unknown)!r}")
    figures = asyncio.run(run(chosen.root.resolve(), chosen.names))
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
