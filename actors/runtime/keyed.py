"""One actor a key: made at its first message, passivated when idle."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from actors.runtime.behaviour import Behaviour
from actors.runtime.cell import Cell
from actors.runtime.clock import Handle
from actors.runtime.core import Core
from actors.runtime.envelope import Envelope
from actors.runtime.mailbox import Mailbox
from actors.runtime.ref import Ref
from protocol.errors import ActorStopped, Overloaded

M = TypeVar("M")


class KeyedRef(Ref[M]):
    """A ref whose actor is made, or made again, when a message needs it."""

    __slots__ = ("_family", "_key")

    def __init__(self, family: "Keyed[M]", core: Core, key: str, nowhere: Mailbox) -> None:
        super().__init__(f"{family.name}/{key}", core, nowhere, (family, key), None)
        self._family = family
        self._key = key

    @property
    def alive(self) -> bool:
        """Whether an actor for this key is there at present."""
        return self._live() is not None

    def _live(self) -> Cell | None:
        return self._family.find(self._key)

    def _place(self, envelope: Envelope) -> Mailbox | None:
        self._mailbox = self._family.activate(self._key, self).mailbox
        return super()._place(envelope)


class _Place(Generic[M]):
    """Where one actor of a family belongs."""

    __slots__ = ("_family", "_key", "_ref", "address", "destination", "name")

    def __init__(self, family: "Keyed[M]", key: str, ref: Ref[M]) -> None:
        self._family = family
        self._key = key
        self._ref = ref
        self.name = ref.name
        self.destination = family.name
        self.address = (family, key)

    def make(self) -> Behaviour[M]:
        return self._family.make(self._key)

    def settle(self, actor: Behaviour[Any], cell: Cell) -> None:
        self._family.settle(actor, cell, self._ref)

    def rested(self, cell: Cell) -> None:
        self._family.rest(self._key, cell)

    def ended(self, cell: Cell) -> None:
        self._family.ended(self._key, cell)


class Keyed(Generic[M]):
    """A family of actors, one for each key that is in use.

    An actor is idle when its mailbox is empty and it has no timer, pipe, deferred reply or promise outstanding. It is
    passivated, that is stopped, after ``idle`` seconds of that, or earlier when a new key needs its place. A message
    that comes meanwhile is not lost: it waits for a fresh actor, which starts when the old one has ended.

    Args:
        core: the system's collaborators.
        name: the name of the family, and of its actors' spans.
        factory: makes the actor for a key.
        system: where they live.
        cells: the bodies of all the system's actors, among which those of the family's are.
        closed: is called once, when the family takes no new keys any more.
        idle: seconds.
        limit: how many actors there may be; as many again may be on their way out.
    """

    def __init__(
        self,
        core: Core,
        name: str,
        factory: Callable[[str], Behaviour[M]],
        *,
        system: Any,  # noqa: ANN401 - it is made of families, and they hand it on
        cells: dict[Cell, None],
        closed: "Callable[[Keyed[M]], object]",
        idle: float,
        limit: int,
    ) -> None:
        if limit < 1 or not idle > 0:
            raise ValueError(f"limit and idle must be positive, got {limit} and {idle}")
        self.name = name
        self._core = core
        self._factory = factory
        self._system = system
        self._every = cells
        self._on_close = closed
        self._idle = idle
        self._limit = limit
        self._cells: dict[str, Cell] = {}
        self._leaving: dict[str, Cell] = {}
        self._resting: OrderedDict[str, float] = OrderedDict()
        self._sweep: Handle | None = None
        self._closed = self._released = False
        self._nowhere = Mailbox(1, "reject", core.crew)
        self._nowhere.close()

    def __len__(self) -> int:
        return len(self._cells)

    def ref(self, key: str) -> Ref[M]:
        """Return the address of the actor for ``key``, which is made at its first message.

        A message that finds no place for a new actor, because none of ``limit`` is idle, raises ``Overloaded``.
        """
        return KeyedRef(self, self._core, key, self._nowhere)

    def get(self, key: str) -> Ref[M] | None:
        """Return the address of the actor for ``key`` if there is one at present."""
        return None if self.find(key) is None else self.ref(key)

    def find(self, key: str) -> Cell | None:
        """Return the body of the actor for ``key`` if there is one and it takes messages."""
        cell = self._cells.get(key)
        return None if cell is None or cell.mailbox.closed else cell

    def activate(self, key: str, ref: Ref[M]) -> Cell:
        """Return the body of the actor for ``key``, whose address is ``ref``, made now if need be.

        Raises:
            Overloaded: there is no place for it.
            ActorStopped: the family takes no new keys.
        """
        cell = self._cells.get(key)
        if cell is not None:
            if not cell.mailbox.closed:
                return cell
            self._leave(key, cell)
        if self._closed:
            raise ActorStopped(f"{self.name} takes no new keys")
        if len(self._cells) >= self._limit:
            self._make_room()
        cell = Cell(self._core, _Place(self, key, ref), self._leaving.get(key))
        self._cells[key] = cell
        self._every[cell] = None
        return cell

    def make(self, key: str) -> Behaviour[M]:
        """Make an instance of the actor for ``key``."""
        return self._factory(key)

    def settle(self, actor: Behaviour[Any], cell: Cell, ref: Ref[M]) -> None:
        """Give an instance its place."""
        actor._bind(cell, ref, self._system)  # noqa: SLF001 - the runtime's own

    def rest(self, key: str, cell: Cell) -> None:
        """Note that an actor has become idle; one that does not linger is passivated."""
        if self._cells.get(key) is not cell or (not cell.lingers and self._passivate(key)):
            return
        now = self._resting[key] = self._core.clock.time()
        self._resting.move_to_end(key)
        if self._sweep is None:
            self._sweep = self._core.clock.call_at(now + self._idle, self._passivate_idle)

    def ended(self, key: str, cell: Cell) -> None:
        """Forget an actor that has ended."""
        del self._every[cell]
        if self._cells.get(key) is cell:
            del self._cells[key]
            self._resting.pop(key, None)
        elif self._leaving.get(key) is cell:
            del self._leaving[key]

    async def drain(self, *, deadline: float) -> None:
        """Take no new keys, and drain every actor; kill what is not done by ``deadline``, a time of the clock."""
        self._closed = True
        cells = [*self._cells.values(), *self._leaving.values()]
        for cell in self._cells.values():
            cell.drain()
        timers = [self._core.clock.call_at(deadline, cell.kill) for cell in cells]
        try:
            for cell in cells:
                await cell.end()
        finally:
            for timer in timers:
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
        cells = [*self._cells.values(), *self._leaving.values()]
        self.close()
        for cell in cells:
            cell.kill()
        for cell in cells:
            await cell.end()

    def _leave(self, key: str, cell: Cell) -> None:
        if len(self._leaving) >= self._limit:
            raise Overloaded(f"{self.name} has {self._limit} actors on their way out")
        del self._cells[key]
        self._resting.pop(key, None)
        self._leaving[key] = cell

    def _passivate_idle(self) -> None:
        self._sweep = None
        now = self._core.clock.time()
        while self._resting:
            key, since = next(iter(self._resting.items()))
            if since + self._idle > now:
                break
            if not self._passivate(key):
                self._resting[key] = now
                self._resting.move_to_end(key)
        if self._resting and not self._closed:
            first = next(iter(self._resting.values()))
            self._sweep = self._core.clock.call_at(first + self._idle, self._passivate_idle)

    def _make_room(self) -> None:
        for key in self._resting:
            if self._passivate(key):
                return
        raise Overloaded(f"{self.name} has {self._limit} actors, and none of them is idle")

    def _passivate(self, key: str) -> bool:
        cell = self._cells[key]
        if not cell.idle or len(self._leaving) >= self._limit:
            return False
        cell.stop()
        if not cell.ended:
            self._leave(key, cell)
        return True
