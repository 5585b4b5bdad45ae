"""A key in any place of a request: not in a line of the log, not in a span, not in an answer."""

import asyncio
import base64
import gc
import logging
from collections.abc import AsyncIterator
from typing import Any, Final
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actors.requests.failure import failure
from protocol.errors import FieldError, InvalidRequest
from protocol.secret_text import REDACTED, hide_keys
from protocol.websocket.out import error_json
from service.auth.keys import new_key
from service.logging.redaction import MAX_READ, Redactor
from service.telemetry.setup import Telemetry
from tests.hostile.edge import KEY, OURS, Edge, hurry, open_edge
from tests.service.websocket.test_fuzz import HANDSHAKE

HIDDEN: Final = KEY[3:]  # what must not be seen, also without its prefix
FULL: Final = "".join(f"%{byte:02X}" for byte in KEY.encode())
TWICE: Final = quote(FULL)
THRICE: Final = quote(TWICE)


def in_base64(before: str) -> str:
    """A key in base64, with some bytes before it."""
    return base64.b64encode((before + KEY).encode()).decode()


QUOTED: Final = (KEY, FULL, TWICE, THRICE, f"x%20{KEY}", f"t%67_{HIDDEN}")
ENCODED: Final = (*QUOTED, *(in_base64(before) for before in ("", "u", "a:")))


def head(target: str, *headers: str, method: str = "GET", body: str = "") -> bytes:
    """A request with these headers."""
    ending = () if "Connection: Upgrade" in headers else ("Connection: close",)
    lines = (
        f"{method} {target} HTTP/1.1",
        "Host: localhost",
        *ending,
        *headers,
        f"Content-Length: {len(body)}",
        "",
        body,
    )
    return "\r\n".join(lines).encode()


def said(secret: str) -> dict[str, bytes]:
    """Requests that have a secret where none belongs, by the place."""
    json = "Content-Type: application/json"
    ours = f"Authorization: Bearer {OURS}"
    return {
        "in a path": head(f"/v1/{secret}", ours),
        "in a native path": head(f"/api/requests/{secret}", ours),
        "in a path of a channel": head(f"/api/channels/{secret}/history?limit={secret}", ours),
        "in the query": head(f"/v1/models?key={secret}&x={secret}"),
        "as a ticket": head(f"/ws?ticket={secret}", "Connection: Upgrade", "Upgrade: websocket"),
        "as the user agent": head("/v1/models", f"User-Agent: {secret}"),
        "as the origin": head("/v1/models", f"Origin: {secret}"),
        "as the origin of a socket": HANDSHAKE.replace("\r\n\r\n", f"\r\nOrigin: https://{secret}\r\n\r\n").encode(),
        "as a cookie": head("/v1/models", f"Cookie: session={secret}"),
        "as a referrer": head("/ws", f"Referer: http://a/{secret}"),
        "with a scheme of its own": head("/v1/models", f"Authorization: Digest {secret}"),
        "without a scheme": head("/v1/models", f"Authorization: {secret}"),
        "as basic": head("/v1/models", f"Authorization: Basic {secret}"),
        "as the request's id": head("/v1/models", ours, f"x-request-id: {secret}"),
        "as the trace's": head("/v1/models", ours, f"x-trace-id: {secret}"),
        "as the content type": head("/v1/messages", ours, f"Content-Type: {secret}", method="POST", body="{}"),
        "as an idempotency key": head(
            "/v1/messages", ours, json, f"Idempotency-Key: {secret}", f"Idempotency-Key: {secret}", method="POST"
        ),
        "as a choice": head(
            "/v1/chat/completions",
            ours,
            json,
            f"x-tidegate-dedupe: {secret[:36]}",
            method="POST",
            body='{"model":"m","messages":[{"role":"user","content":"hi"}]}',
        ),
        "as a model": head("/api/requests", ours, json, method="POST", body=f'{{"model":"{secret}"}}'),
        "as a field": head("/api/requests", ours, json, method="POST", body=f'{{"{secret}":1}}'),
        "as a method": f"{secret} / HTTP/1.1\r\nHost: localhost\r\n\r\n".encode(),
        "as a version": f"GET / {secret}\r\n\r\n".encode(),
        "with bare line ends": f"GET / HTTP/1.1\nHost: x\nx-api-key: {secret}\n\n".encode(),
        "in a header without a colon": f"GET / HTTP/1.1\r\nHost: x\r\nx-api-key {secret}\r\n\r\n".encode(),
        "in a header that is too large": head("/", f"x-api-key: {secret}{'a' * 9000}"),
        "in an address that is too long": head(f"/v1/{secret}{'a' * 9000}"),
        "in an address without an end": head(f"http://[{secret}"),
        "in a chunk's size": head("/", "Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
        + f"{secret}\r\n".encode(),
        "as an expectation": head("/", f"Expect: {secret}"),
        "as the host": head("/v1/models", ours).replace(b"localhost", secret.encode()),
        "as an encoding": head("/v1/messages", ours, f"Content-Encoding: {secret}", json, method="POST", body="{}"),
        "as a subprotocol": HANDSHAKE.replace(
            "\r\n\r\n", f"\r\nSec-WebSocket-Protocol: bearer.{secret}\r\n\r\n"
        ).encode(),
        "as a websocket's key": HANDSHAKE.replace("dGhlIHNhbXBsZSBub25jZQ==", secret).encode(),
    }


@pytest.fixture
def spans() -> InMemorySpanExporter:
    """Takes every span."""
    return InMemorySpanExporter()


@pytest.fixture
async def edge(monkeypatch: pytest.MonkeyPatch, spans: InMemorySpanExporter) -> AsyncIterator[Edge]:
    """A service with a key, tracing, and a log of everything."""
    hurry(monkeypatch)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(spans))
    async with open_edge(log_level="debug", telemetry=Telemetry(provider), api_keys=(OURS,)) as running:
        yield running


@pytest.mark.parametrize("secret", ENCODED)
async def test_a_key_is_nowhere(edge: Edge, spans: InMemorySpanExporter, secret: str) -> None:
    """In every place and encoding: the log at `debug`, the spans' names and attributes, and the answers."""
    for place, data in said(secret).items():
        answer = (await edge.send(data)).decode("utf-8", "replace")
        assert _leaks(answer, secret) == [], place
    recorded = [f"{span.name} {dict(span.attributes or {})} {span.events}" for span in spans.get_finished_spans()]
    assert recorded
    assert [span for span in recorded if _leaks(span, secret)] == []
    lines = [str(line) for line in edge.lines]
    assert [line for line in lines if _leaks(line, secret)] == []
    edge.check_log()


def _leaks(text: str, secret: str) -> list[str]:
    return [part for part in {HIDDEN, secret, secret[-24:].rstrip("=")} if part in text]


@pytest.mark.parametrize("logger", ["asyncio", "aiohttp.server", "uvloop", "anything"])
async def test_a_failure_that_quotes_a_request_is_redacted(logger: str) -> None:
    """What libraries log of their own: the message, its arguments and the exception's text."""
    raw = f"b'GET /v1/x?a={KEY} HTTP/1.1\\nHost: x\\nX-Own: {HIDDEN}\\n\\n'"
    async with open_edge() as edge:
        failure = ValueError(f"400, message:\n  Expected CRLF after version:\n\n  {raw}")
        logging.getLogger(logger).error("failed with %s", raw, exc_info=failure)
    assert len(edge.named(edge.lines[-1]["event"])) >= 1
    assert [line for line in edge.lines if HIDDEN in str(line)] == []


async def test_a_task_that_nobody_awaits_is_redacted() -> None:
    """`Task exception was never retrieved` has the exception's text, and the task's arguments do not."""

    async def fail() -> None:
        raise ValueError(f"x-api-key: {KEY}, Authorization: Bearer {KEY}")

    async with open_edge() as edge:
        task = asyncio.get_running_loop().create_task(fail())
        await asyncio.wait([task])
        del task
        gc.collect()
    (line,) = [line for line in edge.lines if "never retrieved" in str(line["event"])]
    assert HIDDEN not in str(line)
    assert REDACTED in str(line)


@pytest.mark.parametrize("secret", ENCODED)
def test_an_error_hides_a_key_in_its_texts(secret: str) -> None:
    """In a frame of a socket, and as the end of a request: its detail and its fields have no key."""
    for show in (error_json, failure):
        error = InvalidRequest(f"no model is called {secret!r}", errors=(FieldError(f"$.{secret}", f"got {secret}"),))
        shown = str(show(error))
        assert shown.count(REDACTED) == 3
        assert _leaks(shown, secret) == []


def test_other_texts_stay() -> None:
    """What only looks a little like a key is shown."""
    for text in ("100 % of task-12345678", "/api/channels/a%20b/history", "c2 and dGd", "max_tokens=5", "/v1/models"):
        assert hide_keys(text) == text


@given(st.binary(max_size=9), st.binary(max_size=9), st.integers(0, 2))
def test_a_new_key_is_found_in_base64_and_quoted(before: bytes, after: bytes, rounds: int) -> None:
    """Whatever is before and behind it, each key that the service makes is found."""
    key = new_key()
    text = base64.b64encode(before + key.encode() + after).decode()
    assert text[len(before) * 4 // 3 + 8 : -8] not in hide_keys(text)
    quoted = f"/a/{key}"
    for _ in range(rounds):
        quoted = quote("".join(f"%{byte:02x}" for byte in key.encode())) if quoted.startswith("/") else quote(quoted)
    assert key not in hide_keys(quoted)
    assert REDACTED in hide_keys(quoted)


@pytest.mark.parametrize("text", ["%" * 8000, "%25" * 2600, "dGdf" * 2000, "HRn" * 2600, "tg_" * 2600, "%zz/" * 2000])
def test_a_hostile_text_is_read_in_one_pass(text: str) -> None:
    """The result is bounded by what was read; a text without a key stays in its form."""
    assert len(hide_keys(text)) <= 2 * len(text)
    redacted: Any = Redactor().text(text[:MAX_READ])
    assert isinstance(redacted, str)
