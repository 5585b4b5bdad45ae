"""The URL of an upstream, parsed once, with the request head that is the same for every call."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import msgspec
from yarl import URL

JSON: Final = "application/json"
PORTS: Final = {"http": 80, "https": 443}
NONE: Final[Mapping[str, str]] = MappingProxyType({})
FRAMING: Final = frozenset(
    {"connection", "content-length", "keep-alive", "transfer-encoding"}
)  # headers that only the connection sets
_TARGET: Final = re.compile(r"/[!-~]*")
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t -~\x80-\xff]*")


class Origin(msgspec.Struct, frozen=True):
    """The host, port and scheme that a connection is made to.

    Attributes:
        host: a name, or an IP address without brackets.
        port: 1 or more.
        tls: whether the connection uses TLS.
    """

    host: str
    port: int
    tls: bool


class UpstreamUrl:
    """An upstream's URL, and the headers that every request to it has.

    Args:
        url: ``http`` or ``https``, without a user's name.
        accept: the content type of the answers.
        headers: further headers; they replace the default ones of the same name.
        method: of the requests.

    Raises:
        ValueError: the URL can't be used, or a header can't be written. The message quotes no header's value.

    Attributes:
        origin: the host to connect to.
    """

    __slots__ = ("_fields", "_head", "_line", "origin")

    def __init__(self, url: str | URL, *, accept: str, headers: Mapping[str, str] = NONE, method: str = "POST") -> None:
        url = URL(url)
        if url.scheme not in PORTS or not url.raw_host or not url.port:
            raise ValueError("a provider's URL has to begin with http:// or https:// and a host")
        if url.user is not None or url.password is not None:
            raise ValueError("a provider's URL may not have a user's name or password")
        target = url.raw_path_qs or "/"
        if not _TARGET.fullmatch(target):
            raise ValueError("a provider's URL has a character that no request can have")
        self.origin = Origin(url.raw_host, url.port, url.scheme == "https")
        self._line = f"{method} {target} HTTP/1.1\r\n".encode("ascii")
        self._fields = {
            "host": url.host_port_subcomponent or "",
            "content-type": JSON,
            "accept": accept,
            "accept-encoding": "identity",
            "user-agent": "tidegate",
            **_checked(headers),
        }
        self._head = self._line + _encode(self._fields)

    def head(self, headers: Mapping[str, str], length: int) -> bytes:
        """Return the head of a request with a body of ``length`` bytes; ``headers`` are added, or replace others.

        Raises:
            ValueError: a header can't be written.
        """
        start = self._head
        if headers:
            added = _checked(headers)
            if self._fields.keys().isdisjoint(added):
                start += _encode(added)
            else:
                start = self._line + _encode({**self._fields, **added})
        return b"%bcontent-length: %d\r\n\r\n" % (start, length)


def _checked(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers by lower-case name, without those in ``FRAMING``."""
    checked: dict[str, str] = {}
    for name, value in headers.items():
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"the header {name[:40]!r} has a character that no header can have")
        if name.lower() not in FRAMING:
            checked[name.lower()] = value
    return checked


def _encode(fields: Mapping[str, str]) -> bytes:
    return "".join([f"{name}: {value}\r\n" for name, value in fields.items()]).encode("latin-1")
