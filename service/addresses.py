"""Places of a bounded number of clients, and who gives one up: the client that rests longest at the largest address."""

import ipaddress
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

import msgspec

IPV6_PREFIX: Final = 64  # bits that count as one address: a client has at least that many addresses
WALK: Final = 64  # addresses that are looked at for a place, so that the work for a new client is bounded

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
OwnerT = TypeVar("OwnerT")


class ConnectionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of clients' connections.

    Attributes:
        total: connections at once. Fewer descriptors mean fewer connections.
        per_address: of one address; of a /64 network with IPv6.
        keep_alive: seconds for which a connection may be idle between two calls.
        proxies: networks whose addresses stand for many clients, and have no bound of their own.
    """

    total: int = 20_000
    per_address: int = 2_000
    keep_alive: float = 75.0
    proxies: tuple[Network, ...] = ()


class Address(Generic[OwnerT]):
    """An address, and the places of its clients.

    Attributes:
        name: an IPv4 address, or the /64 network of an IPv6 one; empty for one that stands for many clients.
        held: how many places its clients have.
        resting: the places that may be taken away, that of the longest rest first: of strangers, and of known clients.
    """

    __slots__ = ("held", "name", "resting")

    def __init__(self, name: str) -> None:
        self.name = name
        self.held = 0
        self.resting: tuple[dict[Place[OwnerT], None], dict[Place[OwnerT], None]] = ({}, {})


class Place(Generic[OwnerT]):
    r"""A client's place in an ``AddressTable``.

    ::

        busy --rest--> resting --wake--> busy
                          \--another client needs it--> evicted

    Args:
        owner: the client.
        address: the client's.

    Attributes:
        owner: as given.
        address: as given.
        known: whether the client has authenticated.
    """

    __slots__ = ("_pool", "address", "known", "owner")

    def __init__(self, owner: OwnerT, address: Address[OwnerT]) -> None:
        self.owner = owner
        self.address = address
        self.known = False
        self._pool: dict[Place[OwnerT], None] | None = None

    @property
    def resting(self) -> bool:
        """Whether it may be taken away."""
        return self._pool is not None

    def rest(self) -> None:
        """Begin a rest."""
        if self._pool is None:
            self._pool = self.address.resting[self.known]
            self._pool[self] = None

    def wake(self) -> None:
        """End a rest."""
        if self._pool is not None:
            del self._pool[self]
            self._pool = None


class AddressTable(Generic[OwnerT]):
    """The places of at most ``total`` clients, of which one address has at most ``per_address``.

    A client that finds no place takes that of another one that rests: first of strangers, then of known clients; of the
    address with the most places the one that has rested longest. Behind an exempt network, such as a proxy's, there are
    many clients: its addresses have no bound of their own, and give up a place after all others.

    Args:
        total: the most places.
        per_address: the most of one address.
        exempt: networks of proxies. Loopback is exempt, too.

    Attributes:
        total: as given.
        held: places that are taken.
    """

    __slots__ = ("_addresses", "_exempt", "_levels", "_per_address", "_shared", "_top", "held", "total")

    def __init__(self, total: int, per_address: int, exempt: Sequence[Network] = ()) -> None:
        if total < 1 or per_address < 1:
            raise ValueError(f"total and per_address must be positive, got {total} and {per_address}")
        self.total = total
        self.held = 0
        self._per_address = per_address
        self._exempt = exempt
        self._addresses: dict[str, Address[OwnerT]] = {}
        self._levels: dict[int, dict[Address[OwnerT], None]] = {}  # by the number of places; never an empty one
        self._top = 0
        self._shared: Address[OwnerT] = Address("")

    def address_of(self, host: str) -> Address[OwnerT]:
        """Return the address of a client's host; the shared one for loopback, a proxy, and what is no IP address."""
        name = address_name(host, self._exempt)
        return self._shared if not name else self._addresses.get(name) or Address(name)

    def is_full(self, address: Address[OwnerT]) -> bool:
        """Whether a client of ``address`` needs another one's place."""
        return self.held >= self.total or self._is_at_bound(address)

    def add(self, owner: OwnerT, address: Address[OwnerT]) -> Place[OwnerT]:
        """Return a place for a new client. Where the table is full, one has to be evicted before."""
        self.held += 1
        if address.name:
            self._addresses[address.name] = address
        self._move(address, address.held + 1)
        return Place(owner, address)

    def remove(self, place: Place[OwnerT]) -> None:
        """Remove a client, once."""
        place.wake()
        self.held -= 1
        address = place.address
        self._move(address, address.held - 1)
        if not address.held:
            self._addresses.pop(address.name, None)

    def victim(self, address: Address[OwnerT]) -> Place[OwnerT] | None:
        """Return the place that a new client of ``address`` may have; None where none rests."""
        if self._is_at_bound(address):
            return _longest(address, known=False) or _longest(address, known=True)
        for known in (False, True):
            place = self._of_largest(known=known) or _longest(self._shared, known=known)
            if place is not None:
                return place
        return None

    def _is_at_bound(self, address: Address[OwnerT]) -> bool:
        return bool(address.name) and address.held >= self._per_address

    def _of_largest(self, *, known: bool) -> Place[OwnerT] | None:
        """Return the longest resting place of the largest address that has one; looks at ``WALK`` addresses."""
        passed: list[Address[OwnerT]] = []
        found: Place[OwnerT] | None = None
        level = self._top
        while level and found is None and len(passed) < WALK:
            for address in self._levels.get(level, ()):
                found = _longest(address, known=known)
                if found is not None or len(passed) >= WALK:
                    break
                passed.append(address)
            level -= 1
        for address in passed:  # the next walk looks at others
            addresses = self._levels[address.held]
            del addresses[address]
            addresses[address] = None
        return found

    def _move(self, address: Address[OwnerT], held: int) -> None:
        if not address.name:
            address.held = held
            return
        before = self._levels.get(address.held)
        if before is not None:
            before.pop(address, None)
            if not before:
                del self._levels[address.held]
        address.held = held
        if held:
            self._levels.setdefault(held, {})[address] = None
        self._top = max(self._top, held)
        while self._top and self._top not in self._levels:
            self._top -= 1


def address_name(host: str, exempt: Sequence[Network] = ()) -> str:
    """Return what counts as one address; empty for loopback, an exempt network, and what is no IP address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback or any(address in network for network in exempt):
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))


def _longest(address: Address[OwnerT], *, known: bool) -> Place[OwnerT] | None:
    return next(iter(address.resting[known]), None)
