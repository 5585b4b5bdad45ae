"""What may be fetched on somebody's word: addresses of the internet, and those that the operator lists."""

import ipaddress
from typing import Final

import msgspec

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_NOT_GLOBAL: Final = tuple(
    map(ipaddress.ip_network, ("64:ff9b:1::/48", "fec0::/10", "::/96", "192.0.0.0/24", "192.88.99.0/24", "2001::/23"))
)  # networks that lead elsewhere, or nowhere, although some of them count as global


class FetchConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What may be fetched, and how much.

    Attributes:
        allowed: hosts, IP addresses and networks that may also be inside, and be reached by ``http``; each may have a
            port behind it (``auth.internal:8080``, ``[::1]:80``), and without one has all ports.
        max_bytes: of one document.
        timeout: seconds for one document, from the look-up of the host to the last byte.

    Raises:
        ValueError: an entry of ``allowed`` is none of these.
    """

    allowed: tuple[str, ...] = ()
    max_bytes: int = 1024 * 1024
    timeout: float = 5.0

    def __post_init__(self) -> None:
        for entry in self.allowed:
            Listed.of(entry)


class Listed(msgspec.Struct, frozen=True):
    """An entry of ``allowed``: a host's name, or a network; and a port, 0 for all."""

    host: str
    network: Network | None
    port: int

    @classmethod
    def of(cls, entry: str) -> "Listed":
        """Return an entry.

        Raises:
            ValueError: it is no host, address or network.
        """
        text, port = entry.strip().lower(), 0
        if network := _network(text):
            return cls("", network, 0)
        text, colon, digits = text.rpartition(":") if ":" in text else (text, "", "")
        if colon:
            port = int(digits) if digits.isascii() and digits.isdigit() else 0
            if not 0 < port <= 65_535:  # noqa: PLR2004 - the last port
                raise ValueError(f"{entry!r} has no valid port")
        host = text.removeprefix("[").removesuffix("]").rstrip(".")
        if not host or "/" in host or "@" in host or any(map(str.isspace, host)):
            raise ValueError(f"{entry!r} is no host, IP address or network")
        return cls(host, _network(host), port)

    def has_port(self, port: int) -> bool:
        """Whether the entry has this port."""
        return self.port in (0, port)

    def has(self, host: str, address: Address, port: int) -> bool:
        """Whether the entry is this host, or has this address."""
        if not self.has_port(port):
            return False
        if self.network is None:
            return host.lower().rstrip(".") == self.host
        inner = embedded(address) or address
        return inner.version == self.network.version and inner in self.network


def is_on_the_internet(address: Address) -> bool:
    """Whether an address is one of the internet: not private, of this machine, shared, reserved or for many.

    An address that stands for another one, such as an IPv4 address within IPv6, is what that one is.
    """
    inner = embedded(address)
    if inner is not None:
        return is_on_the_internet(inner)
    if any(address.version == network.version and address in network for network in _NOT_GLOBAL):
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def embedded(address: Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for; None for none."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.sixtofour or (address.teredo[1] if address.teredo else None)


def _network(text: str) -> Network | None:
    try:
        return ipaddress.ip_network(text.removeprefix("[").removesuffix("]"), strict=False)
    except ValueError:
        return None
