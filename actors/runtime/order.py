"""What an actor has ordered and what is still on its way: timers, pipes, deferred replies, promises."""

from typing import ClassVar, Generic, Protocol, TypeVar

from opentelemetry.trace import Span

from actors.runtime.consumer import close_span
from actors.runtime.envelope import Envelope

R_co = TypeVar("R_co", covariant=True)


class Order(Protocol):
    """Something outstanding that ends with its actor.

    Attributes:
        survives_restart: whether it goes on when its actor is replaced by a fresh instance. What reports to the state
            that failed does not; what owes a reply to an asker does.
        delays_drain: whether a draining actor waits for it.
    """

    survives_restart: ClassVar[bool]
    delays_drain: ClassVar[bool]

    def abort(self, error: Exception) -> None:
        """End it, because its actor has; whoever waits for it gets ``error``."""


class Deferred(Generic[R_co]):
    """A reply that comes later: a handler returns it in the place of an ``R``.

    Attributes:
        envelope: the message that it answers.
    """

    __slots__ = ("_error", "_settled", "_span", "envelope")

    def __init__(self, envelope: Envelope) -> None:
        self.envelope = envelope
        self._span: Span | None = None
        self._settled = False
        self._error: BaseException | None = None

    def hold(self, span: Span) -> None:
        """Keep the message's span open until the reply is settled."""
        if self._settled:
            close_span(span, self._error)
        else:
            self._span = span

    def _settle(self, error: BaseException | None) -> None:
        """Close the span: the reply has been given, or nobody waits for it any more."""
        if self._settled:
            return
        self._settled = True
        self._error = error
        if self._span is not None:
            close_span(self._span, error)
            self._span = None
