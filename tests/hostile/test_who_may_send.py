"""Web pages of others against a service on this machine: with foreign origins, or with a name that points here."""

import json
from collections.abc import AsyncIterator
from typing import Final

import pytest

from protocol.requests import CountRequests
from service.security_headers import OPEN_FILE, PAGE, RESPONSE
from tests.hostile.edge import OURS, Edge, check_form, heads_of, open_edge
from tests.service.websocket.test_fuzz import HANDSHAKE

BODY: Final = '{"messages":[{"role":"user","content":"hi"}]}'
EVIL: Final = "https://evil.example"
JSON: Final = "Content-Type: application/json"


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    """A service without keys, as it is by default."""
    async with open_edge() as running:
        yield running


def request(
    *headers: str, target: str = "/api/requests", method: str = "POST", body: str = BODY, host: str = "localhost"
) -> bytes:
    """A request as a browser sends it."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    if method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", body if method == "POST" else ""]).encode()


async def status_of(edge: Edge, data: bytes) -> tuple[int, str]:
    """The status of the answer, and its code where it is a refusal."""
    answer = await edge.send(data)
    ((status, headers), *_) = heads_of(answer)
    check_form(answer)
    body = answer.partition(b"\r\n\r\n")[2][: int(headers.get("content-length", 0))]
    found = json.loads(body) if status >= 400 else {}
    return status, found.get("code") or found.get("error", {}).get("code", "")


async def opens(edge: Edge, *headers: str, host: str = "localhost") -> bool:
    """Whether an upgrade is accepted."""
    data = HANDSHAKE.replace("Host: localhost", f"Host: {host}").replace("\r\n\r\n", "\r\n")
    data += "".join(f"{line}\r\n" for line in headers) + "\r\n"
    status, _ = await status_of(edge, data.encode() + bytes.fromhex("8880 00000000"))
    return status == 101


@pytest.mark.parametrize(
    "headers",
    [
        ("Origin: https://evil.example",),
        ("Origin: null",),
        ("Origin: http://localhost.evil.example",),
        ("Origin: http://localhost:81",),
        ("Origin: http://localhost@evil.example",),
        ("Origin: http://127.0.0.1",),
        ("Origin: http://[::1]",),
        ("Origin: file://",),
        ("Origin: ",),
        ("Sec-Fetch-Site: cross-site",),
        ("Sec-Fetch-Site: same-site",),
        ("Origin: http://localhost", "Origin: https://evil.example"),
        ("Origin: https://evil.example", "X-Forwarded-Host: evil.example", "X-Forwarded-Proto: https"),
        ("Origin: https://evil.example", "Forwarded: host=evil.example;proto=https"),
        ("Origin: https://evil.example", "Authorization: Bearer made-up"),
        ("Origin: https://evil.example", "Cookie: a=b"),
    ],
)
async def test_a_foreign_page_gets_nothing_done(edge: Edge, headers: tuple[str, ...]) -> None:
    """Neither a socket, nor a request, nor a cancellation without a body; and nothing reaches a model."""
    assert not await opens(edge, *headers)
    for data in (
        request(*headers, JSON),
        request(*headers, "Content-Type: text/plain"),
        request(*headers, JSON, target="/v1/chat/completions"),
        request(*headers, target="/api/requests/req_1/cancel", body=""),
        request(*headers, target="/api/users/u/disconnect", body=""),
        request(*headers, target="/api/tickets", body=""),
        request(*headers, target="/api/requests/req_1", method="GET"),
        request(*headers, target="/api/requests/req_1", method="DELETE"),
    ):
        status, code = await status_of(edge, data)
        assert (status, code) in {(403, "origin_not_allowed"), (400, "malformed_request")}, data
    assert await edge.service.container.router.ask(CountRequests(), timeout=5) == 0
    assert edge.service.calls.empty()


@pytest.mark.parametrize(
    ("host", "accepted"),
    [
        ("localhost", True),
        ("LOCALHOST:3000", True),
        ("localhost.", True),
        ("localhost.:3000", True),
        ("app.localhost", True),
        ("127.0.0.1", True),
        ("127.8.8.8:1", True),
        ("[::1]", True),
        ("[::1]:3000", True),
        ("[0:0:0:0:0:0:0:1]", True),
        ("rebind.evil.example", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example:localhost", False),
        ("localhost@evil.example", False),
        ("localhost, evil.example", False),
        ("evillocalhost", False),
        ("0.0.0.1", False),
        ("[::]", False),
        ("[::1", False),
        ("[::1]evil.example", False),
        ("10.0.0.1", False),
        ("localhost:evil", False),
        ("0x7f.1", False),
        ("2130706433", False),
    ],
)
async def test_the_service_answers_to_names_of_this_machine(edge: Edge, host: str, *, accepted: bool) -> None:
    """A page whose own name points here calls by that name: it is refused, also where its origin equals the host."""
    origin = f"Origin: http://{host}"
    status, code = await status_of(edge, request(JSON, host=host))
    assert (status == 202) is accepted
    assert accepted or code in {"host_not_allowed", "malformed_request"}
    assert await opens(edge, host=host) is accepted
    if not accepted:
        assert not await opens(edge, origin, host=host)
        assert (await status_of(edge, request(origin, JSON, host=host)))[0] in {400, 403}


@pytest.mark.parametrize(
    "lines",
    [
        ("Host: localhost", "Host: evil.example"),
        ("Host: evil.example", "Host: localhost"),
        ("Host: localhost", "host: localhost"),
        ("Host : localhost",),
        ("X: y",),
    ],
)
async def test_there_is_one_host(edge: Edge, lines: tuple[str, ...]) -> None:
    """Two of them, a hidden one, or none at all: 400."""
    data = "\r\n".join(["GET /v1/models HTTP/1.1", *lines, "Connection: close", "", ""]).encode()
    assert (await status_of(edge, data))[0] == 400


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        ("http://localhost/v1/models", "localhost", 200),
        ("http://LOCALHOST:80/v1/models", "localhost", 200),
        ("http://localhost:3000/v1/models", "localhost:3000", 200),
        ("http://evil.example/v1/models", "localhost", 400),
        ("http://evil.example/v1/models", "evil.example", 403),
        ("http://localhost/v1/models", "evil.example", 400),
        ("http://localhost@evil.example/v1/models", "localhost", 400),
        ("http://localhost:3001/v1/models", "localhost:3000", 400),
        ("ftp://localhost/v1/models", "localhost", 200),
    ],
)
async def test_a_whole_address_names_the_host_too(edge: Edge, target: str, host: str, status: int) -> None:
    """A target with another host than `Host` is no request: which of both would be meant?"""
    assert (await status_of(edge, request(target=target, method="GET", host=host)))[0] == status


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Origin: http://localhost",),
        ("Origin: http://localhost:80",),
        ("Sec-Fetch-Site: same-origin",),
        ("Sec-Fetch-Site: none",),
    ],
)
async def test_ones_own_page_and_programs_pass(edge: Edge, headers: tuple[str, ...]) -> None:
    """A program sends none of the browsers' headers; the service's own page sends its own origin."""
    assert await opens(edge, *headers)
    assert (await status_of(edge, request(*headers, JSON)))[0] == 202


async def test_what_a_trusted_proxy_says_counts_only_from_it() -> None:
    """`X-Forwarded-Host` names the host for a proxy of the list, and nothing for anybody else."""
    said = ("Origin: https://gate.example", "X-Forwarded-Host: gate.example", "X-Forwarded-Proto: https")
    names = "gate.example"
    async with open_edge(allowed_hosts=names, trusted_proxies="127.0.0.0/8") as edge:
        assert await opens(edge, *said, host="inside")
        assert not await opens(edge, *said[:1], "X-Forwarded-Host: evil.example", host="gate.example")
    async with open_edge(allowed_hosts=names, trusted_proxies="10.0.0.0/8") as edge:
        assert not await opens(edge, *said, host="inside")
        assert not await opens(edge, *said, host="localhost")


async def test_with_keys_a_page_needs_one() -> None:
    """A key in a header is no ambient authority: any page may send it, under any name, but a cookie is none."""
    async with open_edge(api_keys=(OURS,), environment="production") as edge:
        key = f"Authorization: Bearer {OURS}"
        assert (await status_of(edge, request(f"Origin: {EVIL}", key, JSON, host="any.example")))[0] == 202
        assert (await status_of(edge, request(f"Origin: {EVIL}", "Cookie: a=b", JSON)))[0] == 403
        assert (await status_of(edge, request(f"Origin: {EVIL}", JSON)))[0] == 401
        assert not await opens(edge, f"Origin: {EVIL}")
        assert await opens(edge, f"Origin: {EVIL}", key)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/", PAGE),
        ("/docs", PAGE),
        ("/web/theme.css", PAGE),
        ("/errors/not_found", PAGE),
        ("/client.js", OPEN_FILE),
        ("/openapi.json", OPEN_FILE),
        ("/v1/models", RESPONSE),
        ("/api/health", RESPONSE),
        ("/api/nothing", RESPONSE),
        ("/v1/nothing", RESPONSE),
        ("/ws", RESPONSE),
    ],
)
async def test_browsers_are_told_what_they_may_do(edge: Edge, target: str, expected: dict[str, str]) -> None:
    """Each response has the headers of its kind, and no cookie."""
    answer = await edge.send(request(target=target, method="GET"))
    ((_, headers),) = heads_of(answer)
    assert {name: headers.get(name.lower()) for name in expected} == dict(expected)
    assert "set-cookie" not in headers
