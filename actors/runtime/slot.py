"""The place of an actor in its system, and what the runtime needs of the actor's class."""

from collections.abc import Callable
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import msgspec

from actors.runtime.handlers import Handlers
from actors.runtime.mailbox import Overflow

C = TypeVar("C")


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


class Slot(msgspec.Struct, Generic[C], eq=False):
    """The place of one actor in its system, over all its instances. ``C`` is the class of its cell.

    Attributes:
        name: the actor's name.
        group: the name in its spans and in health reports: the family's name for a keyed actor.
        address: equal for all refs to the actor.
        make: makes an instance.
        bind: gives an instance its address and its system, before ``started``.
        on_end: is called once, when the actor has ended.
        on_idle: is called each time the actor becomes idle; ``None`` for no call.
    """

    name: str
    group: str
    address: object
    make: Callable[[], Instance]
    bind: Callable[[Instance, C], object]
    on_end: Callable[[C], object]
    on_idle: Callable[[C], object] | None = None
