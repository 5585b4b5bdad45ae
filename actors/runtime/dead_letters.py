"""Messages that could not be delivered: all are counted, the latest are kept."""

from collections import deque
from typing import Any, Final

import msgspec

REMEMBERED: Final = 32  # letters: enough to see what goes wrong, too few to hold memory


class DeadLetter(msgspec.Struct, frozen=True):
    """A message that no actor will handle. Its ``repr`` names the message's class, and shows nothing of its content.

    Attributes:
        actor: the name of the actor it was sent to.
        message: the message itself.
        reason: why it was not delivered, in a few words.
    """

    actor: str
    message: Any
    reason: str

    def __repr__(self) -> str:
        return f"<DeadLetter {type(self.message).__qualname__} to {self.actor}: {self.reason}>"


class DeadLetters:
    """The dead letters of one system.

    Attributes:
        count: how many there have been.
        last: the latest of them, at most ``REMEMBERED``, oldest first.
    """

    __slots__ = ("count", "last")

    def __init__(self) -> None:
        self.count = 0
        self.last: deque[DeadLetter] = deque(maxlen=REMEMBERED)

    def __repr__(self) -> str:
        return f"<DeadLetters {self.count}, the last of them {list(self.last)}>"

    def add(self, actor: str, message: object, reason: str) -> None:
        """Count a message that was not delivered, and keep it for a while."""
        self.count += 1
        self.last.append(DeadLetter(actor, message, reason))
