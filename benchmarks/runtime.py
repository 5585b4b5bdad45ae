"""Actors' tell and ask against a bare ``asyncio.Queue`` and pykka, on asyncio's own loop and on uvloop.

What each side does, one message at a time from one sender, the same message object each time, every queue bounded to
``CAPACITY``:

* **bare queue**, tell: ``await queue.put(m)`` by one producer, ``await queue.get()`` by one consumer task that adds one
  to a counter. Ask: the producer makes a future, puts ``(m, future)`` and awaits the future, which the consumer
  resolves. Nothing else: no deadline, no dispatch, no supervision.
* **actor**: ``await ref.tell(m)`` and ``await ref.ask(m, timeout=30)`` to an actor whose handler does the same:
  mailbox, dispatch by type, deadline, ask chain and context included.
* **pykka**: ``ref.tell(m)`` and ``ref.ask(m)`` of a ``ThreadingActor``, whose actors are threads; a quarter as many.

A round of tells ends when the last one has been handled. Rates are per second of the process's CPU time, all threads
together, which on a quiet machine is wall time for the two that never wait; ratios are over the bare queue's rate:
above 1 is faster. The rows with several askers show a busy actor: each asker waits for its own reply.
"""

import asyncio
import importlib
import importlib.util
import time
from collections.abc import Callable
from typing import Any, Final

import uvloop

from actors.runtime import Actor, Ref, System, handles
from benchmarks.harness import Comparison, Goal, Plan, Result, Row, Sample, Side, interleave
from protocol.message import Message

NAME: Final = "runtime"
CAPACITY: Final = 1024
TELLS: Final = 200_000
ASKS: Final = 40_000
ASKERS: Final = 16
QUEUE: Final = "bare queue"
LOOPS: Final[dict[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


class Add(Message[int], frozen=True):
    """Add one, and reply with the sum."""


ADD: Final = Add()


class Counter(Actor[Add]):
    """Counts."""

    capacity = CAPACITY
    overflow = "wait"

    def __init__(self) -> None:
        self.count = 0

    @handles(Add)
    async def add(self, _message: Add) -> int:
        """Add one."""
        self.count += 1
        return self.count


def run(plan: Plan) -> Result:
    """Measure on each loop."""
    rows: list[Row] = []
    for name, factory in LOOPS.items():
        with asyncio.Runner(loop_factory=factory) as runner:
            rows += runner.run(_measure(plan, name))
    notes = [] if _pykka() else ["runtime: pykka is not installed, so it is left out (it comes with the dev extra)."]
    return Result(tuple(rows), tuple(notes))


async def _measure(plan: Plan, loop: str) -> list[Row]:
    tells, asks = plan.scaled(TELLS), plan.scaled(ASKS)
    async with System() as system:
        counter = system.spawn(Counter, name="counter")

        def sides(ours: Side, bare: Side, threads: Callable[[], Sample]) -> dict[str, Side]:
            found: dict[str, Side] = {QUEUE: bare, "actor": ours}
            if _pykka():

                async def pykka() -> Sample:
                    return threads()

                found["pykka"] = pykka
            return found

        told = await interleave(
            plan.rounds,
            sides(lambda: _tell(counter, tells), lambda: _put(tells), lambda: _pykka_tell(max(1, tells // 4))),
        )
        asked = await interleave(
            plan.rounds,
            sides(lambda: _ask(counter, asks, 1), lambda: _call(asks, 1), lambda: _pykka_ask(max(1, asks // 4))),
        )
        busy = await interleave(
            plan.rounds,
            {QUEUE: lambda: _call(asks, ASKERS), "actor": lambda: _ask(counter, asks, ASKERS)},
        )

    def rows(case: str, figures: dict[str, dict[str, list[float]]], goal: float | None) -> list[Row]:
        goals = {} if goal is None else {"actor": Goal("least", goal)}
        comparison = Comparison(
            benchmark=NAME,
            case=f"{case}, {loop}",
            metric="rate",
            unit="1/CPU s",
            baseline=QUEUE,
            word="rate",
            goals=goals,
        )
        return comparison.rows(figures)

    return [*rows("tell", told, 1.0), *rows("ask", asked, 0.8), *rows(f"ask, {ASKERS} askers", busy, None)]


async def _tell(ref: Ref[Add], count: int) -> Sample:
    before = await ref.ask(ADD, timeout=30)
    start = time.process_time()
    for _ in range(count):
        await ref.tell(ADD)
    total = await ref.ask(ADD, timeout=30)
    assert total == before + count + 1
    return {"rate": count / (time.process_time() - start)}


async def _ask(ref: Ref[Add], count: int, askers: int) -> Sample:
    async def asker(share: int) -> None:
        for _ in range(share):
            await ref.ask(ADD, timeout=30)

    return await _shared(asker, count, askers)


async def _put(count: int) -> Sample:
    queue: asyncio.Queue[Add] = asyncio.Queue(CAPACITY)
    done = asyncio.get_running_loop().create_future()

    async def consume() -> None:
        total = 0
        while total < count:
            await queue.get()
            total += 1
        done.set_result(total)

    consumer = asyncio.create_task(consume())
    start = time.process_time()
    for _ in range(count):
        await queue.put(ADD)
    await done
    elapsed = time.process_time() - start
    await consumer
    return {"rate": count / elapsed}


async def _call(count: int, askers: int) -> Sample:
    queue: asyncio.Queue[tuple[Add, asyncio.Future[int]]] = asyncio.Queue(CAPACITY)
    loop = asyncio.get_running_loop()

    async def consume() -> None:
        total = 0
        while True:
            _, reply = await queue.get()
            total += 1
            reply.set_result(total)

    async def asker(share: int) -> None:
        for _ in range(share):
            reply: asyncio.Future[int] = loop.create_future()
            await queue.put((ADD, reply))
            await reply

    consumer = asyncio.create_task(consume())
    try:
        return await _shared(asker, count, askers)
    finally:
        consumer.cancel()


async def _shared(asker: Callable[[int], Any], count: int, askers: int) -> Sample:
    share = max(1, count // askers)
    start = time.process_time()
    if askers == 1:
        await asker(share)
    else:
        async with asyncio.TaskGroup() as group:
            for _ in range(askers):
                group.create_task(asker(share))
    return {"rate": share * askers / (time.process_time() - start)}


def _pykka() -> bool:
    return importlib.util.find_spec("pykka") is not None


def _pykka_counter() -> Any:  # noqa: ANN401 - pykka may not be there
    pykka = importlib.import_module("pykka")

    class Threaded(pykka.ThreadingActor):  # type: ignore[name-defined, misc]
        def __init__(self) -> None:
            super().__init__()
            self.count = 0

        def on_receive(self, _message: object) -> int:
            self.count += 1
            return self.count

    return Threaded.start()


def _pykka_tell(count: int) -> Sample:
    ref = _pykka_counter()
    try:
        start = time.process_time()
        for _ in range(count):
            ref.tell(ADD)
        assert ref.ask(ADD) == count + 1
        return {"rate": count / (time.process_time() - start)}
    finally:
        ref.stop()


def _pykka_ask(count: int) -> Sample:
    ref = _pykka_counter()
    try:
        start = time.process_time()
        for _ in range(count):
            ref.ask(ADD)
        return {"rate": count / (time.process_time() - start)}
    finally:
        ref.stop()
