"""A message names the type of its reply.

``class GetUsage(Message[Usage], frozen=True)`` is everything a caller and a handler need to agree on: ``await
ref.ask(GetUsage())`` is a ``Usage`` to the type checker, and a handler of ``GetUsage`` that returns anything else does
not pass it. A message whose reply says nothing is a ``Message[None]``.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from typing import Self

MessageT_co = TypeVar("MessageT_co", covariant=True)
ReplyT_co = TypeVar("ReplyT_co", covariant=True)


class Replies(Protocol[MessageT_co, ReplyT_co]):
    """What the type checker sees of a message: its own type and its reply's, both at once.

    A parameter typed ``Replies[M, R]`` accepts only members of ``M`` *and* infers ``R``: the two things that ``ask``
    and ``handles`` have to say in one signature.
    """

    def __reply__(self) -> tuple[MessageT_co, ReplyT_co]: ...


class Message(msgspec.Struct, Generic[ReplyT_co], frozen=True):
    """The base of every message: immutable, and generic in its reply.

    Attributes:
        traced: whether an actor that handles this message opens a CONSUMER span for it. Domain messages say ``True``;
            ticks, chunks and heartbeats stay silent.
    """

    traced: ClassVar[bool] = False

    if TYPE_CHECKING:

        def __reply__(self) -> tuple[Self, ReplyT_co]: ...


AnyMessage = Message[Any]
