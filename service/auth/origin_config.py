"""Which web pages and hosts are allowed, and which proxies are trusted; the settings make it."""

import ipaddress
import re
from typing import Final

import msgspec

ANY: Final = "*"
DEFAULT_PORTS: Final = {"http": ":80", "https": ":443"}

_ORIGIN: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[a-z0-9._~-]+|\[[0-9a-f:.]+\])(?P<port>:\d{1,5})?"
)
_HOST: Final = re.compile(r"(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::\d{1,5})?")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class OriginConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What an ``OriginPolicy`` is made of. An origin is written as a browser sends it: ``https://app.example.com``.

    Attributes:
        pages: origins that may call over HTTP and read the responses; with ``*`` all.
        sockets: origins that may open a socket; empty: those of ``pages``.
        open_sockets: whether any origin may open a socket where keys are required.
        hosts: names beside this machine's that a ``Host`` may have, with or without a port; with ``*`` all. Empty: with
            keys all, and without keys only this machine's.
        proxies: networks of the proxies whose ``X-Forwarded-*`` counts.
    """

    pages: frozenset[str] = frozenset()
    sockets: frozenset[str] = frozenset()
    open_sockets: bool = False
    hosts: frozenset[str] = frozenset()
    proxies: tuple[Network, ...] = ()


def parse_origin(text: str) -> str:
    """Return an origin as browsers send it: in lower case, without the scheme's own port and without a slash.

    Raises:
        ValueError: it is no origin.
    """
    origin = text.lower().removesuffix("/")
    found = _ORIGIN.fullmatch(origin)
    if text == ANY:
        return ANY
    if found is None:
        raise ValueError("should be origins such as https://app.example.com, separated by commas, or *")
    return origin.removesuffix(DEFAULT_PORTS.get(found["scheme"], "/"))


def parse_host(text: str) -> str:
    """Return the name of a host, with its port if there is one, in lower case.

    Raises:
        ValueError: it is no such name.
    """
    host = text.lower()
    if host != ANY and not _HOST.fullmatch(host):
        raise ValueError("should be names of hosts such as gate.example.com, separated by commas, or *")
    return host


def parse_network(text: str) -> Network:
    """Return a network, or that of one address.

    Raises:
        ValueError: it is neither.
    """
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError("should be addresses or networks such as 10.0.0.0/8, separated by commas") from None
