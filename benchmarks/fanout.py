"""One stream to 1,000 WebSockets: the whole service against other servers.

Every side sends the same events at the same fixed times, and every client has to receive each of them, in order.

* **send_str loop**: aiohttp; the event is encoded once, and each socket gets it by ``await socket.send_str(text)``.
* **bare write**: the floor: encoded frames by one ``transport.write`` a socket and tick, and nothing else. Its cost is
  nearly all the kernel's: where each tick is sent by itself, no ratio can be much better than this side's.
* **websockets**: ``broadcast`` of that package. **picows**: ``send`` for each socket. **python-socketio**: ``emit``.
* **tidegate**: the whole service: a request was submitted over HTTP, the upstream sends the tick's events in one write,
  they become entries of the request's log, and the hub delivers them to the subscribed sockets. So only our figure
  includes reading the upstream.
* **tidegate, batch**: the same, to clients that accept several events in one message.

The first figure is the server's CPU time (all threads) in microseconds for one event to one socket, from before the
first tick until the last socket has the last event; ``cheaper`` is the baseline's cost over ours. The second is the
99th percentile of the delay from an event's due time until a client has read it, over all events and sockets; most of
the delay is the time for writing to the sockets before. The clients are raw readers in a process of their own. A server
that can't keep up falls behind further with each tick, which its percentile shows. With ten ticks a second each tick
ends before the next begins: a server that is behind then can't save work by sending two ticks in one write.

A quick run has fewer ticks, not fewer sockets: with few sockets the work done once for all of them has too much weight.
A server that is not installed is left out, with a note.
"""

import asyncio
import importlib.util
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec

from benchmarks.children import Child, child
from benchmarks.harness import Comparison, Goal, Plan, Result, Row, Sample, interleave
from benchmarks.limits import affordable_sockets

NAME: Final = "fanout"
KEY: Final = "bench-key-0123456789"
SOCKETS: Final = 1000
LOOP: Final = "send_str loop"
OURS: Final = "tidegate"
BATCH: Final = "tidegate, batch"
BROADCAST: Final = "websockets"
LEAD: Final = 1  # entries of a log before its first event


class Hub(NamedTuple):
    """A server to compare with.

    Attributes:
        module: the module of its process.
        package: the package that it needs.
        path: the path of its sockets.
        first: the first message of a client.
        ack: the start of the answer to it.
    """

    module: str
    package: str
    path: str = "/ws"
    first: str = ""
    ack: str = '{"type":"ack"'


class Case(NamedTuple):
    """A pattern of events.

    Attributes:
        events: events of a tick.
        interval: seconds from one tick to the next.
        ticks: the number of ticks.
        goal: the least ratio of the loop's cost to ours; None for no goal.
    """

    events: int
    interval: float
    ticks: int
    goal: float | None

    @property
    def label(self) -> str:
        """Return the server's name in the table."""
        return f"{self.events} event{'s' if self.events > 1 else ''} a tick, {self.events / self.interval:.0f}/s"


HUBS: Final = {
    LOOP: Hub("send_str", "aiohttp"),
    "bare write": Hub("bare_write", "uvloop"),
    BROADCAST: Hub("broadcast", "websockets"),
    "picows": Hub("picows_send", "picows"),
    "python-socketio": Hub("socketio_emit", "socketio", "/socket.io/?EIO=4&transport=websocket", "40", "40"),
}
CASES: Final = (Case(1, 0.1, 20, 1.4), Case(1, 0.02, 50, None), Case(16, 0.32, 5, 10.0))


def run(plan: Plan) -> Result:
    """Measure one event a tick, and sixteen."""
    return asyncio.run(_measure(plan))


async def _measure(plan: Plan) -> Result:
    sockets = affordable_sockets(SOCKETS)
    missing = {name: hub for name, hub in HUBS.items() if importlib.util.find_spec(hub.package) is None}
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        upstream = await enter(child("upstream"))
        service = await enter(child("tidegate", upstream=upstream.hello["address"] + "/v1"))
        hubs = {name: (hub, await enter(child(hub.module))) for name, hub in HUBS.items() if name not in missing}
        clients = await enter(child("sockets"))
        session = await enter(aiohttp.ClientSession(headers={"Authorization": f"Bearer {KEY}"}))

        async def theirs(hub: Hub, server: Child, case: Case) -> Sample:
            how: dict[str, Any] = {"path": hub.path, "first": hub.first, "ack": hub.ack}
            await clients.call("open", address=server.hello["address"], key="", count=sockets, **how)
            return await _deliver(server, clients, server, case, sockets, lead=0)

        async def ours(case: Case, *, batch: bool) -> Sample:
            request_id = await submit(session, service.hello["address"])
            first = subscribe_text(request_id, batch=batch)
            await clients.call("open", address=service.hello["address"], key=KEY, count=sockets, first=first)
            figures = await _deliver(service, clients, upstream, case, sockets, lead=LEAD)
            await upstream.call("finish")
            return figures

        rows: list[Row] = []
        for case in CASES:
            turn = case._replace(ticks=max(3, plan.scaled(case.ticks)))
            sides: dict[str, Callable[[], Awaitable[Sample]]] = {
                name: partial(theirs, hub, server, turn) for name, (hub, server) in hubs.items()
            }
            sides |= {OURS: partial(ours, turn, batch=False), BATCH: partial(ours, turn, batch=True)}
            rows += _rows(case, sockets, await interleave(plan.rounds, sides))
    notes = [f"{name} is left out: {hub.package} is not installed" for name, hub in missing.items()]
    return Result(tuple(rows), tuple(notes))


def _rows(case: Case, sockets: int, figures: dict[str, dict[str, list[float]]]) -> list[Row]:
    """Return the cost against the loop and against ``broadcast``, and the percentiles."""
    label = f"{sockets} sockets, {case.label}"
    cost = Comparison(
        benchmark=NAME,
        case=label,
        metric="us",
        unit="us CPU/event",
        baseline=LOOP,
        word="cheaper",
        goals={} if case.goal is None else {OURS: Goal("least", case.goal)},
    )
    rows = cost.rows(figures)
    if BROADCAST in figures:
        ahead = msgspec.structs.replace(
            cost, case=f"{label}, against {BROADCAST}", baseline=BROADCAST, goals={OURS: Goal("least", 1.0)}
        )
        rows += ahead.rows({name: figures[name] for name in (BROADCAST, OURS)})[1:]
    slowest = msgspec.structs.replace(cost, metric="p99", unit="ms p99", word="cost", goals={})
    return rows + slowest.rows(figures)


async def submit(session: aiohttp.ClientSession, address: str) -> str:
    """Submit a request whose answer comes in ticks, and return its id."""
    body = {
        "messages": [{"role": "user", "content": "bench-ticks"}],
        "model": "gpt-4o-mini",
        "options": {"dedupe": False},
    }
    async with session.post(address + "/api/requests", json=body) as answer:
        assert answer.status == 202, await answer.text()
        return str((await answer.json())["requestId"])


def subscribe_text(request_id: str, *, batch: bool = False) -> str:
    """Return the frame that subscribes to a request."""
    return msgspec.json.encode({"type": "subscribe", "id": 1, "requestId": request_id, "batch": batch}).decode()


async def _deliver(server: Child, clients: Child, source: Child, case: Case, sockets: int, *, lead: int) -> Sample:
    """Start the ticks of ``source``, wait for every client, and return the server's cost and the delays.

    ``lead`` is the number of entries in a log before the events.
    """
    await clients.call("all_have", offset=lead, limit=60.0)
    before = await server.call("usage")
    events = case.ticks * case.events
    start = float(await source.call("ticks", count=case.ticks, events=case.events, interval=case.interval))
    last = lead + events
    got: dict[str, Any] = await clients.call("all_have", offset=last, limit=60.0)
    after = await server.call("usage")
    assert got == {"clients": sockets, "least": last, "most": last, "gaps": 0}, f"{server.name}: {got}"
    due = [start + event // case.events * case.interval for event in range(events)]
    delays: dict[str, float] = await clients.call("delays", due=due, lead=lead)
    assert delays["count"] == events * sockets, f"{server.name}: {delays}"
    await clients.call("close")
    return {"us": (after["cpu"] - before["cpu"]) / events / sockets * 1e6, "p99": delays["p99"] * 1e3}
