"""DNS cache."""

import asyncio
import socket
from functools import partial
from typing import Final

from aiohappyeyeballs import AddrInfoType

ADDRESS_TTL: Final = 300  # seconds
MAX_HOSTS: Final = 256  # in the cache; beyond them the oldest entry is dropped

Key = tuple[str, int]


class DnsCache:
    """Caches the addresses of hosts for ``ADDRESS_TTL`` seconds.

    Concurrent callers share one lookup. Each call returns the addresses rotated by one, so that connections spread over
    all of a host's addresses.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._addresses: dict[Key, tuple[float, list[AddrInfoType]]] = {}
        self._lookups: dict[Key, asyncio.Task[list[AddrInfoType]]] = {}

    async def addresses(self, host: str, port: int) -> list[AddrInfoType]:
        """Return the addresses of ``host``. Cancelling one caller does not cancel the lookup for the others.

        Raises:
            OSError: the host has no address.
            ValueError: the host's name is not valid.
        """
        key = (host, port)
        cached = self._addresses.get(key)
        if cached is not None and cached[0] >= self._loop.time():
            found = cached[1]
        else:
            found = _literal(host, port) or await asyncio.shield(self._lookup(key))
        found.append(found.pop(0))
        return list(found)

    def forget(self, host: str, port: int) -> None:
        """Drop the host's entry: the next call looks it up again."""
        self._addresses.pop((host, port), None)

    def close(self) -> None:
        """Cancel the lookups that are running."""
        for task in self._lookups.values():
            task.cancel()

    def _lookup(self, key: Key) -> "asyncio.Task[list[AddrInfoType]]":
        task = self._lookups.get(key)
        if task is None:
            task = self._lookups[key] = self._loop.create_task(self._resolve(key))
            task.add_done_callback(partial(self._on_resolved, key))
        return task

    def _on_resolved(self, key: Key, task: "asyncio.Task[list[AddrInfoType]]") -> None:
        """Drop the task. Its failure counts as seen, also where every caller has been cancelled."""
        del self._lookups[key]
        if not task.cancelled():
            task.exception()

    async def _resolve(self, key: Key) -> list[AddrInfoType]:
        addresses = await self._loop.getaddrinfo(*key, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        found: list[AddrInfoType] = [*addresses]
        self._addresses.pop(key, None)
        if len(self._addresses) >= MAX_HOSTS:
            del self._addresses[next(iter(self._addresses))]
        self._addresses[key] = self._loop.time() + ADDRESS_TTL, found
        return found


def _literal(host: str, port: int) -> list[AddrInfoType]:
    """Return the address that ``host`` is; nothing for a name, which is not resolved here."""
    try:
        return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)]
    except socket.gaierror:
        return []
