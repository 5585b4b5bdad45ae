"""Test doubles: a manual clock, a system that fails on dead letters, and probes that stand for actors."""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from types import TracebackType
from typing import Any, Final, Generic, TypeVar, TypeVarTuple, get_origin

from opentelemetry.trace import TracerProvider

from actors.runtime.actor import Actor
from actors.runtime.cell import BUDGET
from actors.runtime.clock import Clock
from actors.runtime.handlers import Handlers
from actors.runtime.promise import Promise
from actors.runtime.ref import Ref
from actors.runtime.system import System
from protocol.message import AnyMessage, Replies

M = TypeVar("M")
Q = TypeVar("Q", bound=AnyMessage)
R = TypeVar("R")
Ts = TypeVarTuple("Ts")

PATIENCE: Final = 5.0  # seconds of real time in which an expected message has to come
QUIET: Final = BUDGET + 16  # passes of the loop without a change: more than a busy actor takes before it shows one
PASSES: Final = 20_000  # passes of the loop after which actors that are still busy are a failure


class ManualHandle:
    """A call scheduled on a manual clock."""

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], object]) -> None:
        self.call: Callable[[], object] | None = call

    def cancel(self) -> None:
        """Cancel the call."""
        self.call = None


class ManualClock:
    """A clock that moves only when it is told to.

    Args:
        start: the time at which it starts, in seconds.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._now = start
        self._calls: list[tuple[float, int, ManualHandle]] = []
        self._order = count()

    def time(self) -> float:
        """Return the current time, in seconds."""
        return self._now

    def call_at(self, when: float, callback: Callable[[*Ts], object], /, *args: *Ts) -> ManualHandle:
        """Call ``callback(*args)`` when the clock is moved to ``when`` or beyond, in the order of the times."""
        handle = ManualHandle(lambda: callback(*args))
        heapq.heappush(self._calls, (when, next(self._order), handle))
        return handle

    def step(self, until: float) -> bool:
        """Make the next call due by ``until``, at its time; if there is none, move to ``until`` and return False."""
        while self._calls and self._calls[0][0] <= until:
            when, _, handle = heapq.heappop(self._calls)
            if handle.call is not None:
                self._now = max(self._now, when)
                handle.call()
                return True
        self._now = max(self._now, until)
        return False


class TestSystem(System):
    """A system for tests: its clock is a manual one, and a dead letter at the end is an ``AssertionError``.

    Args:
        allow_dead_letters: whether the test expects some.
        clock: another clock; ``advance`` works with the manual one only.
        on_escalate: as for any system.
        tracer_provider: as for any system.
    """

    __test__ = False

    def __init__(
        self,
        *,
        allow_dead_letters: bool = False,
        clock: Clock | None = None,
        on_escalate: Callable[[str, Exception], None] | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self.manual = ManualClock()
        super().__init__(
            clock=clock or self.manual, name="test", on_escalate=on_escalate, tracer_provider=tracer_provider
        )
        self.allow_dead_letters = allow_dead_letters

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.settle()
        finally:
            letters = list(self.dead_letters.last)
            await super().__aexit__(kind, error, trace)
        if kind is None and letters and not self.allow_dead_letters:
            raise AssertionError(f"dead letters: {letters}")

    async def settle(self) -> None:
        """Wait until nothing more happens by itself: all actors wait for a message, a reply, a timer or the world."""
        quiet, before = 0, None
        for _ in range(PASSES):
            await asyncio.sleep(0)
            now = self._activity()
            quiet = quiet + 1 if now == before else 0
            before = now
            if quiet >= QUIET:
                return
        raise AssertionError(f"the actors do not come to rest: {self.children()}")

    async def advance(self, seconds: float) -> None:
        """Move the time on, settling before, and after each call that became due."""
        until = self.manual.time() + seconds
        await self.settle()
        while self.manual.step(until):
            await self.settle()

    def probe(self, *kinds: type[M], name: str = "probe") -> "Probe[M]":
        """Start an actor that takes messages of these classes, and of their subclasses, and shows them to the test."""
        return Probe(self, kinds, name)

    def _activity(self) -> object:
        depth = sum(cell.mailbox.qsize() for cell in self._cells)
        return self._core.wakeups, depth, len(self._cells), len(self._core.tasks)


class Probe(Generic[M]):
    """An actor whose messages a test reads, and whose replies the test gives.

    An ask whose reply is scripted gets it at once. Any other waits for ``answer``, until its own deadline.

    Args:
        system: where to start it.
        kinds: the message classes that it takes.
        name: its name.
    """

    def __init__(self, system: System, kinds: tuple[type[M], ...], name: str) -> None:
        self.received: deque[M] = deque(maxlen=10_000)
        self._scripts: dict[type, Callable[[Any], Any]] = {}
        self._promises: list[Promise[Any]] = []
        self._arrival = asyncio.Event()
        self._system = system
        self.ref: Ref[M] = system.spawn(
            lambda: _Listener(self, tuple(get_origin(kind) or kind for kind in kinds)), name=name
        )

    def reply(self, kind: Callable[..., Replies[Q, R]], value: R | Exception | Callable[[Q], R]) -> None:
        """Script the reply to every later message of class ``kind``: a value, a failure, or what a function returns."""

        def script(message: Any) -> Any:  # noqa: ANN401 - typed by the signature above
            if isinstance(value, Exception):
                raise value
            return value(message) if callable(value) else value

        self._scripts[kind] = script  # type: ignore[index]

    async def expect(self, kind: type[Q]) -> Q:
        """Wait for the next message and return it; it has to be a ``kind``.

        Raises:
            AssertionError: it is something else, or nothing comes.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                while not self.received:
                    self._arrival.clear()
                    await self._arrival.wait()
        except TimeoutError:
            raise AssertionError(f"{self.ref.name} expected {kind.__name__}, but nothing came") from None
        message = self.received.popleft()
        if not isinstance(message, kind):
            raise AssertionError(  # noqa: TRY004 - it is the test that fails
                f"{self.ref.name} expected {kind.__name__}, but {message!r} came"
            )
        return message

    async def expect_nothing(self) -> None:
        """Let everything settle; no message may have come.

        Raises:
            AssertionError: one has.
        """
        if isinstance(self._system, TestSystem):
            await self._system.settle()
        if self.received:
            raise AssertionError(f"{self.ref.name} expected nothing, but {self.received[0]!r} came")

    def answer(self, message: Replies[Any, R], value: R | Exception) -> None:
        """Reply to an ask that had no scripted reply, with a value or a failure.

        Raises:
            AssertionError: nobody waits for a reply to this message.
        """
        for promise in self._promises:
            if promise.envelope.message is message and not promise.abandoned:
                self._promises.remove(promise)
                if isinstance(value, Exception):
                    promise.reject(value)
                else:
                    promise.resolve(value)
                return
        raise AssertionError(f"nobody waits for a reply to {message!r}")

    def take(self, message: M, promise: Callable[[], Promise[Any]] | None) -> object:
        """Show a message to the test, and return its scripted reply or the promise of one."""
        self.received.append(message)
        self._arrival.set()
        script = next((self._scripts[kind] for kind in type(message).__mro__ if kind in self._scripts), None)
        if script is not None:
            return script(message)
        self._promises = [known for known in self._promises if not known.abandoned]
        if promise is None:
            return None
        made = promise()
        self._promises.append(made)
        return made


class _Listener(Actor[Any]):
    """The actor behind a probe; whatever a script raises is a reply."""

    domain_errors = (Exception,)

    def __init__(self, probe: Probe[Any], kinds: tuple[type[Any], ...]) -> None:
        self._probe = probe
        self._handlers = Handlers(dict.fromkeys(kinds, _Listener.take))

    async def take(self, message: Any) -> Any:  # noqa: ANN401 - whatever the probe takes
        asked = self._current_envelope().reply is not None
        return self._probe.take(message, (lambda: self.promise(type(message))) if asked else None)
