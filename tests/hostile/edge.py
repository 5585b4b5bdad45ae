"""The service on a real port with its real log, for clients that send bytes as they like."""

import asyncio
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import orjson
import pytest

from service.config.settings import load_settings
from service.http import bodies
from service.logging.setup import open_logging
from service.server import connections, refusals
from service.telemetry.setup import Telemetry
from service.websocket import transport
from tests.service.bench import Service, open_service

KEY: Final = "tg_corpus-0123456789abcdef0123456789abcdef01234"
"""What clients send as a key. It is none of the service's, which so knows it only by its form."""
OURS: Final = "a-key-of-the-service"
LAST: Final = b"GET /api/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
FOREIGN: Final = (b"Python/", b"aiohttp", b"Traceback", b"<title>")
IDLE: Final = 0.1  # seconds without an end after which a connection is one that is kept alive
CORPUS: Final = Path(__file__).parent / "corpus"

_HEAD: Final = re.compile(rb"HTTP/\d\.\d (\d{3}) [^\r\n]*((?:\r\n[^\r\n]+)*)\r\n\r\n")


class Edge:
    """A running service, and its log.

    Attributes:
        service: the service.
        lines: the lines of its log; all of them once the service has ended.
    """

    def __init__(self, service: Service, log: io.StringIO) -> None:
        self.service = service
        self._log = log

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The lines of the log, oldest first."""
        return [orjson.loads(line) for line in self._log.getvalue().splitlines()]

    def named(self, event: str) -> list[dict[str, Any]]:
        """The lines of one event."""
        return [line for line in self.lines if line["event"] == event]

    async def send(self, *pieces: bytes) -> bytes:
        """Send bytes over a new connection, each piece in a write of its own; return all that comes back."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.service.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
            return await _read_all(reader, writer)
        except ConnectionError:
            return b""
        finally:
            writer.transport.abort()

    def check_log(self, *secrets: str) -> None:
        """Check that nothing failed, and that no line has a secret or a traceback."""
        text = self._log.getvalue()
        assert [line for line in self.lines if line["level"] in {"error", "fatal"} or "exception" in line] == []
        assert [secret for secret in secrets if secret in text] == []


@asynccontextmanager
async def open_edge(
    *,
    log_level: str = "info",
    telemetry: Telemetry | None = None,
    **settings: Any,  # noqa: ANN401 - field by field
) -> AsyncIterator[Edge]:
    """Serve on a free port, with the log that the service itself writes; it is complete at the end."""
    log = io.StringIO()
    with open_logging(load_settings(None, log_format="json", log_level=log_level), log) as writer:
        async with open_service(telemetry=telemetry, **settings) as service:
            edge = Edge(service, log)
            yield edge
        writer.close()


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the service wait for nobody: a request or a body that does not come whole is given up at once."""
    monkeypatch.setattr(bodies, "BODY_TIMEOUT", 0.02)
    monkeypatch.setattr(connections, "HEADERS_TIMEOUT", 0.02)
    monkeypatch.setattr(connections, "LINGER", 0.02)
    monkeypatch.setattr(refusals, "LINGER", 0.02)
    monkeypatch.setattr(transport, "LINGER", 0.02)


def heads_of(answer: bytes) -> list[tuple[int, dict[str, str]]]:
    """The status and the headers of each response; those of several responses follow each other in one connection."""
    found = []
    for status, head in _HEAD.findall(answer):
        headers = (line.decode().partition(": ") for line in head.split(b"\r\n")[1:])
        found.append((int(status), {name.lower(): value for name, _, value in headers}))
    return found


def check_form(answer: bytes) -> None:
    """Check that each response is the service's own: its name, an id, no word of the server's library."""
    for status, headers in heads_of(answer):
        if status > 100:
            assert headers["server"] == "tidegate"
            assert headers["x-request-id"].startswith("req_")
            assert headers["x-content-type-options"] == "nosniff"
    assert answer.lower().count(b"\r\nserver: ") == len([1 for status, _ in heads_of(answer) if status > 100])
    assert [word for word in FOREIGN if word in answer and b"text/html" not in answer] == []


def corpus(area: str) -> dict[str, bytes]:
    """The kept inputs of an area, by their names without the ending."""
    return {path.stem: path.read_bytes() for path in sorted((CORPUS / area).iterdir())}


async def _read_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Read to the end. Where none comes, the last request was lost in what was sent before, and is sent again."""
    answer = bytearray()
    for bound in (IDLE, None):
        with suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(bound):
                while data := await reader.read(1 << 16):
                    answer += data
                break
        writer.write(LAST)
    return bytes(answer)
