"""Requests for vectors, and the inputs and batches that they share."""

import asyncio
from decimal import Decimal
from typing import Any, Protocol

from opentelemetry.context import Context

from actors.embeddings.embedder import BatchKey
from actors.embeddings.endpoints import EmbeddingTarget
from actors.runtime import Callback
from protocol.embeddings import Embedded, Input, byte_size


class EmbedReply(Protocol):
    """The reply to a request; only the first call counts."""

    def resolve(self, value: Embedded) -> None:
        """Reply with the vectors."""

    def reject(self, error: Exception) -> None:
        """Reply with a failure."""


class PaidReply:
    """The reply to a request on an account: an ``EmbedReply`` for which the task waits that settles the budgets."""

    __slots__ = ("_reply",)

    def __init__(self) -> None:
        self._reply: asyncio.Future[Embedded] = asyncio.get_running_loop().create_future()
        self._reply.add_done_callback(_retrieve)

    def resolve(self, value: Embedded) -> None:
        """Reply with the vectors."""
        if not self._reply.done():
            self._reply.set_result(value)

    def reject(self, error: Exception) -> None:
        """Reply with a failure."""
        if not self._reply.done():
            self._reply.set_exception(error)

    async def wait(self) -> Embedded:
        """Wait for the reply and return it, or raise its failure."""
        return await self._reply


def _retrieve(reply: asyncio.Future[Embedded]) -> None:
    """Mark a failure as retrieved: it may come when its request has already left."""
    if not reply.cancelled():
        reply.exception()


class PendingInput:
    """One input that is on its way, and the requests that wait for it.

    Args:
        key: of its vector.
        item: the input.
        tenant: whose it is; tenants share no inputs.
        cacheable: whether its vector goes into the cache.

    Attributes:
        key: of its vector.
        item: the input.
        tenant: whose it is.
        cacheable: whether its vector goes into the cache.
        size: its bytes.
        waiting: the requests that wait for it, the first one first.
        batch: has it; None before it is in one.
    """

    __slots__ = ("batch", "cacheable", "item", "key", "size", "tenant", "waiting")

    def __init__(self, key: bytes, item: Input, tenant: str, *, cacheable: bool) -> None:
        self.key = key
        self.tenant = tenant
        self.item = item
        self.cacheable = cacheable
        self.size = byte_size(item)
        self.waiting: list[EmbedRequest] = []
        self.batch: Batch | None = None


class Batch:
    """Inputs that are sent in one call.

    ::

        gathering ──full, or its time is over──► sent ──► ended
                                                   └──no request waits any more──► cancelled

    Args:
        key: the parameters of the call.
        targets: in their order.

    Attributes:
        key: the parameters of the call.
        targets: in their order; their endpoints are held from now on.
        inputs: in the order in which they came.
        size: their bytes.
        requests: the requests that waited when it was sent.
        call: the call, while it is under way.
    """

    __slots__ = ("_held", "call", "inputs", "key", "requests", "size", "targets")

    def __init__(self, key: BatchKey, targets: tuple[EmbeddingTarget, ...]) -> None:
        self.key = key
        self.targets = targets
        self._held = True
        for target in targets:
            target.endpoint.hold()
        self.inputs: list[PendingInput] = []
        self.size = 0
        self.requests: frozenset[EmbedRequest] = frozenset()
        self.call: Callback[Any] | None = None

    def release(self) -> None:
        """Release the endpoints. Idempotent."""
        if self._held:
            self._held = False
            for target in self.targets:
                target.endpoint.release()

    def add(self, pending: PendingInput) -> None:
        """Add an input."""
        pending.batch = self
        self.inputs.append(pending)
        self.size += pending.size

    def close(self) -> "dict[EmbedRequest, list[int]]":
        """Drop the inputs for which no request waits; return the waiting requests, with the places of their inputs."""
        self.inputs = [pending for pending in self.inputs if pending.waiting]
        places: dict[EmbedRequest, list[int]] = {}
        for place, pending in enumerate(self.inputs):
            for request in pending.waiting:
                places.setdefault(request, []).append(place)
        self.requests = frozenset(places)
        return places

    def cancel_unwanted(self) -> None:
        """Cancel the call where no request waits for any of its inputs."""
        if self.call is not None and not any(pending.waiting for pending in self.inputs):
            self.call.cancel()
            self.release()


class EmbedRequest:
    """A request: the vectors that it has, and the inputs for which it waits.

    ::

        waiting ──the last vector──► resolved
           ├──a failure──► rejected
           └──the sender has gone──► left

    Args:
        reply: its reply.
        context: its trace context.
        deadline: when its sender gives up, as a time of the system's clock.
        keys: of its inputs, in their order; equal ones are one input.

    Attributes:
        context: its trace context.
        deadline: when its sender gives up.
        asked: how many inputs it was the first to ask for.
        joined: how many were on their way already.
        missing: the inputs for which it waits.
        left: whether it waits for no input any more, because its sender has gone or an input has failed.
        tokens: the tokens of the inputs that it was the first to ask for.
        usd: their price in US dollars; None where a price is unknown.
    """

    __slots__ = (
        "_cached",
        "_failed",
        "_keys",
        "_reply",
        "_vectors",
        "asked",
        "context",
        "deadline",
        "joined",
        "left",
        "missing",
        "tokens",
        "usd",
    )

    def __init__(self, reply: EmbedReply, context: Context, deadline: float, keys: tuple[bytes, ...]) -> None:
        self._reply = reply
        self._keys = keys
        self._vectors: dict[bytes, bytes] = {}
        self._cached = 0
        self._failed = False
        self.left = False
        self.tokens = 0
        self.usd: Decimal | None = Decimal(0)
        self.context = context
        self.deadline = deadline
        self.asked = 0
        self.joined = 0
        self.missing: dict[bytes, PendingInput] = {}

    def add_cached(self, key: bytes, vector: bytes) -> None:
        """Add a vector from the cache."""
        self._vectors[key] = vector
        self._cached += 1

    def wait_for(self, pending: PendingInput) -> None:
        """Wait for an input that is on its way."""
        pending.waiting.append(self)
        self.missing[pending.key] = pending

    def add(self, pending: PendingInput, vector: bytes) -> None:
        """Add a vector that has come."""
        del self.missing[pending.key]
        self._vectors[pending.key] = vector

    def pay(self, tokens: int, usd: Decimal | None) -> None:
        """Count the cost of a vector."""
        self.tokens += tokens
        self.usd = None if usd is None or self.usd is None else self.usd + usd

    def resolve_if_complete(self) -> None:
        """Reply, if no vector is missing and none has failed."""
        if not self.missing and not self._failed:
            self._reply.resolve(
                Embedded(
                    vectors=tuple(self._vectors[key] for key in self._keys),
                    tokens=self.tokens,
                    usd=self.usd,
                    asked=self.asked,
                    joined=self.joined,
                    cached=self._cached,
                )
            )

    def leave(self) -> list[PendingInput]:
        """Wait for no input any more, and return those it waited for; a call for another request goes on."""
        self.left = True
        missing, self.missing = list(self.missing.values()), {}
        for pending in missing:
            pending.waiting.remove(self)
        for batch in {pending.batch: None for pending in missing if pending.batch is not None}:
            batch.cancel_unwanted()
        return missing

    def fail(self, error: Exception) -> None:
        """Reply with a failure."""
        self._failed = True
        self._reply.reject(error)
