from types import MappingProxyType

import pytest
from yarl import URL

from actors.wire.url import Origin, UpstreamUrl

JSON = "application/json"


def fields(head: bytes) -> tuple[str, dict[str, str]]:
    """Return the request line and the headers of a head."""
    line, *lines, empty, rest = head.decode("latin-1").split("\r\n")
    assert (empty, rest) == ("", "")
    assert len({name for name, _ in (field.split(": ", 1) for field in lines)}) == len(lines)
    return line, dict(field.split(": ", 1) for field in lines)


@pytest.mark.parametrize(
    ("url", "origin", "host", "target"),
    [
        ("http://h/v1", Origin("h", 80, tls=False), "h", "/v1"),
        ("http://h:80/", Origin("h", 80, tls=False), "h", "/"),
        ("http://h", Origin("h", 80, tls=False), "h", "/"),
        ("https://h:80/a b?x=1&y=ä", Origin("h", 80, tls=True), "h:80", "/a%20b?x=1&y=%C3%A4"),
        ("https://H.Example/", Origin("h.example", 443, tls=True), "h.example", "/"),
        ("http://[::1]:8080/v1", Origin("::1", 8080, tls=False), "[::1]:8080", "/v1"),
        ("http://bücher.example/", Origin("xn--bcher-kva.example", 80, tls=False), "xn--bcher-kva.example", "/"),
        ("http://h/a#part", Origin("h", 80, tls=False), "h", "/a"),
    ],
)
def test_a_url_is_read_once(url: str, origin: Origin, host: str, target: str) -> None:
    """A URL gives the origin, the request target and the host header."""
    upstream = UpstreamUrl(url, accept=JSON)
    line, sent = fields(upstream.head({}, 12))
    assert (upstream.origin, line, sent["host"]) == (origin, f"POST {target} HTTP/1.1", host)
    assert sent["content-length"] == "12"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h/v1",
        "/v1",
        "ftp://h/",
        "http://",
        "http:///v1",
        "http://user@h/",
        "http://user:password@h/",
        "http://h:0/",
        "http://h:99999/",
        "http://[::1/",
        URL("http://h/a b", encoded=True),
        URL("http://h/a\r\nx: y", encoded=True),
        URL("http://h/ä", encoded=True),
    ],
)
def test_a_url_that_nothing_can_be_posted_to(url: str | URL) -> None:
    """A URL that can't be used is a ValueError that does not quote a password."""
    with pytest.raises(ValueError, match=r"URL|[Pp]ort|IPv6|host") as caught:
        UpstreamUrl(url, accept=JSON)
    assert "password@" not in str(caught.value)


def test_headers_of_a_url_and_of_a_request() -> None:
    """A call's headers replace the upstream's, and those replace the default ones; case does not matter."""
    upstream = UpstreamUrl("http://h/", accept=JSON, headers={"Authorization": "Bearer k", "User-Agent": "mine"})
    _, sent = fields(upstream.head(MappingProxyType({"TraceParent": "00", "AUTHORIZATION": "Bearer other"}), 0))
    assert sent == {
        "host": "h",
        "content-type": JSON,
        "accept": JSON,
        "accept-encoding": "identity",
        "user-agent": "mine",
        "authorization": "Bearer other",
        "traceparent": "00",
        "content-length": "0",
    }
    _, sent = fields(upstream.head({"traceparent": "é\t"}, 0))
    assert (sent["authorization"], sent["traceparent"]) == ("Bearer k", "é\t")
    assert "traceparent" not in fields(upstream.head({}, 0))[1]


def test_what_frames_the_request_is_ours() -> None:
    """Headers of the length and the connection can't be set by a caller."""
    framing = {"Content-Length": "99", "Transfer-Encoding": "chunked", "Connection": "close", "Keep-Alive": "1"}
    upstream = UpstreamUrl("http://h/", accept=JSON, headers=framing)
    _, sent = fields(upstream.head(framing, 3))
    assert sent["content-length"] == "3"
    assert sent.keys().isdisjoint({"transfer-encoding", "connection", "keep-alive"})


@pytest.mark.parametrize(
    ("name", "value"),
    [("a", "x\r\nb: y"), ("a", "x\ny"), ("a", "\x00"), ("a", "\u2028"), ("a\r\nb", "x"), ("a b", "x"), ("", "x")],
)
def test_no_header_can_bring_another(name: str, value: str) -> None:
    """A header can't contain a line break; the error does not quote the value, which may be a secret."""
    with pytest.raises(ValueError, match="character") as caught:
        UpstreamUrl("http://h/", accept=JSON, headers={name: value})
    assert value not in str(caught.value) or value == "x"
    with pytest.raises(ValueError, match="character"):
        UpstreamUrl("http://h/", accept=JSON).head({name: value}, 0)
