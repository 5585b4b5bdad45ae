"""A system of actors: it spawns and ends them, and owns their tasks."""

import asyncio
from asyncio import Task
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, ClassVar, Generic, Self, TypeVar

import msgspec
from opentelemetry.trace import (
    NoOpTracer,
    NoOpTracerProvider,
    ProxyTracerProvider,
    Tracer,
    TracerProvider,
    get_tracer,
    get_tracer_provider,
)

from actors.runtime.cell import ActorCell
from actors.runtime.clock import Clock
from actors.runtime.core import Core
from actors.runtime.dead_letters import DeadLetters
from actors.runtime.envelope import SCOPE
from actors.runtime.keyed import Keyed
from actors.runtime.ref import Addressed, Ref
from actors.runtime.slot import Instance
from protocol import spans
from protocol.errors import ShuttingDown

M = TypeVar("M")
T = TypeVar("T")


class Child(msgspec.Struct, frozen=True):
    """An actor, or a family of keyed ones, as health reports show it.

    Attributes:
        name: its name.
        actors: how many actors that is.
        depth: how many messages wait in their mailboxes.
        restarts: how many times they have been restarted.
    """

    name: str
    actors: int
    depth: int
    restarts: int


class System:
    """Owns actors and every task they start. It shares nothing with other systems in the same loop.

    ``async with System() as system`` starts it. Leaving the block kills the actors that are left and waits for their
    end; for a gentler end stop or drain them first.

    Args:
        clock: the source of the time; by default the running loop.
        name: shown in its ``repr``.
        on_escalate: is called with the name and the last exception of an actor that failed too often and has stopped.
        tracer_provider: where spans go; by default the global one, as it is when the system opens. With none set, a
            traced message costs what any other does.
    """

    _core: Core

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        name: str = "tidegate",
        on_escalate: Callable[[str, Exception], None] | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        self.name = name
        self._clock = clock
        self._on_escalate = on_escalate
        self._tracer_provider = tracer_provider
        self._tracer = get_tracer(spans.TRACER, tracer_provider=tracer_provider)
        self._cells: dict[ActorCell, None] = {}
        self._names: set[str] = set()
        self._families: list[Keyed[Any]] = []
        self._open = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}: {len(self._cells)} actors>"

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        provider = self._tracer_provider or get_tracer_provider()
        tracing = not isinstance(provider, ProxyTracerProvider | NoOpTracerProvider)
        if not tracing:
            self._tracer = NoOpTracer()
        self._core = Core(loop, self._clock or loop, self._tracer, tracing, self._on_escalate)
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        for family in tuple(self._families):
            family.close()
        for cell in reversed(list(self._cells)):
            cell.kill()
        await self._core.tasks.cancel()
        self._core.deadlines.give_timers()

    @property
    def clock(self) -> Clock:
        """The source of the time."""
        return self._core.clock

    @property
    def tracer(self) -> Tracer:
        """Opens this system's spans; for actors that open some of their own."""
        return self._tracer

    @property
    def tracing(self) -> bool:
        """Whether spans had somewhere to go when the system opened."""
        return self._core.tracing

    @property
    def dead_letters(self) -> DeadLetters:
        """The tells that could not be delivered."""
        return self._core.dead_letters

    @property
    def late_replies(self) -> int:
        """How many replies came after their asker had given up."""
        return self._core.late_replies

    @property
    def expired(self) -> int:
        """How many asks were not handled, because their asker had given up before."""
        return self._core.expired

    def spawn(self, factory: Callable[[], Addressed[M]], *, name: str) -> Ref[M]:
        """Start an actor; the first instance is made at once, and each restart makes another.

        Raises:
            ShuttingDown: the system is not open.
            ValueError: there is an actor of this name already.
            Exception: what the factory raises.
        """
        self._check_name(name)
        slot = _NamedSlot(self, name, factory)
        cell = ActorCell(self._core, slot)
        self._cells[cell] = None
        self._names.add(name)
        return slot.ref(cell)

    def forget(self, cell: ActorCell) -> None:
        """Take note that a named actor has ended: its name is free again."""
        del self._cells[cell]
        self._names.discard(cell.name)

    def keyed(self, factory: Callable[[str], Addressed[M]], *, name: str, idle: float, limit: int) -> Keyed[M]:
        """Return a family of actors, one a key, each made at its first message and stopped after ``idle`` seconds.

        Raises:
            ShuttingDown: the system is not open.
            ValueError: there is an actor of this name already, or ``idle`` or ``limit`` is not positive.
        """
        self._check_name(name)

        def on_close(family: Keyed[M]) -> None:
            self._families.remove(family)
            self._names.discard(name)

        family = Keyed[M](
            self._core, name, factory, system=self, cells=self._cells, on_close=on_close, idle=idle, limit=limit
        )
        self._families.append(family)
        self._names.add(name)
        return family

    async def stop(self, ref: Ref[Any]) -> None:
        """End an actor after the message at hand, and wait for that.

        What is left in its mailbox is not handled: asks raise ``ActorStopped``, tells are dead letters. An actor may
        stop itself: then this does not wait.
        """
        cell = ref._live_cell()  # noqa: SLF001 - refs are the runtime's own
        if cell is not None:
            cell.stop()
            await self._end(cell)

    async def drain(self, ref: Ref[Any], *, deadline: float) -> None:
        """Let an actor handle what is queued and take nothing new, end it, and wait for that.

        It also waits for the pipes and the deferred replies that are under way. At ``deadline``, a time of the system's
        clock, what is not done is killed.
        """
        cell = ref._live_cell()  # noqa: SLF001 - refs are the runtime's own
        if cell is not None:
            cell.drain()
            timer = self.clock.call_at(deadline, cell.kill)
            try:
                await self._end(cell)
            finally:
                if cell.ended:
                    timer.cancel()

    def kill(self, ref: Ref[Any]) -> None:
        """End an actor now: its handler is cancelled, its mailbox goes back as with ``stop``; does not wait."""
        cell = ref._live_cell()  # noqa: SLF001 - refs are the runtime's own
        if cell is not None:
            cell.kill()

    def background(self, work: Coroutine[Any, Any, T], *, name: str) -> Task[T]:
        """Run ``work`` in a task that the system owns: it is cancelled and awaited when the system ends.

        It inherits no context from the caller. A failure is logged, whether or not anybody awaits the task.

        Raises:
            ShuttingDown: the system is not open; the work is closed.
        """
        if not self._open:
            work.close()
            raise ShuttingDown(f"{self.name} is not open")
        task = self._core.tasks.start(work, name=name)
        self._core.tasks.log_failure(task)
        return task

    def children(self) -> list[Child]:
        """Return the actors, with each keyed family as one, in the order in which they were spawned."""
        groups: dict[str, list[ActorCell]] = {family.name: [] for family in self._families}
        for cell in self._cells:
            groups.setdefault(cell.slot.group, []).append(cell)
        return [
            Child(name, len(cells), sum(cell.mailbox.qsize() for cell in cells), sum(cell.restarts for cell in cells))
            for name, cells in groups.items()
        ]

    def _check_name(self, name: str) -> None:
        if not self._open:
            raise ShuttingDown(f"{self.name} is not open")
        if name in self._names:
            raise ValueError(f"there is an actor named {name!r} already")

    async def _end(self, cell: ActorCell) -> None:
        scope = SCOPE.get()
        if scope is None or scope.address != cell.slot.address:
            await cell.end()


class _NamedSlot(Generic[M]):
    """The slot of an actor that has a name of its own in its system."""

    __slots__ = ("_factory", "_system", "address", "group", "name")
    reports_idle: ClassVar[bool] = False

    def __init__(self, system: System, name: str, factory: Callable[[], Addressed[M]]) -> None:
        self._system = system
        self._factory = factory
        self.name = self.group = name
        self.address = object()

    def ref(self, cell: ActorCell) -> Ref[M]:
        return Ref(self.name, cell.core, cell.mailbox, self.address, cell)

    def make(self) -> Instance:
        return self._factory()

    def bind(self, actor: Instance, cell: ActorCell) -> None:
        actor._bind(cell, self.ref(cell), self._system)  # noqa: SLF001 - the runtime's own

    def on_end(self, cell: ActorCell) -> None:
        self._system.forget(cell)

    def on_idle(self, cell: ActorCell) -> None: ...
