from typing import TypeVar

import pytest

from actors.runtime import Actor, System, handles
from protocol.message import Message

M = TypeVar("M")


class Ping(Message[str], frozen=True):
    pass


class LoudPing(Ping, frozen=True):
    pass


class Pong(Message[int], frozen=True):
    pass


class Other(Message[None], frozen=True):
    pass


def test_missing_handler_is_named() -> None:
    """A class without a handler for one of its messages is not made, and the error names the message."""
    with pytest.raises(TypeError, match=r"Lacking has no handler for Pong"):

        class Lacking(Actor[Ping | Pong]):
            @handles(Ping)
            async def ping(self, message: Ping) -> str:
                return ""


def test_doubled_handler_is_named() -> None:
    """Two handlers for one message are an error that names it."""
    with pytest.raises(TypeError, match=r"Doubled has more than one handler for Ping"):

        class Doubled(Actor[Ping]):
            @handles(Ping)
            async def one(self, message: Ping) -> str:
                return ""

            @handles(Ping)
            async def two(self, message: Ping) -> str:
                return ""


def test_foreign_handler_is_named() -> None:
    """A handler for what is not one of the actor's messages is an error that names it."""
    with pytest.raises(TypeError, match=r"not one of its messages: Other"):

        class Foreign(Actor[Ping]):
            @handles(Ping)
            async def ping(self, message: Ping) -> str:
                return ""

            @handles(Other)
            async def other(self, message: Other) -> None: ...


def test_quoted_messages_are_refused() -> None:
    """Messages that are written as a string can't be checked, so they are an error."""
    with pytest.raises(TypeError, match="unquoted"):

        class Quoted(Actor["Ping"]):
            @handles(Ping)
            async def ping(self, message: Ping) -> str:
                return ""


def test_handler_has_to_be_async() -> None:
    """A plain function is no handler."""

    def plain(self: object, message: Ping) -> str:
        return ""

    with pytest.raises(TypeError, match="async def"):
        handles(Ping)(plain)  # type: ignore[arg-type]


def test_only_message_classes_are_handled() -> None:
    """``handles`` refuses what is no message class."""
    with pytest.raises(TypeError, match="message class"):
        handles(str)  # type: ignore[arg-type]


async def test_generic_base_lends_its_handlers() -> None:
    """A base class without messages of its own may hold handlers; a subclass overrides them by name."""

    class Base(Actor[M]):
        @handles(Ping)
        async def ping(self, message: Ping) -> str:
            return "base"

    class Plain(Base[Ping | Pong]):
        @handles(Pong)
        async def pong(self, message: Pong) -> int:
            return 1

    class Own(Base[Ping]):
        @handles(Ping)
        async def ping(self, message: Ping) -> str:
            return "own"

    with pytest.raises(TypeError, match="no handler for Pong"):

        class Lacking(Base[Ping | Pong]): ...

    async with System() as system:
        assert await system.spawn(Plain, name="plain").ask(Ping(), timeout=1) == "base"
        assert await system.spawn(Own, name="own").ask(Ping(), timeout=1) == "own"


async def test_subclass_of_a_message_goes_to_its_handler() -> None:
    """A message is handled by the handler of its nearest base."""

    class Echo(Actor[Ping]):
        @handles(Ping)
        async def ping(self, message: Ping) -> str:
            return type(message).__name__

    async with System() as system:
        assert await system.spawn(Echo, name="echo").ask(LoudPing(), timeout=1) == "LoudPing"
