"""WebSocket clients that stop reading after they have subscribed."""

import asyncio
import socket
from collections import Counter
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from benchmarks.processes import control
from benchmarks.processes.sockets import ACK, AT_ONCE, Client, upgrade

RECEIVE_BUFFER: Final = 4096  # bytes; with this and small segments the kernels hold some 100 KiB, and not 4 MiB
SEGMENT: Final = 536  # bytes
EPOCH: Final = b'"epoch":"'
LOST: Final = "no close frame"


class StalledClient(Client):
    """One socket that can pause and resume reading."""

    def __init__(self, asks: bytes, first: bytes, ready: "asyncio.Future[None]") -> None:
        super().__init__(asks, first, ready, ACK)
        self.epoch = ""
        self.gone = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """Record the epoch, too."""
        if not self.epoch and (at := data.find(EPOCH)) >= 0:
            begin = at + len(EPOCH)
            self.epoch = data[begin : data.index(b'"', begin)].decode()
        super().data_received(data)

    def connection_lost(self, error: Exception | None) -> None:
        """Record the loss."""
        super().connection_lost(error)
        self.gone.set_result(None)

    def pause_reading(self) -> None:
        """Stop reading."""
        if self.transport is not None:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again."""
        if self.transport is not None:
            self.transport.resume_reading()


class StalledClients:
    """All sockets of this process. The first half resumes reading in time, the other half too late.

    Args:
        address: the service's URL.
        key: the service's key.
        request_id: the request that they follow.
    """

    def __init__(self, address: str, key: str, request_id: str) -> None:
        self._address = address
        self._key = key
        self._request_id = request_id
        self._clients: list[StalledClient] = []

    async def open(self, count: int) -> int:
        """Open ``count`` sockets that subscribe and then stop reading."""
        while len(self._clients) < count:
            some = min(AT_ONCE, count - len(self._clients))
            opened = await asyncio.gather(*(self._connect() for _ in range(some)))
            for client in opened:
                client.pause_reading()
            self._clients += opened
        return len(self._clients)

    async def resume(self, offset: int, limit: float) -> dict[str, int]:
        """Let the first half read again until ``offset``; return their gaps and merged frames."""
        clients = self._clients[: len(self._clients) // 2]
        waiting = [client.wait_for(offset) for client in clients]
        for client in clients:
            client.resume_reading()
        return await _arrived(clients, waiting, limit)

    async def close_codes(self, limit: float) -> dict[str, int]:
        """Let the second half read after the server closed them; return the number closed with each code."""
        clients = self._clients[len(self._clients) // 2 :]
        for client in clients:
            client.resume_reading()
        async with asyncio.timeout(limit):
            await asyncio.gather(*(client.gone for client in clients))
        return dict(Counter(str(client.code) if client.code else LOST for client in clients))

    async def reconnect(self, offset: int, limit: float) -> dict[str, int]:
        """Reconnect the second half from their positions, until ``offset``; return their gaps and merged frames."""
        old = self._clients[len(self._clients) // 2 :]
        reconnected: list[StalledClient] = []
        for begin in range(0, len(old), AT_ONCE):
            reconnected += await asyncio.gather(*(self._connect(client) for client in old[begin : begin + AT_ONCE]))
        return await _arrived(reconnected, [client.wait_for(offset) for client in reconnected], limit)

    async def _connect(self, before: StalledClient | None = None) -> StalledClient:
        loop = asyncio.get_running_loop()
        subscribe: dict[str, Any] = {"type": "subscribe", "id": 1, "requestId": self._request_id}
        if before is not None:
            subscribe["after"] = {"epoch": before.epoch, "offset": before.last}
        client = StalledClient(upgrade(self._address, self._key), msgspec.json.encode(subscribe), loop.create_future())
        client.last = 0 if before is None else before.last
        end = socket.socket()
        end.setblocking(False)  # noqa: FBT003 - it takes no keyword
        if before is None:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        where = urlsplit(self._address)
        await loop.sock_connect(end, (where.hostname, where.port))
        await loop.create_connection(lambda: client, sock=end)
        await client.ready
        return client


async def _arrived(clients: list[StalledClient], waiting: "list[asyncio.Future[None]]", limit: float) -> dict[str, int]:
    async with asyncio.timeout(limit):
        await asyncio.gather(*waiting)
    return {
        "clients": len(clients),
        "gaps": sum(client.gaps for client in clients),
        "merged": sum(client.merged > 0 for client in clients),
    }


async def main() -> None:
    """Run the parent's commands until it ends."""
    clients = StalledClients(**control.options())
    await control.serve(
        {}, open=clients.open, resume=clients.resume, close_codes=clients.close_codes, reconnect=clients.reconnect
    )


if __name__ == "__main__":
    control.run(main())
