"""One actor a key: started by its first message, passivated when idle."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from actors.runtime.cell import ActorCell
from actors.runtime.clock import Handle
from actors.runtime.core import Core
from actors.runtime.envelope import Envelope
from actors.runtime.mailbox import Mailbox
from actors.runtime.ref import Addressed, Ref
from actors.runtime.slot import Instance
from protocol.errors import ActorStopped, Overloaded

M = TypeVar("M")


class KeyedRef(Ref[M]):
    """A ref whose actor is started, or started again, when a message needs it."""

    __slots__ = ("_family", "_key")

    def __init__(self, family: "Keyed[M]", core: Core, key: str, closed: Mailbox) -> None:
        Ref.__init__(self, f"{family.name}/{key}", core, closed, (family, key), None)
        self._family = family
        self._key = key

    @property
    def alive(self) -> bool:
        """Whether an actor for this key is there now."""
        return self._live_cell() is not None

    def _live_cell(self) -> ActorCell | None:
        return self._family.find(self._key)

    def _put_nowait(self, envelope: Envelope) -> Mailbox | None:
        self._mailbox = self._family.activate(self._key, self).mailbox
        return Ref._put_nowait(self, envelope)  # noqa: SLF001 - its own base


class Keyed(Generic[M]):
    """A family of actors, one for each key that is in use.

    The actor of one key::

        absent ──first message──► active ◄──message──► idle ──passivated──► stopping ──► absent

    An actor is idle when its mailbox is empty and nothing is outstanding: no timer, piped task, deferred reply or
    promise. It is passivated, that is stopped, after ``idle`` seconds of that, or earlier when a new key needs its
    place. A message that comes meanwhile is not lost: it waits for a fresh actor, which starts when the old one has
    ended.

    Args:
        core: the shared parts of the system.
        name: the name of the family, and of its actors' spans.
        factory: makes the actor for a key.
        system: the system of the actors.
        cells: the cells of all actors of the system; the family adds and removes its own.
        on_close: is called once, when the family takes no new keys any more.
        idle: seconds.
        limit: how many actors there may be; as many again may be stopping.
    """

    def __init__(
        self,
        core: Core,
        name: str,
        factory: Callable[[str], Addressed[M]],
        *,
        system: Any,  # noqa: ANN401 - it is made of families, and they hand it on
        cells: dict[ActorCell, None],
        on_close: "Callable[[Keyed[M]], object]",
        idle: float,
        limit: int,
    ) -> None:
        if limit < 1 or not idle > 0:
            raise ValueError(f"limit and idle must be positive, got {limit} and {idle}")
        self.name = name
        self._core = core
        self.factory = factory
        self.system = system
        self._registry = cells
        self._on_close = on_close
        self._idle = idle
        self._limit = limit
        self._cells: dict[str, ActorCell] = {}
        self._stopping: dict[ActorCell, None] = {}
        self._latest: dict[str, ActorCell] = {}  # of those that are stopping
        self._idle_since: OrderedDict[str, float] = OrderedDict()
        self._sweep: Handle | None = None
        self._closed = self._released = False
        self._closed_mailbox = Mailbox(1, "reject")
        self._closed_mailbox.close()

    def __len__(self) -> int:
        return len(self._cells)

    def ref(self, key: str) -> Ref[M]:
        """Return the address of the actor for ``key``, which starts at its first message.

        A message that finds no place for a new actor, because none of ``limit`` is idle, raises ``Overloaded``.
        """
        return KeyedRef(self, self._core, key, self._closed_mailbox)

    def get(self, key: str) -> Ref[M] | None:
        """Return the address of the actor for ``key`` if there is one now."""
        return None if self.find(key) is None else self.ref(key)

    def find(self, key: str) -> ActorCell | None:
        """Return the cell of the actor for ``key`` if there is one that takes messages."""
        cell = self._cells.get(key)
        return None if cell is None or cell.mailbox.closed else cell

    def activate(self, key: str, ref: Ref[M]) -> ActorCell:
        """Return the cell of the actor for ``key``, whose address is ``ref``; start the actor if there is none.

        Raises:
            Overloaded: there is no place for it.
            ActorStopped: the family takes no new keys.
        """
        cell = self._cells.get(key)
        if cell is not None:
            if not cell.mailbox.closed:
                return cell
            self._move_to_stopping(key, cell)
        if self._closed:
            raise ActorStopped(f"{self.name} takes no new keys")
        if len(self._cells) >= self._limit:
            self._make_room()
        cell = ActorCell(self._core, _KeyedSlot(self, key, ref), self._latest.get(key))
        self._cells[key] = cell
        self._registry[cell] = None
        return cell

    async def drain(self, *, deadline: float) -> None:
        """Take no new keys, and drain every actor; kill what is not done by ``deadline``, a time of the clock."""
        self._closed = True
        cells = [*self._cells.values(), *self._stopping]
        for cell in self._cells.values():
            cell.drain()
        timers = [self._core.clock.call_at(deadline, cell.kill) for cell in cells]
        try:
            for cell in cells:
                await cell.end()
        finally:
            for cell, timer in zip(cells, timers, strict=True):
                if cell.ended:
                    timer.cancel()
        self.close()

    def close(self) -> None:
        """Take no new keys, and let nothing of the family's own remain on the clock. The name is free again."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        if not self._released:
            self._closed = self._released = True
            self._on_close(self)

    async def kill(self) -> None:
        """Take no new keys, end every actor now, and wait for that."""
        cells = [*self._cells.values(), *self._stopping]
        self.close()
        for cell in cells:
            cell.kill()
        for cell in cells:
            await cell.end()

    def on_idle(self, key: str, cell: ActorCell) -> None:
        """Passivate an actor that does not linger; note since when another one is idle."""
        if self._cells.get(key) is not cell or (not cell.lingers and self._passivate(key)):
            return
        now = self._idle_since[key] = self._core.clock.time()
        self._idle_since.move_to_end(key)
        if self._sweep is None:
            self._sweep = self._core.clock.call_at(now + self._idle, self._passivate_idle)

    def on_end(self, key: str, cell: ActorCell) -> None:
        """Forget an actor that has ended."""
        del self._registry[cell]
        if self._cells.get(key) is cell:
            del self._cells[key]
            self._idle_since.pop(key, None)
        elif cell in self._stopping:
            del self._stopping[cell]
            if self._latest[key] is cell:
                del self._latest[key]

    def _move_to_stopping(self, key: str, cell: ActorCell) -> None:
        if len(self._stopping) >= self._limit:
            raise Overloaded(f"{self.name} has {self._limit} actors that are stopping")
        del self._cells[key]
        self._idle_since.pop(key, None)
        self._stopping[cell] = None
        self._latest[key] = cell

    def _passivate_idle(self) -> None:
        self._sweep = None
        now = self._core.clock.time()
        while self._idle_since:
            key, since = next(iter(self._idle_since.items()))
            if since + self._idle > now:
                break
            if not self._passivate(key):
                self._idle_since[key] = now
                self._idle_since.move_to_end(key)
        if self._idle_since and not self._closed:
            first = next(iter(self._idle_since.values()))
            self._sweep = self._core.clock.call_at(first + self._idle, self._passivate_idle)

    def _make_room(self) -> None:
        for key in self._idle_since:
            if self._passivate(key):
                return
        raise Overloaded(f"{self.name} has {self._limit} actors, and none of them is idle")

    def _passivate(self, key: str) -> bool:
        cell = self._cells[key]
        if not cell.idle or len(self._stopping) >= self._limit:
            return False
        cell.stop()
        if not cell.ended:
            self._move_to_stopping(key, cell)
        return True


class _KeyedSlot(Generic[M]):
    """The slot of one actor of a family."""

    __slots__ = ("_family", "_key", "_ref", "address", "group", "name")
    reports_idle: ClassVar[bool] = True

    def __init__(self, family: Keyed[M], key: str, ref: Ref[M]) -> None:
        self._family = family
        self._key = key
        self._ref = ref
        self.name = ref.name
        self.group = family.name
        self.address: object = (family, key)

    def make(self) -> Instance:
        return self._family.factory(self._key)

    def bind(self, actor: Instance, cell: ActorCell) -> None:
        actor._bind(cell, self._ref, self._family.system)  # noqa: SLF001 - the runtime's own

    def on_end(self, cell: ActorCell) -> None:
        self._family.on_end(self._key, cell)

    def on_idle(self, cell: ActorCell) -> None:
        self._family.on_idle(self._key, cell)
