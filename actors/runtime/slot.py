"""The place of an actor in its system, and what the runtime needs of the actor's class."""

from typing import Any, ClassVar, Protocol, TypeVar

from actors.runtime.handlers import Handlers
from actors.runtime.mailbox import Overflow

C_contra = TypeVar("C_contra", contravariant=True)


class Instance(Protocol):
    """What the runtime uses of an actor. ``Actor`` implements it, and documents the attributes."""

    capacity: ClassVar[int]
    restarts: ClassVar[int]
    within: ClassVar[float]
    backoff: ClassVar[float]
    lingers: ClassVar[bool]
    outstanding_limit: ClassVar[int]
    _has_started_hook: ClassVar[bool]
    _has_stopped_hook: ClassVar[bool]
    _handlers: Handlers

    @property
    def overflow(self) -> Overflow:
        """What a full mailbox does."""

    @property
    def domain_errors(self) -> tuple[type[Exception], ...]:
        """What a handler may raise as a reply."""

    async def started(self) -> None:
        """Run before the first message."""

    async def stopped(self) -> None:
        """Run after the last message."""

    def _bind(self, cell: Any, ref: Any, system: Any) -> None:  # noqa: ANN401 - their modules are above this one
        """Set the actor's cell, its address and its system."""


class Slot(Protocol[C_contra]):
    """The place of one actor in its system, over all its instances. ``C`` is the class of its cell.

    Attributes:
        name: the actor's name.
        group: the name in its spans and in health reports: the family's name for a keyed actor.
        address: equal for all refs to the actor.
        reports_idle: whether ``on_idle`` is called.
    """

    name: str
    group: str
    address: object
    reports_idle: ClassVar[bool]

    def make(self) -> Instance:
        """Make an instance."""

    def bind(self, actor: Instance, cell: C_contra) -> None:
        """Give an instance its address and its system, before ``started``."""

    def on_end(self, cell: C_contra) -> None:
        """Take note, once, that the actor has ended."""

    def on_idle(self, cell: C_contra) -> None:
        """Take note that the actor has become idle."""
