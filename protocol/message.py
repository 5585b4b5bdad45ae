"""Base of the messages: a message declares the type of its reply.

After ``class GetUsage(Message[Usage], frozen=True)`` the type checker knows that ``await ref.ask(GetUsage())`` is a
``Usage``, and it refuses a handler of ``GetUsage`` that returns another type. A message without a reply is a
``Message[None]``.
"""

from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import msgspec

if TYPE_CHECKING:
    from typing import Self

MessageT_co = TypeVar("MessageT_co", covariant=True)
ReplyT_co = TypeVar("ReplyT_co", covariant=True)


class Replies(Protocol[MessageT_co, ReplyT_co]):
    """The type of a message and the type of its reply, for signatures.

    A parameter of type ``Replies[M, R]`` accepts only messages of type ``M`` and infers ``R``; ``ask`` and ``handles``
    need both.
    """

    def __reply__(self) -> tuple[MessageT_co, ReplyT_co]: ...


class Message(msgspec.Struct, Generic[ReplyT_co], frozen=True):
    """The base of every message: immutable, and generic in its reply.

    Attributes:
        traced: whether an actor that handles the message opens a CONSUMER span. True for domain messages, False for
            ticks, chunks and heartbeats.
    """

    traced: ClassVar[bool] = False

    if TYPE_CHECKING:

        def __reply__(self) -> tuple[Self, ReplyT_co]: ...


AnyMessage = Message[Any]
