"""What is fetched on somebody's word: nothing inside, nothing without end, by no detour."""

import asyncio
import gzip
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.wire.fetcher import Fetcher
from protocol.errors import AccessDenied, FetchError, TryAgainLater
from protocol.fetching import FetchConfig, is_on_the_internet
from service.auth.jwks import MAX_KEYS, PublishedKeys, usable_keys
from tests.service.issuer import RSA, published

INSIDE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104 - it is refused
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.0.8",
    "198.18.0.1",
    "203.0.113.9",
    "192.88.99.1",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "fe80::1",
    "fe80::1%lo",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "2001:db8::1",
]
OUTSIDE = ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def resolver(*places: str, port: int = 0) -> Callable[[str, int], Awaitable[Sequence[Any]]]:
    """Return a resolver that knows one host."""

    async def resolve(_host: str, asked: int) -> Sequence[Any]:
        found = []
        for place in places:
            family = socket.AF_INET6 if ":" in place else socket.AF_INET
            found.append((family, socket.SOCK_STREAM, 6, "", (place, port or asked)))
        return found

    return resolve


@asynccontextmanager
async def serving(answer: bytes, *, then: bytes = b"") -> AsyncIterator[tuple[int, list[bytes]]]:
    """Serve one answer at a port of loopback, which goes on for ever with ``then``; yields the port and the heads."""
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            while then:
                writer.write(then)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()
        await server.wait_closed()


def whole(body: bytes, *headers: str, status: str = "200 OK") -> bytes:
    """Return an answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def refused(url: str, *, allowed: tuple[str, ...] = (), places: tuple[str, ...] = ("1.1.1.1",)) -> str:
    """Return the code with which an address is refused."""
    fetcher = Fetcher(FetchConfig(allowed=allowed, timeout=2.0), resolve=resolver(*places))
    with pytest.raises(FetchError) as caught:
        await fetcher.get(url)
    return caught.value.code


@pytest.mark.parametrize("place", INSIDE)
async def test_an_address_inside_is_refused_whatever_its_name(place: str) -> None:
    """It is looked at after the resolution, in every form, and also where another address of the host is outside."""
    assert not is_on_the_internet(ipaddress.ip_address(place.partition("%")[0]))
    assert await refused("https://keys.example.com/jwks", places=(place,)) == "fetch_refused"
    assert await refused("https://keys.example.com/jwks", places=("1.1.1.1", place)) == "fetch_refused"


@pytest.mark.parametrize("place", OUTSIDE)
def test_an_address_of_the_internet_may_be_reached(place: str) -> None:
    """Also one that stands for another."""
    assert is_on_the_internet(ipaddress.ip_address(place))


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_a_mapped_address_is_what_it_stands_for(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """No form of an IPv4 address is more than that address."""
    if isinstance(address, ipaddress.IPv4Address):
        for prefix in ("::ffff:0:0", "64:ff9b::"):
            mapped = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) + int(address))
            assert is_on_the_internet(mapped) == is_on_the_internet(address)
    elif not address.is_global:
        assert not is_on_the_internet(address) or address.ipv4_mapped or address.sixtofour or address.teredo


@pytest.mark.parametrize(
    "url",
    [
        "http://keys.example.com/jwks",
        "https://user:secret@keys.example.com/jwks",
        "https://user@keys.example.com/jwks",
        "https://keys.example.com:22/jwks",
        "https://keys.example.com:6379/jwks",
        "file:///etc/passwd",
        "ftp://keys.example.com/jwks",
        "gopher://keys.example.com/",
        "//keys.example.com/jwks",
        "https://",
        "https:///jwks",
        "keys.example.com",
        "",
        "https://keys.example.com/" + "a" * 3000,
        "https://[::1",
    ],
)
async def test_an_address_of_another_form_is_refused(url: str) -> None:
    """Without a look-up of its host."""
    assert await refused(url, places=()) == "fetch_refused"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "[::1]", "[::ffff:7f00:1]", "localhost"]
)
async def test_loopback_is_refused_in_every_spelling(host: str) -> None:
    """By the system's own resolver."""
    with pytest.raises(FetchError) as caught:
        await Fetcher().get(f"https://{host}/jwks")
    assert caught.value.code in ("fetch_refused", "fetch_failed")


async def test_a_listed_address_is_reached_by_http_too() -> None:
    """By its address, its network, its name and its port; the document is what comes back."""
    async with serving(whole(b'{"keys":[]}')) as (port, heads):
        for allowed in (("127.0.0.1",), ("127.0.0.0/8",), (f"127.0.0.1:{port}",), ("inside.example",)):
            fetcher = Fetcher(FetchConfig(allowed=allowed), resolve=resolver("127.0.0.1"))
            assert await fetcher.get(f"http://inside.example:{port}/a?b=c") == b'{"keys":[]}'
        assert all(head.startswith(b"GET /a?b=c HTTP/1.1\r\n") for head in heads)
        assert not any(b"authorization" in head.lower() or b"cookie" in head.lower() for head in heads)
        assert await refused(f"http://inside.example:{port}/", allowed=(f"127.0.0.1:{port + 1}",)) == "fetch_refused"
        places = ("127.0.0.1",)
        assert (
            await refused(f"http://other.example:{port}/", allowed=("inside.example",), places=places)
            == "fetch_refused"
        )
        assert len(heads) == 4


async def test_the_host_is_resolved_once() -> None:
    """The connection is made to the addresses that were checked: a second look-up could say another one."""
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[Any]:
        asked.append(host)
        return await resolver("127.0.0.1")(host, port)

    async with serving(whole(b"{}")) as (port, _):
        fetcher = Fetcher(FetchConfig(allowed=("127.0.0.1",)), resolve=rebinding)
        assert await fetcher.get(f"http://inside.example:{port}/") == b"{}"
    assert asked == ["inside.example"]


@pytest.mark.parametrize(
    "answer",
    [
        whole(b"", "Location: http://127.0.0.1:1/", status="302 Found"),
        whole(b"", "Location: https://elsewhere.example/", status="307 Temporary Redirect"),
        whole(b"{}", status="404 Not Found"),
        whole(b"", status="204 No Content"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{}",
        b"SSH-2.0-OpenSSH_9.0\r\n",
        whole(gzip.compress(b"x" * 100_000_000), "Content-Encoding: gzip"),
        whole(b"x" * 2_000_000),
    ],
)
async def test_any_other_answer_is_a_failure(answer: bytes) -> None:
    """Redirects are not followed, and what is too large is not read."""
    async with serving(answer) as (port, heads):
        fetcher = Fetcher(FetchConfig(allowed=("127.0.0.1",), max_bytes=1_000_000), resolve=resolver("127.0.0.1"))
        with pytest.raises(FetchError) as caught:
            await fetcher.get(f"http://inside.example:{port}/")
        assert caught.value.code == "fetch_failed"
        assert len(heads) == 1


@pytest.mark.parametrize(
    ("answer", "then"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X-A: " + b"a" * 1000 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 10_000),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;", b"e" * 10_000),
    ],
)
async def test_an_answer_without_end_is_a_failure(answer: bytes, then: bytes) -> None:
    """Its bytes are bounded, wherever they stand."""
    async with serving(answer, then=then) as (port, _):
        fetcher = Fetcher(FetchConfig(allowed=("127.0.0.1",), timeout=20.0), resolve=resolver("127.0.0.1"))
        with pytest.raises(FetchError):
            await fetcher.get(f"http://inside.example:{port}/")


async def test_silence_ends_with_the_time() -> None:
    """The time of a fetch bounds all of it."""
    async with serving(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", then=b"") as (port, _):
        fetcher = Fetcher(FetchConfig(allowed=("127.0.0.1",), timeout=0.05), resolve=_never)
        with pytest.raises(FetchError, match="nothing came") as caught:
            await fetcher.get(f"http://inside.example:{port}/")
        assert caught.value.code == "fetch_failed"


async def _never(_host: str, _port: int) -> Sequence[Any]:
    await asyncio.Event().wait()
    return ()


@pytest.mark.parametrize("entry", ["", "https://a", "a b", "a:0", "a:99999", "a:x", "user@a", "10.0.0.0/99"])
def test_an_entry_that_means_nothing_is_refused(entry: str) -> None:
    """At the start, and not at the first fetch."""
    with pytest.raises(ValueError, match=r"port|host"):
        FetchConfig(allowed=(entry,))


@given(st.text(max_size=200))
async def test_any_text_is_a_typed_failure(url: str) -> None:
    """Nothing else is raised, whatever is to be fetched."""
    with pytest.raises(FetchError):
        await Fetcher(resolve=resolver("127.0.0.1")).get(url)


async def test_public_keys_inside_have_to_be_listed() -> None:
    """An issuer of this machine is not asked unless the operator says so."""
    async with serving(whole(b'{"keys":[]}')) as (port, heads):
        keys = PublishedKeys(f"http://127.0.0.1:{port}/jwks.json")
        with pytest.raises((TryAgainLater, AccessDenied)) as caught:
            await keys.find("RS256", "a")
        assert caught.value.code == "auth_unavailable"
        assert not heads
        await keys.close()


def test_keys_of_any_size_and_number_are_bounded() -> None:
    """A huge key would make every verification slow; too many are not looked at."""
    import json  # noqa: PLC0415 - of this test alone

    good = published(RSA, "good")
    huge = {**good, "kid": "huge", "n": "A" * 100_000}
    slow = {**good, "kid": "slow", "e": "A" * 4000}
    odd = [{**good, "kid": "odd", "n": 5}, {**good, "kid": "k" * 1000}, {"kty": ["RSA"]}, {}]
    found = usable_keys(json.dumps({"keys": [huge, slow, *odd, good]}).encode())
    assert [*found] == [("RS256", "good")]
    many = [{**good, "kid": str(number)} for number in range(MAX_KEYS * 3)]
    assert len(usable_keys(json.dumps({"keys": many}).encode())) == MAX_KEYS
