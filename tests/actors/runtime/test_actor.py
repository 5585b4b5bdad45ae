import asyncio
from typing import Any

import pytest

from actors.runtime import Actor, Deferred, PipedTask, Promise, Timer, handles
from actors.runtime.testing import ManualClock, TestSystem
from protocol.errors import ActorFailed, ActorStopped, AskCycle, AskTimeout, NotFound, Overloaded
from protocol.message import Message


class Fetch(Message[str], frozen=True):
    pass


class Fetched(Message[None], frozen=True):
    what: str


class Failed(Message[None], frozen=True):
    why: str


class Cancel(Message[None], frozen=True):
    pass


class Tick(Message[None], frozen=True):
    n: int


class Crash(Message[None], frozen=True):
    pass


Messages = Fetch | Fetched | Failed | Cancel | Tick | Crash


class Fetcher(Actor[Messages]):
    """Does long work in each of the ways there are."""

    backoff = 0.0
    outstanding_limit = 4

    def __init__(self, mode: str, work: asyncio.Future[str], seen: list[str]) -> None:
        self.mode = mode
        self.future = work
        self.seen = seen
        self.pipes: list[PipedTask[Any]] = []
        self.promises: list[Promise[str]] = []
        self.timers: list[Timer] = []

    async def fetch(self) -> str:
        try:
            return await self.future
        except asyncio.CancelledError:
            self.seen.append("work cancelled")
            raise

    @handles(Fetch)
    async def start(self, message: Fetch) -> str | Deferred[str]:
        if self.mode == "defer":
            return self.defer(self.fetch())
        if self.mode == "promise":
            promise = self.promise(Fetch)
            promise.on_abandon(lambda: self.ref.post(Failed("abandoned")))
            self.promises.append(promise)
            return promise
        self.pipes.append(self.pipe(self.fetch(), Fetched, lambda error: Failed(type(error).__name__)))
        return "started"

    @handles(Fetched)
    async def fetched(self, message: Fetched) -> None:
        self.seen.append(f"fetched {message.what}")
        for promise in self.promises:
            promise.resolve(message.what)

    @handles(Failed)
    async def failed(self, message: Failed) -> None:
        self.seen.append(f"failed {message.why}")
        for promise in self.promises:
            promise.reject(NotFound(message.why) if message.why == "missing" else OSError(message.why))

    @handles(Cancel)
    async def cancel(self, message: Cancel) -> None:
        for pipe in self.pipes:
            pipe.cancel()
        for timer in self.timers:
            timer.cancel()

    @handles(Tick)
    async def tick(self, message: Tick) -> None:
        self.seen.append(f"tick {message.n}")
        if message.n > 0:
            self.timers.append(self.schedule(1.0, Tick(message.n - 1)))

    @handles(Crash)
    async def crash(self, message: Crash) -> None:
        raise ValueError("crash")


def pending() -> "asyncio.Future[str]":
    """Return work that is not done yet."""
    return asyncio.get_running_loop().create_future()


async def test_pipe_brings_the_result() -> None:
    """The result of piped work comes back as a message, after the handler has replied."""
    work, seen = pending(), list[str]()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Fetcher("pipe", work, seen), name="fetcher")
        assert await ref.ask(Fetch(), timeout=1) == "started"
        work.set_result("it")
        await system.settle()
    assert seen == ["fetched it"]


async def test_pipe_brings_the_failure() -> None:
    """An exception of piped work comes back as a message, and does not restart the actor."""
    work, seen = pending(), list[str]()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Fetcher("pipe", work, seen), name="fetcher")
        await ref.tell(Fetch())
        work.set_exception(OSError("no disk"))
        await system.settle()
        assert system.children()[0].restarts == 0
    assert seen == ["failed OSError"]


async def test_pipe_whose_work_is_cancelled_from_within() -> None:
    """Piped work that somebody else cancels is a failure like any other: the message comes."""
    work, seen = pending(), list[str]()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Fetcher("pipe", work, seen), name="fetcher")
        await ref.ask(Fetch(), timeout=1)
        await system.settle()
        work.cancel()
        await system.settle()
    assert seen == ["work cancelled", "failed RequestCancelled"]


async def test_cancelled_pipe_brings_nothing() -> None:
    """After ``cancel`` nothing comes, and the work is cancelled."""
    work, seen = pending(), list[str]()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Fetcher("pipe", work, seen), name="fetcher")
        await ref.ask(Fetch(), timeout=1)
        await system.settle()
        await ref.ask(Cancel(), timeout=1)
        await system.settle()
    assert seen == ["work cancelled"]


async def test_pipe_cancelled_after_its_result_was_queued() -> None:
    """``cancel`` also takes back a result that is in the mailbox already."""
    gate, seen = asyncio.Event(), list[str]()

    class Slow(Actor[Fetch | Fetched | Failed]):
        @handles(Fetch)
        async def start(self, message: Fetch) -> str:
            pipe = self.pipe(asyncio.sleep(0, "it"), Fetched, lambda error: Failed(str(error)))
            await gate.wait()
            pipe.cancel()
            return "cancelled"

        @handles(Fetched)
        async def fetched(self, message: Fetched) -> None:
            seen.append("fetched")

        @handles(Failed)
        async def failed(self, message: Failed) -> None:
            seen.append("failed")

    async with TestSystem() as system:
        ref = system.spawn(Slow, name="slow")
        asked = system.background(ref.ask(Fetch(), timeout=1), name="asker")
        await system.settle()
        assert system.children()[0].depth == 1
        gate.set()
        assert await asked == "cancelled"
        await system.settle()
    assert seen == []


async def test_pipe_with_a_broken_ok_fails_the_actor() -> None:
    """An ``ok`` that raises is a failure of the actor."""
    told = list[str]()

    class Broken(Actor[Fetch | Failed]):
        restarts = 0

        @handles(Fetch)
        async def start(self, message: Fetch) -> str:
            self.pipe(asyncio.sleep(0, "x"), lambda found: Failed(str(int(found))), lambda error: Failed(str(error)))
            return "started"

        @handles(Failed)
        async def failed(self, message: Failed) -> None: ...

    async with TestSystem(on_escalate=lambda _, error: told.append(type(error).__name__)) as system:
        await system.spawn(Broken, name="broken").ask(Fetch(), timeout=1)
        await system.settle()
    assert told == ["ValueError"]


async def test_result_of_a_pipe_is_let_into_a_full_mailbox() -> None:
    """What the actor ordered itself is never lost for lack of room."""
    work, seen = pending(), list[str]()

    class Small(Fetcher):
        capacity = 1
        overflow = "reject"

    async with TestSystem() as system:
        ref = system.spawn(lambda: Small("pipe", work, seen), name="small")
        await ref.ask(Fetch(), timeout=1)
        work.set_result("it")
        ref.post(Tick(0))
        await system.settle()
    assert sorted(seen) == ["fetched it", "tick 0"]


async def test_orders_are_bounded() -> None:
    """More orders than the actor allows raise ``Overloaded``, which its asker gets, and the work never runs."""
    work, seen = pending(), list[str]()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Fetcher("pipe", work, seen), name="fetcher")
        for _ in range(4):
            await ref.ask(Fetch(), timeout=1)
        with pytest.raises(Overloaded):
            await ref.ask(Fetch(), timeout=1)


async def test_deferred_reply() -> None:
    """A deferred reply comes when its work is done, and the actor handles other messages meanwhile."""
    work, seen = pending(), list[str]()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Fetcher("defer", work, seen), name="fetcher")
        asked = system.background(ref.ask(Fetch(), timeout=5), name="asker")
        await system.settle()
        await ref.ask(Tick(0), timeout=1)
        assert not asked.done()
        work.set_result("it")
        assert await asked == "it"


async def test_deferred_failures() -> None:
    """A domain error of deferred work is the reply; anything else is ``ActorFailed``; neither restarts the actor."""
    async with TestSystem() as system:
        for name, error, expected in [("one", NotFound("gone"), NotFound), ("two", OSError("no disk"), ActorFailed)]:
            work = pending()
            ref = system.spawn(lambda work=work: Fetcher("defer", work, []), name=name)  # type: ignore[misc]
            asked = system.background(ref.ask(Fetch(), timeout=5), name="asker")
            await system.settle()
            work.set_exception(error)
            with pytest.raises(expected):
                await asked
        assert [child.restarts for child in system.children()] == [0, 0]


@pytest.mark.parametrize("leave", ["cancel", "deadline"])
async def test_asker_that_leaves_cancels_deferred_work(leave: str) -> None:
    """When the asker is cancelled or out of time, the work is cancelled."""
    seen = list[str]()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Fetcher("defer", pending(), seen), name="fetcher")
        asked = system.background(ref.ask(Fetch(), timeout=5), name="asker")
        await system.settle()
        if leave == "cancel":
            asked.cancel()
        await system.advance(5)
        with pytest.raises((AskTimeout, asyncio.CancelledError)):
            await asked
        assert seen == ["work cancelled"]
        assert system.late_replies == 0


async def test_deferred_work_survives_a_restart_and_not_a_stop() -> None:
    """Deferred work owes its reply to an asker, so only the end of the actor ends it."""
    work = pending()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Fetcher("defer", work, []), name="fetcher")
        first = system.background(ref.ask(Fetch(), timeout=5), name="first")
        await system.settle()
        await ref.tell(Crash())
        await system.settle()
        work.set_result("it")
        assert await first == "it"
    async with TestSystem() as system:
        ref = system.spawn(lambda: Fetcher("defer", pending(), []), name="fetcher")
        second = system.background(ref.ask(Fetch(), timeout=5), name="second")
        await system.settle()
        await system.stop(ref)
        with pytest.raises(ActorStopped):
            await second


async def test_drain_waits_for_deferred_work() -> None:
    """A draining actor ends when its last deferred reply has been given."""
    work = pending()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Fetcher("defer", work, []), name="fetcher")
        asked = system.background(ref.ask(Fetch(), timeout=5), name="asker")
        await system.settle()
        draining = system.background(system.drain(ref, deadline=5), name="drainer")
        await system.settle()
        assert not draining.done()
        work.set_result("it")
        await draining
        assert await asked == "it"


async def test_promise_is_resolved_by_another_handler() -> None:
    """A promise is kept by whichever handler resolves it; only the first time counts."""
    async with TestSystem() as system:
        ref = system.spawn(lambda: Fetcher("promise", pending(), []), name="fetcher")
        asked = system.background(ref.ask(Fetch(), timeout=5), name="asker")
        await system.settle()
        await ref.tell(Fetched("it"))
        await ref.tell(Fetched("something else"))
        assert await asked == "it"
        await system.settle()
        assert system.late_replies == 0


@pytest.mark.parametrize(("why", "expected"), [("missing", NotFound), ("broken", ActorFailed)])
async def test_promise_is_rejected(why: str, expected: type[Exception]) -> None:
    """A domain error rejects a promise as it is, any other as ``ActorFailed``."""
    async with TestSystem() as system:
        ref = system.spawn(lambda: Fetcher("promise", pending(), []), name="fetcher")
        asked = system.background(ref.ask(Fetch(), timeout=5), name="asker")
        await system.settle()
        await ref.tell(Failed(why))
        with pytest.raises(expected):
            await asked


async def test_promise_knows_when_it_is_abandoned() -> None:
    """An asker that gives up makes the promise abandoned and calls back; keeping it then is a late reply."""
    seen = list[str]()
    actor = Fetcher("promise", pending(), seen)
    async with TestSystem() as system:
        ref = system.spawn(lambda: actor, name="fetcher")
        asked = system.background(ref.ask(Fetch(), timeout=5), name="asker")
        await system.settle()
        promise = actor.promises[0]
        abandoned = [promise.abandoned]
        promise.on_abandon(lambda: abandoned.append(promise.abandoned))
        await system.advance(5)
        with pytest.raises(AskTimeout):
            await asked
        assert abandoned == [False, True]
        assert seen == ["failed abandoned"]
        assert system.late_replies == 1


async def test_promises_end_with_the_instance() -> None:
    """The asker of a promise gets ``ActorFailed`` when the actor restarts."""
    async with TestSystem() as system:
        ref = system.spawn(lambda: Fetcher("promise", pending(), []), name="fetcher")
        asked = system.background(ref.ask(Fetch(), timeout=5), name="asker")
        await system.settle()
        await ref.tell(Crash())
        with pytest.raises(ActorFailed):
            await asked


async def test_promise_for_a_tell() -> None:
    """A promise made for a tell may be kept; nobody hears it, and it is never abandoned."""
    actor = Fetcher("promise", pending(), [])
    async with TestSystem() as system:
        ref = system.spawn(lambda: actor, name="fetcher")
        await ref.tell(Fetch())
        await ref.tell(Fetched("it"))
        await system.settle()
        assert not actor.promises[0].abandoned
        assert system.late_replies == 0


async def test_timers() -> None:
    """A scheduled message comes at its time by the system's clock, through the mailbox."""
    seen = list[str]()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Fetcher("", pending(), seen), name="fetcher")
        await ref.tell(Tick(2))
        await system.advance(0.9)
        assert seen == ["tick 2"]
        await system.advance(0.1)
        assert seen == ["tick 2", "tick 1"]
        await system.advance(10)
        assert seen == ["tick 2", "tick 1", "tick 0"]


async def test_cancelled_timer() -> None:
    """A cancelled timer brings nothing."""
    seen = list[str]()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Fetcher("", pending(), seen), name="fetcher")
        await ref.tell(Tick(1))
        await ref.ask(Cancel(), timeout=0.5)
        await system.advance(2)
    assert seen == ["tick 1"]


async def test_timers_end_with_the_instance() -> None:
    """A restart drops the timers of the instance that failed."""
    seen = list[str]()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Fetcher("", pending(), seen), name="fetcher")
        await ref.tell(Tick(1))
        await ref.tell(Crash())
        await system.advance(2)
    assert seen == ["tick 1"]


async def test_deferred_work_is_in_the_chain_until_its_reply() -> None:
    """Work on behalf of an ask can't ask those who wait for it, and may do so once they have their answer."""
    outcomes = list[str]()

    class Front(Actor[Fetch | Cancel]):
        @handles(Fetch)
        async def start(self, message: Fetch) -> str:
            return await back.ask(Fetch(), timeout=5)

        @handles(Cancel)
        async def nothing(self, message: Cancel) -> None: ...

    class Back(Actor[Fetch | Fetched | Failed]):
        @handles(Fetch)
        async def start(self, message: Fetch) -> str | Deferred[str]:
            if not outcomes:
                return self.defer(self.call())
            self.pipe(self.call(), Fetched, lambda error: Failed(str(error)))
            return "at once"

        async def call(self) -> str:
            try:
                await front.ask(Cancel(), timeout=5)
            except AskCycle:
                outcomes.append("cycle")
            else:
                outcomes.append("answered")
            return "done"

        @handles(Fetched)
        async def fetched(self, message: Fetched) -> None: ...

        @handles(Failed)
        async def failed(self, message: Failed) -> None: ...

    async with TestSystem() as system:
        front = system.spawn(Front, name="front")
        back = system.spawn(Back, name="back")
        assert await front.ask(Fetch(), timeout=5) == "done"
        assert await front.ask(Fetch(), timeout=5) == "at once"
        await system.settle()
    assert outcomes == ["cycle", "answered"]


async def test_reply_needs_a_message_at_hand() -> None:
    """Outside a handler there is nothing to defer or to promise a reply to."""
    caught = list[str]()

    class Early(Actor[Fetch]):
        async def started(self) -> None:
            for order in (lambda: self.promise(Fetch), lambda: self.defer(asyncio.sleep(0))):
                try:
                    order()
                except RuntimeError as error:
                    caught.append(str(error))

        @handles(Fetch)
        async def start(self, message: Fetch) -> str:
            return ""

    async with TestSystem() as system:
        system.spawn(Early, name="early")
        await system.settle()
    assert caught == ["there is no message at hand to reply to"] * 2


class Metronome(Actor[Tick | Cancel | Crash | Fetch]):
    """Beats every two seconds, and shows what it did."""

    backoff = 0.0
    outstanding_limit = 1

    def __init__(self, seen: list[float], gate: asyncio.Event | None = None) -> None:
        self.seen = seen
        self.gate = gate
        self.timer: Timer | None = None

    async def started(self) -> None:
        self.timer = self.every(2.0, Tick(1))

    @handles(Tick)
    async def tick(self, message: Tick) -> None:
        self.seen.append(self.system.clock.time())
        if self.gate is not None:
            await self.gate.wait()

    @handles(Cancel)
    async def cancel(self, message: Cancel) -> None:
        assert self.timer is not None
        self.timer.cancel()

    @handles(Crash)
    async def crash(self, message: Crash) -> None:
        raise ValueError("crash")

    @handles(Fetch)
    async def fetch(self, message: Fetch) -> str:
        self.every(1.0, Tick(2))
        return ""


async def test_periodic_timer() -> None:
    """The message comes after each interval until the timer is cancelled, and the timer counts as outstanding."""
    seen = list[float]()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Metronome(seen), name="metronome")
        await system.advance(7)
        assert seen == [2, 4, 6]
        with pytest.raises(Overloaded):
            await ref.ask(Fetch(), timeout=1)
        await ref.ask(Cancel(), timeout=1)
        await system.advance(10)
        assert await ref.ask(Fetch(), timeout=1) == ""
    assert seen == [2, 4, 6]


async def test_periodic_timer_never_piles_up() -> None:
    """While one message waits no other is sent; after that the beat is the old one."""
    seen, gate = list[float](), asyncio.Event()
    async with TestSystem() as system:
        system.spawn(lambda: Metronome(seen, gate), name="metronome")
        await system.advance(9)
        assert seen == [2]
        assert system.children()[0].depth == 1
        gate.set()
        await system.settle()
        assert seen == [2, 9]
        await system.advance(2)
        assert seen == [2, 9, 10]


async def test_cancelled_periodic_timer_takes_back_its_message() -> None:
    """A message that waits in the mailbox when the timer is cancelled does not arrive."""
    seen, gate = list[float](), asyncio.Event()
    actor = Metronome(seen, gate)
    async with TestSystem() as system:
        system.spawn(lambda: actor, name="metronome")
        await system.advance(5)
        assert actor.timer is not None
        actor.timer.cancel()
        actor.timer.cancel()
        gate.set()
        await system.advance(10)
    assert seen == [2]


async def test_periodic_timer_skips_what_a_busy_loop_has_missed() -> None:
    """A timer that fires late sends one message, and the next one at the next multiple of its interval."""
    seen, clock = list[float](), ManualClock()
    async with TestSystem(clock=clock) as system:
        system.spawn(lambda: Metronome(seen), name="metronome")
        await system.settle()
        clock._now = 7.0
        for until in (7.0, 7.9, 8.0):
            while clock.step(until):
                await system.settle()
    assert seen == [7, 8]


@pytest.mark.parametrize("verb", ["restart", "stop"])
async def test_periodic_timer_ends_with_the_instance(verb: str) -> None:
    """A restart drops the timer of the instance that failed, and the end of the actor drops it too."""
    seen = list[float]()
    async with TestSystem() as system:
        ref = system.spawn(lambda: Metronome(seen), name="metronome")
        await system.advance(1)
        if verb == "restart":
            await ref.tell(Crash())
        else:
            await system.stop(ref)
        await system.advance(2.5)
    assert seen == ([3] if verb == "restart" else [])


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
async def test_interval_is_checked(interval: float) -> None:
    """An interval that is no positive number of seconds is refused, and the error says the value."""
    caught = list[str]()

    class Wrong(Actor[Tick]):
        async def started(self) -> None:
            with pytest.raises(ValueError, match="must be a positive number") as error:
                self.every(interval, Tick(1))
            caught.append(str(error.value))

        @handles(Tick)
        async def tick(self, message: Tick) -> None: ...

    async with TestSystem() as system:
        system.spawn(Wrong, name="wrong")
        await system.settle()
    assert caught == [f"interval must be a positive number of seconds, got {interval}"]
