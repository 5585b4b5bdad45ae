"""What the type checker accepts and refuses of actors: each ignored error must occur."""

from typing import assert_type

from actors.runtime import Actor, Deferred, Keyed, Ref, System, Timer, handles
from actors.runtime.testing import TestSystem
from protocol.message import Message


class Usage(Message[None], frozen=True):
    """A reply."""

    n: int = 0


class GetUsage(Message[Usage], frozen=True):
    """A message with the reply ``Usage``."""


class Name(Message[str], frozen=True):
    """A message with the reply ``str``."""

    n: int


class Foreign(Message[None], frozen=True):
    """A message that the actor does not accept."""


class Typed(Actor[GetUsage | Name]):
    """Handles both messages, one of them later."""

    @handles(GetUsage)
    async def usage(self, message: GetUsage) -> Usage:
        """Reply at once."""
        return Usage(1)

    @handles(Name)
    async def name(self, message: Name) -> str | Deferred[str]:
        """Reply later."""
        self.pipe(self.number(), Name, lambda _: Name(0))
        self.pipe(self.number(), lambda _: Foreign(), lambda _: Name(0))  # type: ignore[arg-type, return-value]
        self.schedule(1.0, Foreign())  # type: ignore[arg-type]
        assert_type(self.every(1.0, Name(1)), Timer)
        self.every(1.0, Foreign())  # type: ignore[arg-type]
        promise = self.promise(Name)
        promise.resolve(1)  # type: ignore[arg-type]
        promise.resolve("one")
        return promise if message.n else self.defer(self.text())

    async def number(self) -> int:
        """Return a number."""
        return 1

    async def text(self) -> str:
        """Return a text."""
        return ""


class Wrong(Actor[GetUsage | Name]):
    """Handlers that don't fit their messages."""

    @handles(GetUsage)  # type: ignore[arg-type]
    async def usage(self, message: GetUsage) -> int:
        """Return another type than the reply."""
        return 1

    @handles(Name)  # type: ignore[arg-type]
    async def name(self, message: GetUsage) -> str:
        """Accept another message."""
        return ""


async def check(system: System, test: TestSystem) -> None:
    """Ask and tell, with right and wrong types."""
    ref = system.spawn(Typed, name="typed")
    assert_type(ref, Ref[GetUsage | Name])
    assert_type(system.spawn(lambda: Typed(), name="other"), Ref[GetUsage | Name])  # noqa: PLW0108 - its type is the point
    assert_type(await ref.ask(GetUsage(), timeout=1), Usage)
    assert_type(await ref.ask(Name(1), timeout=1), str)
    await ref.tell(Name(1))
    ref.post(GetUsage())
    await ref.ask(Foreign(), timeout=1)  # type: ignore[arg-type]
    await ref.tell(Foreign())  # type: ignore[arg-type]
    ref.post(Foreign())  # type: ignore[arg-type]
    await ref.ask(GetUsage())  # type: ignore[call-arg]
    text: str = await ref.ask(GetUsage(), timeout=1)  # type: ignore[arg-type]
    narrower: Ref[Name] = ref
    wider: Ref[GetUsage | Name | Foreign] = ref  # type: ignore[assignment]
    family = system.keyed(lambda _: Typed(), name="family", idle=1, limit=1)
    assert_type(family, Keyed[GetUsage | Name])
    assert_type(await family.ref(text).ask(Name(1), timeout=1), str)
    probe = test.probe(Name)
    assert_type(await probe.expect(Name), Name)
    probe.reply(Name, "one")
    probe.reply(Name, lambda message: str(message.n))
    await narrower.tell(Name(1))
    await wider.tell(Foreign())
