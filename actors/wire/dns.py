"""The addresses of hosts, kept for a while."""

import asyncio
import socket
from functools import partial
from typing import Final

from aiohappyeyeballs import AddrInfoType

ADDRESSES_KEPT: Final = 300  # seconds
MAX_HOSTS: Final = 256  # whose addresses are kept; beyond them the first is forgotten

Key = tuple[str, int]


class Names:
    """Looks hosts up: each once for all who ask meanwhile, and again when its addresses have been kept long enough.

    Who asks next gets them in another order, so that connections spread over all of a host's addresses.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._kept: dict[Key, tuple[float, list[AddrInfoType]]] = {}
        self._asking: dict[Key, asyncio.Task[list[AddrInfoType]]] = {}

    async def addresses(self, host: str, port: int) -> list[AddrInfoType]:
        """Return the addresses of ``host``. Being cancelled does not end the search for others.

        Raises:
            OSError: there are none.
            ValueError: this can be no host's name.
        """
        key = (host, port)
        kept = self._kept.get(key)
        if kept is not None and kept[0] >= self._loop.time():
            found = kept[1]
        else:
            found = _literal(host, port) or await asyncio.shield(self._search(key))
        found.append(found.pop(0))
        return list(found)

    def forget(self, host: str, port: int) -> None:
        """Look the host up again when it is next asked for."""
        self._kept.pop((host, port), None)

    def close(self) -> None:
        """Wait for no answer any longer."""
        for task in self._asking.values():
            task.cancel()

    def _search(self, key: Key) -> "asyncio.Task[list[AddrInfoType]]":
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = self._loop.create_task(self._look_up(key))
            task.add_done_callback(partial(self._searched, key))
        return task

    def _searched(self, key: Key, task: "asyncio.Task[list[AddrInfoType]]") -> None:
        """Forget the search; its failure is nobody's where all who asked have left."""
        del self._asking[key]
        if not task.cancelled():
            task.exception()

    async def _look_up(self, key: Key) -> list[AddrInfoType]:
        addresses = await self._loop.getaddrinfo(*key, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found: list[AddrInfoType] = [*addresses]
        self._kept.pop(key, None)
        if len(self._kept) >= MAX_HOSTS:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = self._loop.time() + ADDRESSES_KEPT, found
        return found


def _literal(host: str, port: int) -> list[AddrInfoType]:
    """Return the address that ``host`` is; none for a name, which is not looked up."""
    try:
        return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)]
    except socket.gaierror:
        return []
