"""The actor that embeds: it gathers texts into batches, asks for each text once, and keeps what has come."""

import os
from collections.abc import Mapping
from functools import partial
from typing import ClassVar, Final

from actors.embeddings.budget import Pending, Till
from actors.embeddings.call import REFUSED, BatchCall, Outcome
from actors.embeddings.config import Bounds
from actors.embeddings.embedder import Embedder, Target
from actors.embeddings.embedding import Plan
from actors.embeddings.request import Batch, EmbedRequest, Unit
from actors.embeddings.sources import Leg, Make, Sources
from actors.embeddings.vector_cache import DIGEST_BYTES, VectorCache, encoded, key_of, scope_of
from actors.ledger import MemoryLedger
from actors.runtime import Actor, Deferred, handles
from actors.upstream.concurrency import Lane
from actors.upstream.pricing import Prices
from actors.upstream.retry import RetryPolicy
from protocol.budgets import Account
from protocol.embeddings import Embed, Embedded, Input, byte_size
from protocol.errors import DeadlineExceeded, Overloaded, TidegateError
from protocol.gateway import ListModels, ModelInfo
from protocol.ledger import Ledger, Spend
from protocol.message import Message
from protocol.routes import ProviderSpec, Routes, SetRoutes

MARGIN: Final = 0.02  # seconds by which our deadline precedes the askers', so that they hear a typed error
NEVER: Final = float("inf")
RETRY_AFTER: Final = 1.0  # seconds
ANEW: Final = frozenset({REFUSED, DeadlineExceeded.code})
"""Failures of a call after which a text is asked for anew, for those who were not in it from the beginning."""


class Begin(Message[None], frozen=True):
    """Answer a request.

    Attributes:
        request: who waits.
        wanted: its inputs, by their keys.
        target: what is asked for.
        legs: who is asked, in their order.
        kept: whether the vectors go into the cache.
    """

    request: EmbedRequest
    wanted: dict[bytes, Input]
    target: Target
    legs: tuple[Leg, ...]
    kept: bool


class Flush(Message[None], frozen=True):
    """A batch has waited long enough."""

    batch: Batch


class Settled(Message[None], frozen=True):
    """What became of a batch: of each of its inputs, or of the attempt to ask at all."""

    batch: Batch
    outcomes: tuple[Outcome, ...] | Exception


def _none(_name: str, _spec: ProviderSpec) -> None:
    """Make no embedder."""


class EmbeddingsActor(Actor[Embed | ListModels | SetRoutes | Begin | Flush | Settled]):
    """Turns texts into vectors.

    A text is asked for once while it is on its way or in the cache, whoever of one tenant wants it.

    Args:
        embedders: by their names; they are opened and closed with the actor.
        default_model: what ``default`` means: an alias, or ``provider/model``, whose provider also takes names without.
        routes: what is in force until ``SetRoutes`` says otherwise.
        make_embedder: makes a provider that the routes name, or None for one that does not embed.
        bounds: what is allowed.
        retry: when a failed attempt is followed by another.
        ledger: where what accounts spend is kept; None for one in memory that nobody else sees.

    Raises:
        ConfigurationError: ``default_model`` or a route names a provider or a model that is not there.
    """

    capacity: ClassVar[int] = 4096

    def __init__(
        self,
        embedders: Mapping[str, Embedder],
        *,
        default_model: str,
        routes: Routes | None = None,
        make_embedder: Make = _none,
        bounds: Bounds | None = None,
        retry: RetryPolicy | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._bounds = bounds or Bounds()
        self._retry = retry or RetryPolicy()
        self._prices = Prices()
        self._till = Till(self._prices, ledger or MemoryLedger())
        self._sources = Sources(
            embedders,
            default_model=default_model,
            routes=routes or Routes(),
            make=make_embedder,
            lane=partial(_lane, bounds=self._bounds),
        )
        self._cache = VectorCache(self._bounds.cache_bytes)
        self._on_way: dict[bytes, Unit] = {}
        self._size = 0
        self._gathering: dict[Target, Batch] = {}

    async def started(self) -> None:
        """Open the embedders; none of them waits for anything slow."""
        await self._sources.open()

    async def stopped(self) -> None:
        """Close the embedders, also those that new routes have done away with."""
        await self._sources.close()

    @handles(Embed)
    async def embed(self, message: Embed) -> Deferred[Embedded]:
        """Take from the cache what is there, join what is on its way, and let the rest wait for company."""
        legs = self._sources.legs(message.model)
        target = Target(
            targets=tuple(leg.target for leg in legs),
            dimensions=message.dimensions,
            extra=encoded(message.extra),
            tokens=not all(isinstance(given, str) for given in message.inputs),
        )
        keys = _keys(message, target)
        wanted = dict(zip(keys, message.inputs, strict=True))
        self._check_room(wanted)
        deadline = NEVER if self.deadline is None else self.deadline
        if message.account is not None:
            pending = Pending()
            request = EmbedRequest(pending, self.context, deadline, keys)
            begin = Begin(request, wanted, target, legs, message.dedupe)
            return self.defer(self._paid(message.account, begin, pending))
        promise = self.promise(Embed)
        request = EmbedRequest(promise, self.context, deadline, keys)
        promise.on_abandon(partial(self._left, request))
        self._begin(Begin(request, wanted, target, legs, message.dedupe))
        return promise

    @handles(Begin)
    async def begin(self, message: Begin) -> None:
        """Go on with a request for which room is held, unless its asker has left meanwhile."""
        if not message.request.left:
            self._begin(message)

    @handles(ListModels)
    async def models(self, _message: ListModels) -> tuple[ModelInfo, ...]:
        """``default``, what it means, the aliases, and then every model that an embedder lists."""
        return self._sources.models()

    @handles(SetRoutes)
    async def set_routes(self, message: SetRoutes) -> None:
        """Put other routes in force. An embedder that they do away with is closed after its last call."""
        await self._sources.replace(message.routes)

    @handles(Flush)
    async def flush(self, message: Flush) -> None:
        """Send a batch whose time is over, unless it has gone because it was full."""
        batch = message.batch
        if self._gathering.get(batch.target) is batch:
            self._send(batch)

    @handles(Settled)
    async def settled(self, message: Settled) -> None:
        """Give everybody the vectors, and the first who wanted a text what it has cost."""
        batch, outcomes = message.batch, message.outcomes
        batch.errand = None
        batch.release()
        taken: dict[EmbedRequest, None] = {}
        for place, unit in enumerate(batch.units):
            outcome = outcomes if isinstance(outcomes, Exception) else outcomes[place]
            if isinstance(outcome, Exception):
                self._failed(batch, unit, outcome)
                continue
            self._forget(unit)
            if unit.kept:
                self._cache.put(unit.key, outcome.vector)
            for turn, request in enumerate(unit.waiting):
                request.take(unit, outcome.vector)
                if not turn:
                    request.pay(outcome.tokens, outcome.usd)
                taken[request] = None
            unit.waiting.clear()
        for request in taken:
            request.settle()
        await self._sources.sweep()

    async def _paid(self, account: Account, begin: Begin, pending: Pending) -> Embedded:
        """Answer a request whose account pays for what nobody has asked for yet."""
        request = begin.request
        new = [given for key, given in begin.wanted.items() if key not in self._on_way and not self._cache.get(key)]
        for leg in begin.legs:
            leg.source.hold()
        try:
            async with self._till.bill(account, begin.legs, new, lambda: Spend(request.tokens, request.usd)):
                self.ref.post(begin)
                return await pending.reply()
        finally:
            self._left(request)
            for leg in begin.legs:
                leg.source.release()

    def _begin(self, message: Begin) -> None:
        request = message.request
        for key, given in message.wanted.items():
            if vector := self._cache.get(key):
                request.know(key, vector)
            elif (unit := self._on_way.get(key)) is not None:
                request.joined += 1
                request.want(unit)
            else:
                request.asked += 1
                unit = Unit(key, given, kept=message.kept)
                request.want(unit)
                self._add(unit, message.target, message.legs)
        request.settle()

    def _check_room(self, wanted: Mapping[bytes, Input]) -> None:
        new = [given for key, given in wanted.items() if key not in self._on_way]
        size = self._size + sum(map(byte_size, new))
        if len(self._on_way) + len(new) > self._bounds.inputs or size > self._bounds.bytes:
            raise Overloaded(f"{len(self._on_way)} texts wait to be embedded", retry_after=RETRY_AFTER)

    def _add(self, unit: Unit, target: Target, legs: tuple[Leg, ...]) -> None:
        """Put a text into the batch for its target; one that it does not fit into goes without it."""
        limits = [leg.source.embedder.limits for leg in legs]
        batch = self._gathering.get(target)
        if batch is not None and batch.size + unit.size > min(limit.bytes for limit in limits):
            self._send(batch)
            batch = None
        if batch is None:
            batch = Batch(target, legs)
            self.schedule(self._bounds.window, Flush(batch))
            self._gathering[target] = batch
        batch.add(unit)
        if unit.key not in self._on_way:
            self._on_way[unit.key] = unit
            self._size += unit.size
        if len(batch.units) >= min(limit.inputs for limit in limits):
            self._send(batch)

    def _send(self, batch: Batch) -> None:
        """Ask for all of a batch that anybody still waits for."""
        target = batch.target
        del self._gathering[target]
        groups = batch.close()
        if not groups:
            batch.release()
            return
        clock = self.system.clock
        call = BatchCall(
            legs=batch.legs,
            plan=Plan(
                target=target,
                contexts=tuple(request.context for request in groups),
                deadline=min(clock.time() + self._bounds.total, max(request.deadline for request in groups) - MARGIN),
                retry=self._retry,
                clock=clock,
                tracer=self.system.tracer,
            ),
            inputs=tuple(unit.given for unit in batch.units),
            groups=tuple(map(tuple, groups.values())),
            prices=self._prices,
        )
        try:
            batch.errand = self.pipe(call.run(), partial(Settled, batch), partial(Settled, batch))
        except Overloaded as error:
            batch.release()
            for unit in batch.units:
                self._failed(batch, unit, error)

    def _failed(self, batch: Batch, unit: Unit, error: Exception) -> None:
        """Fail who waits for a text; who joined it under way answers neither for the other texts nor for the time."""
        fresh = isinstance(error, TidegateError) and error.code in ANEW
        for request in [request for request in unit.waiting if request in batch.requests or not fresh]:
            self._left(request)
            request.fail(error)
        if unit.waiting:
            self._add(unit, batch.target, batch.legs)

    def _left(self, request: EmbedRequest) -> None:
        """Let a request wait for nothing any more, and drop what nobody else waits for."""
        for unit in request.leave():
            if not unit.waiting:
                self._forget(unit)

    def _forget(self, unit: Unit) -> None:
        if self._on_way.get(unit.key) is unit:
            del self._on_way[unit.key]
            self._size -= unit.size


def _lane(embedder: Embedder, bounds: Bounds) -> Lane:
    limits = embedder.limits
    return Lane(
        embedder.name,
        concurrency=bounds.concurrency if limits.concurrency is None else limits.concurrency,
        queue=bounds.queue if limits.queue is None else limits.queue,
    )


def _keys(message: Embed, target: Target) -> tuple[bytes, ...]:
    """Return what the inputs are found by: equal for equal ones of one tenant, unless nothing is to be shared."""
    if not message.dedupe:
        return tuple(os.urandom(DIGEST_BYTES) for _ in message.inputs)
    scope = scope_of(message.tenant, target)
    return tuple(key_of(scope, given) for given in message.inputs)
