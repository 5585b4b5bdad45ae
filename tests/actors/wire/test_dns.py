import asyncio
import socket
from typing import Any

import pytest

from actors.wire import dns as module
from actors.wire.dns import Names


class Lookup:
    """What a loop finds, and how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, names: Names) -> None:
        self.asked: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.error: OSError | None = None
        names._loop = self  # type: ignore[assignment]
        loop = asyncio.get_running_loop()
        self.time = loop.time
        self.create_task = loop.create_task

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:  # noqa: ANN401 - the loop's own
        self.asked.append(host)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("192.0.2.1", "192.0.2.2")]


async def first(names: Names, host: str = "h") -> str:
    """The address that is tried first."""
    address = (await names.addresses(host, 80))[0][4][0]
    assert isinstance(address, str)
    return address


async def test_addresses_are_kept_and_taken_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host is looked up once, and then again when it was forgotten or kept for long enough."""
    names = Names()
    lookup = Lookup(monkeypatch, names)
    assert {await first(names), await first(names)} == {"192.0.2.1", "192.0.2.2"}
    assert lookup.asked == ["h"]
    names.forget("h", 80)
    await first(names)
    assert lookup.asked == ["h"] * 2
    monkeypatch.setattr(module, "ADDRESSES_KEPT", -1)
    names.forget("h", 80)
    await first(names)
    await first(names)
    assert lookup.asked == ["h"] * 4


async def test_so_many_hosts_are_kept_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is forgotten."""
    monkeypatch.setattr(module, "MAX_HOSTS", 2)
    names = Names()
    lookup = Lookup(monkeypatch, names)
    for host in ("a", "b", "c", "b", "c", "a"):
        await first(names, host)
    assert lookup.asked == ["a", "b", "c", "a"]
    assert len(names._kept) == 2


async def test_all_who_ask_meanwhile_wait_for_one_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """One who leaves does not end it for the others."""
    names = Names()
    lookup = Lookup(monkeypatch, names)
    lookup.go.clear()
    asking = [asyncio.ensure_future(first(names)) for _ in range(3)]
    await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.sleep(0)
    lookup.go.set()
    await asyncio.wait(asking)
    assert (asking[0].cancelled(), asking[1].done(), lookup.asked) == (True, True, ["h"])
    assert not names._asking


async def test_a_failure_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waited has it; whoever asks next looks again; where nobody waited any more it is nobody's."""
    names = Names()
    lookup = Lookup(monkeypatch, names)
    lookup.error = socket.gaierror()
    for _ in range(2):
        with pytest.raises(socket.gaierror):
            await first(names)
    assert lookup.asked == ["h", "h"]
    lookup.go.clear()
    leaving = asyncio.ensure_future(first(names))
    await asyncio.sleep(0)
    leaving.cancel()
    searches = [*names._asking.values()]
    lookup.go.set()
    await asyncio.wait(searches)
    assert leaving.cancelled()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_an_address_is_not_looked_up(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to find."""
    names = Names()
    lookup = Lookup(monkeypatch, names)
    assert await first(names, address) == address
    assert lookup.asked == []


async def test_closing_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search that nobody needs any more ends."""
    names = Names()
    lookup = Lookup(monkeypatch, names)
    lookup.go.clear()
    asking = asyncio.ensure_future(first(names))
    await asyncio.sleep(0)
    names.close()
    await asyncio.wait([asking])
    assert not names._asking
