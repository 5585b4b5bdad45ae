from actors.runtime import DeadLetters
from protocol.message import Message


class Secret(Message[None], frozen=True):
    password: str


def test_repr_names_the_message_and_shows_nothing_of_it() -> None:
    """What a log shows of a dead letter is its class, its actor and the reason."""
    letters = DeadLetters()
    letters.add("vault", Secret("hunter2"), "stopped")
    assert repr(letters.last[0]) == "<DeadLetter Secret to vault: stopped>"
    assert repr(letters) == "<DeadLetters 1, the last of them [<DeadLetter Secret to vault: stopped>]>"
    assert letters.last[0].message == Secret("hunter2")


def test_all_are_counted_and_the_latest_are_kept() -> None:
    """The memory of dead letters is bounded."""
    letters = DeadLetters()
    for n in range(1000):
        letters.add("vault", Secret(str(n)), "stopped")
    assert letters.count == 1000
    assert len(letters.last) < 100
    assert letters.last[-1].message == Secret("999")
