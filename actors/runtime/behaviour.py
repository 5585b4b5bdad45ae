"""What the runtime needs to know of an actor: its policies, its hooks and its handlers."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, TypeVar, get_args, get_origin

from actors.runtime.handlers import Handlers, collect
from actors.runtime.mailbox import Overflow
from protocol.errors import TidegateError

M_contra = TypeVar("M_contra", contravariant=True)


class Behaviour(ABC, Generic[M_contra]):
    """The runtime's view of an actor; an actor derives from ``Actor``.

    Attributes:
        capacity: how many messages from outside may wait in the mailbox.
        overflow: what happens to one that finds no room: ``wait``, ``reject`` or ``drop_oldest``.
        domain_errors: what a handler may raise as a reply: the asker gets it, and the actor lives on.
        restarts: how many failures within ``within`` seconds are answered by a restart; the next one escalates.
        within: the length of the sliding window, in seconds.
        backoff: the mean wait before the first restart in a window, in seconds; it doubles with each further one.
        lingers: whether a keyed actor that is idle stays for the family's ``idle`` seconds; one whose work comes once
            and not again is passivated at once.
        orders: how many timers, pipes, deferred replies, promises and watches may be outstanding at once.
    """

    capacity: ClassVar[int] = 256
    overflow: ClassVar[Overflow] = "wait"
    domain_errors: ClassVar[tuple[type[Exception], ...]] = (TidegateError,)
    restarts: ClassVar[int] = 3
    within: ClassVar[float] = 10.0
    backoff: ClassVar[float] = 0.05
    lingers: ClassVar[bool] = True
    orders: ClassVar[int] = 65_536

    _messages: ClassVar[Any] = None
    _handlers: Handlers = Handlers()

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: ANN401 - passed on
        super().__init_subclass__(**options)
        cls._messages = _messages(cls)
        cls._handlers = collect(cls, cls._messages)

    async def started(self) -> None:
        """Run before the first message; a failure counts as one of the actor's."""

    async def stopped(self) -> None:
        """Run after the last message of an instance that was started, however it ended; also before a restart."""

    @abstractmethod
    def _bind(self, cell: Any, ref: Any, system: Any) -> None:  # noqa: ANN401 - as in the base
        """Take one's place in a system."""


def _messages(cls: type[Behaviour[Any]]) -> Any:  # noqa: ANN401 - a type expression
    """Return what ``cls`` says its messages are, with the type variables of generic bases filled in."""
    for base in vars(cls).get("__orig_bases__", ()):
        origin = get_origin(base)
        if not (isinstance(origin, type) and issubclass(origin, Behaviour)):
            continue
        if origin is Behaviour:
            return get_args(base)[0]
        filling = dict(zip(origin.__parameters__, get_args(base), strict=True))  # type: ignore[attr-defined]
        form = origin._messages  # noqa: SLF001 - a class of ours
        if isinstance(form, TypeVar):
            return filling[form]
        parameters = getattr(form, "__parameters__", ())
        return form[tuple(filling[parameter] for parameter in parameters)] if parameters else form
    return cls._messages
