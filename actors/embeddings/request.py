"""Who waits for what: a request, and the inputs on their way that it shares with others."""

from decimal import Decimal
from typing import Any, Protocol

from opentelemetry.context import Context

from actors.embeddings.embedder import Target
from actors.embeddings.sources import Leg
from actors.runtime import Callback
from protocol.embeddings import Embedded, Input, byte_size


class Reply(Protocol):
    """How a request is answered: by whichever comes first."""

    def resolve(self, value: Embedded) -> None:
        """Give the vectors."""

    def reject(self, error: Exception) -> None:
        """Give a failure."""


class Unit:
    """One input on its way, and who waits for it.

    Args:
        key: by which it is found again.
        given: the input.
        kept: whether its vector goes into the cache.

    Attributes:
        key: by which it is found again.
        given: the input.
        kept: whether its vector goes into the cache.
        size: its bytes.
        waiting: the requests that want it, the first one first.
        batch: the call that it is in; None before it is in one.
    """

    __slots__ = ("batch", "given", "kept", "key", "size", "waiting")

    def __init__(self, key: bytes, given: Input, *, kept: bool) -> None:
        self.key = key
        self.given = given
        self.kept = kept
        self.size = byte_size(given)
        self.waiting: list[EmbedRequest] = []
        self.batch: Batch | None = None


class Batch:
    """Inputs that go upstream in one call.

    Args:
        target: what is asked for.
        legs: who is asked, in their order.

    Attributes:
        target: what is asked for.
        legs: who is asked, in their order; they are held from now on.
        units: the inputs, in the order in which they came.
        size: their bytes.
        requests: who waited when it was sent.
        errand: the call, while it is under way.
    """

    __slots__ = ("_held", "errand", "legs", "requests", "size", "target", "units")

    def __init__(self, target: Target, legs: tuple[Leg, ...]) -> None:
        self.target = target
        self.legs = legs
        self._held = True
        for leg in legs:
            leg.source.hold()
        self.units: list[Unit] = []
        self.size = 0
        self.requests: frozenset[EmbedRequest] = frozenset()
        self.errand: Callback[Any] | None = None

    def release(self) -> None:
        """Hold the legs no more. Idempotent."""
        if self._held:
            self._held = False
            for leg in self.legs:
                leg.source.release()

    def add(self, unit: Unit) -> None:
        """Take one more."""
        unit.batch = self
        self.units.append(unit)
        self.size += unit.size

    def close(self) -> "dict[EmbedRequest, list[int]]":
        """Drop what nobody waits for, and return who waits for the inputs at which places."""
        self.units = [unit for unit in self.units if unit.waiting]
        groups: dict[EmbedRequest, list[int]] = {}
        for place, unit in enumerate(self.units):
            for request in unit.waiting:
                groups.setdefault(request, []).append(place)
        self.requests = frozenset(groups)
        return groups

    def give_up(self) -> None:
        """End the call, once nobody waits for anything of it."""
        if self.errand is not None and not any(unit.waiting for unit in self.units):
            self.errand.cancel()
            self.release()


class EmbedRequest:
    """A request: what it has, and what it still lacks.

    Args:
        reply: its reply.
        context: its place in the trace.
        deadline: when its asker gives up, as a time of the system's clock.
        keys: of its inputs, in their order; equal ones are one input.

    Attributes:
        context: its place in the trace.
        deadline: when its asker gives up.
        asked: how many inputs it was the first to ask for.
        joined: how many were on their way already.
        lacking: the inputs that it waits for.
        left: whether it waits for nothing any more, of its own accord or because it has failed.
        tokens: what it has caused upstream.
        usd: what that costs in US dollars; None where a price is unknown.
    """

    __slots__ = (
        "_cached",
        "_failed",
        "_found",
        "_keys",
        "_reply",
        "asked",
        "context",
        "deadline",
        "joined",
        "lacking",
        "left",
        "tokens",
        "usd",
    )

    def __init__(self, reply: Reply, context: Context, deadline: float, keys: tuple[bytes, ...]) -> None:
        self._reply = reply
        self._keys = keys
        self._found: dict[bytes, bytes] = {}
        self._cached = 0
        self._failed = False
        self.left = False
        self.tokens = 0
        self.usd: Decimal | None = Decimal(0)
        self.context = context
        self.deadline = deadline
        self.asked = 0
        self.joined = 0
        self.lacking: dict[bytes, Unit] = {}

    def know(self, key: bytes, vector: bytes) -> None:
        """Take a vector from the cache."""
        self._found[key] = vector
        self._cached += 1

    def want(self, unit: Unit) -> None:
        """Wait for an input on its way."""
        unit.waiting.append(self)
        self.lacking[unit.key] = unit

    def take(self, unit: Unit, vector: bytes) -> None:
        """Take a vector that has come."""
        del self.lacking[unit.key]
        self._found[unit.key] = vector

    def pay(self, tokens: int, usd: Decimal | None) -> None:
        """Count what a vector has cost."""
        self.tokens += tokens
        self.usd = None if usd is None or self.usd is None else self.usd + usd

    def settle(self) -> None:
        """Reply, if nothing is lacking any more, and nothing has failed."""
        if not self.lacking and not self._failed:
            self._reply.resolve(
                Embedded(
                    vectors=tuple(self._found[key] for key in self._keys),
                    tokens=self.tokens,
                    usd=self.usd,
                    asked=self.asked,
                    joined=self.joined,
                    cached=self._cached,
                )
            )

    def leave(self) -> list[Unit]:
        """Wait for nothing any more; return what it lacked. A call goes on as long as another request waits for it."""
        self.left = True
        lacking, self.lacking = list(self.lacking.values()), {}
        for unit in lacking:
            unit.waiting.remove(self)
        for batch in {unit.batch: None for unit in lacking if unit.batch is not None}:
            batch.give_up()
        return lacking

    def fail(self, error: Exception) -> None:
        """Reply with a failure."""
        self._failed = True
        self._reply.reject(error)
