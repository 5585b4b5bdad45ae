"""How many connections the service takes, and how many are left: of connections, and of descriptors."""

from collections.abc import Callable
from typing import Any, Final, Protocol, runtime_checkable

from aiohttp import web

from service.addresses import AddressTable
from service.descriptors import Descriptors

FEW: Final = 0.1  # of the connections; with fewer left health is degraded


@runtime_checkable
class ClientConnection(Protocol):
    """A client's connection, as its handler sees it.

    Attributes:
        on_stall: is called instead of closing the connection when its client takes nothing.
    """

    on_stall: Callable[[], None] | None

    def expose(self, on_evict: Callable[[], None]) -> None:
        """Let the connection be evicted although a call runs; ``on_evict`` then ends it."""

    def protect(self) -> None:
        """End what ``expose`` began: the client has authenticated."""


class Capacity:
    """The room for connections and descriptors.

    Args:
        table: the places of all connections.
        descriptors: the limit of this process.
    """

    def __init__(self, table: AddressTable[Any], descriptors: Descriptors) -> None:
        self._table = table
        self._descriptors = descriptors

    @property
    def held(self) -> int:
        """Connections that are open."""
        return self._table.held

    def status(self) -> tuple[bool, str]:
        """Return whether there is enough room, and what is left, in words."""
        table, descriptors = self._table, self._descriptors
        left, free = table.total - table.held, descriptors.left()
        words = f"{left} of {table.total} connections left"
        if free is not None:
            words += f", {free} of {descriptors.limit} descriptors"
        return left >= table.total * FEW and not descriptors.few(free), words


CAPACITY: Final = web.AppKey("capacity", Capacity)
