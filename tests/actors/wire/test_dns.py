import asyncio
import socket
from typing import Any

import pytest

from actors.wire import dns as module
from actors.wire.dns import DnsCache


class Lookup:
    """An event loop with a scripted ``getaddrinfo`` that counts its calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cache: DnsCache) -> None:
        self.asked: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.error: OSError | None = None
        cache._loop = self  # type: ignore[assignment]
        loop = asyncio.get_running_loop()
        self.time = loop.time
        self.create_task = loop.create_task

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:  # noqa: ANN401 - the loop's own
        self.asked.append(host)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("192.0.2.1", "192.0.2.2")]


async def first(cache: DnsCache, host: str = "h") -> str:
    """Return the first of the host's addresses."""
    address = (await cache.addresses(host, 80))[0][4][0]
    assert isinstance(address, str)
    return address


async def test_addresses_are_kept_and_taken_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host is resolved once, and again after ``forget`` or after ``ADDRESS_TTL``; addresses rotate."""
    cache = DnsCache()
    lookup = Lookup(monkeypatch, cache)
    assert {await first(cache), await first(cache)} == {"192.0.2.1", "192.0.2.2"}
    assert lookup.asked == ["h"]
    cache.forget("h", 80)
    await first(cache)
    assert lookup.asked == ["h"] * 2
    monkeypatch.setattr(module, "ADDRESS_TTL", -1)
    cache.forget("h", 80)
    await first(cache)
    await first(cache)
    assert lookup.asked == ["h"] * 4


async def test_so_many_hosts_are_kept_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond ``MAX_HOSTS`` the oldest entry is dropped."""
    monkeypatch.setattr(module, "MAX_HOSTS", 2)
    cache = DnsCache()
    lookup = Lookup(monkeypatch, cache)
    for host in ("a", "b", "c", "b", "c", "a"):
        await first(cache, host)
    assert lookup.asked == ["a", "b", "c", "a"]
    assert len(cache._addresses) == 2


async def test_all_who_ask_meanwhile_wait_for_one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Concurrent callers share one lookup; cancelling one does not cancel it for the others."""
    cache = DnsCache()
    lookup = Lookup(monkeypatch, cache)
    lookup.go.clear()
    asking = [asyncio.ensure_future(first(cache)) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    lookup.go.set()
    await asyncio.wait(asking)
    assert (asking[0].cancelled(), asking[1].done(), lookup.asked) == (True, True, ["h"])
    assert not cache._lookups


async def test_a_failure_is_not_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure is raised to its callers and not cached; without callers it is dropped."""
    cache = DnsCache()
    lookup = Lookup(monkeypatch, cache)
    lookup.error = socket.gaierror()
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await first(cache)
    assert lookup.asked == ["h", "h"]
    lookup.go.clear()
    leaving = asyncio.ensure_future(first(cache))
    await asyncio.sleep(0)
    leaving.cancel()
    searches = [*cache._lookups.values()]
    lookup.go.set()
    await asyncio.wait(searches)
    assert leaving.cancelled()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_an_address_is_not_looked_up(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An IP address is returned without a lookup."""
    cache = DnsCache()
    lookup = Lookup(monkeypatch, cache)
    assert await first(cache, address) == address
    assert lookup.asked == []


async def test_closing_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing cancels the running lookups."""
    cache = DnsCache()
    lookup = Lookup(monkeypatch, cache)
    lookup.go.clear()
    asking = asyncio.ensure_future(first(cache))
    await asyncio.sleep(0)
    cache.close()
    await asyncio.wait([asking])
    assert not cache._lookups
