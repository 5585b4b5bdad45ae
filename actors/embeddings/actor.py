"""The embeddings actor: gathers texts into batches, sends each text once, and caches the vectors."""

import os
from collections.abc import Collection, Mapping
from functools import partial
from typing import ClassVar, Final

from actors.embeddings.call import REFUSED, BatchCall, Outcome
from actors.embeddings.config import EmbeddingBounds
from actors.embeddings.embedder import BatchKey, Embedder
from actors.embeddings.embedding import EmbeddingPlan, estimate
from actors.embeddings.endpoints import EmbedderEndpoints, EmbeddingTarget, MakeEmbedder
from actors.embeddings.request import Batch, EmbedRequest, PaidReply, PendingInput
from actors.embeddings.vector_cache import DIGEST_BYTES, VectorCache, encoded, key_of, scope_of
from actors.fair_shares import FairShares, Tenants
from actors.ledger import MemoryLedger
from actors.resilience.retry import RetryPolicy
from actors.runtime import Actor, Deferred, handles
from actors.upstream.budget import BudgetGuard
from actors.upstream.concurrency import ConcurrencyLimiter
from actors.upstream.pricing import Prices
from protocol.budgets import Account
from protocol.embeddings import Embed, Embedded, Input, byte_size
from protocol.errors import DeadlineExceeded, Overloaded, TidegateError
from protocol.gateway import ListModels, ModelInfo
from protocol.ledger import Ledger, Spend
from protocol.message import Message
from protocol.routes import ProviderSpec, Routes, SetRoutes

MARGIN: Final = 0.02  # seconds by which our deadline precedes the senders', so that they get a typed error
NEVER: Final = float("inf")
RETRY_AFTER: Final = 1.0  # seconds
RESENT: Final = REFUSED | {DeadlineExceeded.code}
"""Failures of a call after which a text is sent again for the requests that joined it under way."""


class Begin(Message[None], frozen=True):
    """Begin to answer a request.

    Attributes:
        request: the request.
        tenant: whose it is.
        wanted: its inputs, by their keys.
        key: the parameters of the call.
        targets: in their order.
        cacheable: whether the vectors go into the cache.
    """

    request: EmbedRequest
    tenant: str
    wanted: dict[bytes, Input]
    key: BatchKey
    targets: tuple[EmbeddingTarget, ...]
    cacheable: bool


class Flush(Message[None], frozen=True):
    """The time of a batch to gather inputs is over."""

    batch: Batch


class Settled(Message[None], frozen=True):
    """The outcome of a batch: of each of its inputs, or of the whole call."""

    batch: Batch
    outcomes: tuple[Outcome, ...] | Exception


def _none(_name: str, _spec: ProviderSpec) -> None:
    """Make no embedder."""


class EmbeddingsActor(Actor[Embed | ListModels | SetRoutes | Begin | Flush | Settled]):
    """Turns texts into vectors.

    A text is sent once while it is on its way or in the cache, however many requests of one tenant want it.

    Args:
        embedders: by their names; they are opened and closed with the actor.
        default_model: the target of ``default``: an alias, or ``provider/model``, whose provider also serves names
            without a provider.
        routes: in force until ``SetRoutes`` replaces them.
        make_embedder: makes a provider that the routes name; returns None for one that does not embed.
        bounds: the actor's bounds.
        tenants: share them; None for any tenants.
        retry: when a failed attempt is followed by another.
        ledger: counts what accounts spend; None for one in memory, of this actor alone.

    Raises:
        ConfigurationError: ``default_model`` or a route names a provider or a model that does not exist.
    """

    capacity: ClassVar[int] = 4096

    def __init__(
        self,
        embedders: Mapping[str, Embedder],
        *,
        default_model: str,
        routes: Routes | None = None,
        make_embedder: MakeEmbedder = _none,
        bounds: EmbeddingBounds | None = None,
        tenants: Tenants | None = None,
        retry: RetryPolicy | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._bounds = bounds or EmbeddingBounds()
        self._retry = retry or RetryPolicy()
        self._prices = Prices()
        self._budget = BudgetGuard(self._prices, ledger or MemoryLedger())
        self._endpoints = EmbedderEndpoints(
            embedders,
            default_model=default_model,
            routes=routes or Routes(),
            make=make_embedder,
            limiter=partial(_limiter, bounds=self._bounds),
        )
        tenants = tenants or Tenants()
        self._cache = VectorCache(self._bounds.cache_bytes, tenants)
        self._on_way: dict[bytes, PendingInput] = {}
        self._inputs = FairShares(self._bounds.inputs, tenants, rule="reserve")
        self._bytes = FairShares(self._bounds.bytes, tenants, rule="reserve")
        self._gathering: dict[BatchKey, Batch] = {}

    async def started(self) -> None:
        """Open the embedders; none of them waits for anything slow."""
        await self._endpoints.open()

    async def stopped(self) -> None:
        """Close the embedders, also those that new routes have removed."""
        await self._endpoints.close()

    @handles(Embed)
    async def embed(self, message: Embed) -> Deferred[Embedded]:
        """Take vectors from the cache, join inputs that are on their way, and add the others to a batch."""
        targets = self._endpoints.targets(message.model)
        key = BatchKey(
            targets=tuple(target.name for target in targets),
            dimensions=message.dimensions,
            extra=encoded(message.extra),
            tokens=not all(isinstance(item, str) for item in message.inputs),
        )
        keys = _keys(message, key)
        wanted = dict(zip(keys, message.inputs, strict=True))
        self._check_room(message.tenant, wanted)
        deadline = NEVER if self.deadline is None else self.deadline
        if message.account is not None:
            reply = PaidReply()
            request = EmbedRequest(reply, self.context, deadline, keys)
            begin = Begin(request, message.tenant, wanted, key, targets, message.dedupe)
            return self.defer(self._paid(message.account, begin, reply))
        promise = self.promise(Embed)
        request = EmbedRequest(promise, self.context, deadline, keys)
        promise.on_abandon(partial(self._left, request))
        self._begin(Begin(request, message.tenant, wanted, key, targets, message.dedupe))
        return promise

    @handles(Begin)
    async def begin(self, message: Begin) -> None:
        """Begin a request for which room in budgets is held, unless its sender has gone meanwhile."""
        if not message.request.left:
            self._begin(message)

    @handles(ListModels)
    async def models(self, _message: ListModels) -> tuple[ModelInfo, ...]:
        """Return ``default``, the target of ``default``, the aliases, and then every model that an embedder lists."""
        return self._endpoints.models()

    @handles(SetRoutes)
    async def set_routes(self, message: SetRoutes) -> None:
        """Replace the routes. An embedder that the new ones do not name is closed after its last call."""
        await self._endpoints.replace(message.routes)

    @handles(Flush)
    async def flush(self, message: Flush) -> None:
        """Send a batch whose time is over, unless it was full and has been sent."""
        batch = message.batch
        if self._gathering.get(batch.key) is batch:
            self._send(batch)

    @handles(Settled)
    async def settled(self, message: Settled) -> None:
        """Give the vectors to all waiting requests, and the cost of each to the first of them."""
        batch, outcomes = message.batch, message.outcomes
        batch.call = None
        batch.release()
        served: dict[EmbedRequest, None] = {}
        for place, pending in enumerate(batch.inputs):
            outcome = outcomes if isinstance(outcomes, Exception) else outcomes[place]
            if isinstance(outcome, Exception):
                self._failed(batch, pending, outcome)
                continue
            self._forget(pending)
            if pending.cacheable:
                self._cache.put(pending.key, outcome.vector, pending.tenant)
            for index, request in enumerate(pending.waiting):
                request.add(pending, outcome.vector)
                if not index:
                    request.pay(outcome.tokens, outcome.usd)
                served[request] = None
            pending.waiting.clear()
        for request in served:
            request.resolve_if_complete()
        await self._endpoints.close_unused()

    async def _paid(self, account: Account, begin: Begin, reply: PaidReply) -> Embedded:
        """Answer a request on an account, which pays for the inputs that no other request has sent."""
        request = begin.request
        new = [item for key, item in begin.wanted.items() if self._is_new(key, begin.tenant)]
        hold = self._budget.hold(account, begin.targets, lambda: (estimate(new), 0))
        for target in begin.targets:
            target.endpoint.hold()
        try:
            await hold.reserve()
            try:
                self.ref.post(begin)
                return await reply.wait()
            finally:
                await hold.settle(Spend(request.tokens, request.usd))
        finally:
            self._left(request)
            for target in begin.targets:
                target.endpoint.release()

    def _begin(self, message: Begin) -> None:
        request, tenant = message.request, message.tenant
        try:
            self._take(tenant, message.wanted, [key for key in message.wanted if self._is_new(key, tenant)])
        except Overloaded as error:
            request.fail(error)
            return
        for key, item in message.wanted.items():
            if vector := self._cache.get(key, tenant):
                request.add_cached(key, vector)
            elif (pending := self._on_way.get(key)) is not None:
                request.joined += 1
                request.wait_for(pending)
            else:
                request.asked += 1
                pending = PendingInput(key, item, tenant, cacheable=message.cacheable)
                request.wait_for(pending)
                self._add(pending, message.key, message.targets)
        request.resolve_if_complete()

    def _is_new(self, key: bytes, tenant: str) -> bool:
        """Whether an input is neither on its way nor in the cache."""
        return key not in self._on_way and not self._cache.get(key, tenant)

    def _check_room(self, tenant: str, wanted: Mapping[bytes, Input]) -> None:
        """Refuse a request before it holds room in budgets; its inputs are counted when it begins."""
        self._give_back(tenant, self._take(tenant, wanted, [key for key in wanted if key not in self._on_way]))

    def _take(self, tenant: str, wanted: Mapping[bytes, Input], new: Collection[bytes]) -> tuple[int, int]:
        """Take room for these inputs of a tenant; return their number and their bytes.

        Raises:
            Overloaded: there is no room for all of them.
        """
        size = sum([byte_size(wanted[key]) for key in new])
        if self._inputs.take(tenant, len(new)):
            if self._bytes.take(tenant, size):
                return len(new), size
            self._inputs.give_back(tenant, len(new))
        raise Overloaded(f"{self._inputs.held(tenant)} texts wait to be embedded", retry_after=RETRY_AFTER)

    def _give_back(self, tenant: str, taken: tuple[int, int]) -> None:
        inputs, size = taken
        self._inputs.give_back(tenant, inputs)
        self._bytes.give_back(tenant, size)

    def _add(self, pending: PendingInput, key: BatchKey, targets: tuple[EmbeddingTarget, ...]) -> None:
        """Add an input to the batch of its parameters; a batch that has no room for it is sent first."""
        limits = [target.endpoint.embedder.limits for target in targets]
        batch = self._gathering.get(key)
        if batch is not None and batch.size + pending.size > min(limit.bytes for limit in limits):
            self._send(batch)
            batch = None
        if batch is None:
            batch = Batch(key, targets)
            self.schedule(self._bounds.window, Flush(batch))
            self._gathering[key] = batch
        batch.add(pending)
        self._on_way[pending.key] = pending
        if len(batch.inputs) >= min(limit.inputs for limit in limits):
            self._send(batch)

    def _send(self, batch: Batch) -> None:
        """Send the inputs of a batch for which a request still waits."""
        del self._gathering[batch.key]
        places = batch.close()
        if not places:
            batch.release()
            return
        clock = self.system.clock
        call = BatchCall(
            targets=batch.targets,
            plan=EmbeddingPlan(
                key=batch.key,
                contexts=tuple(request.context for request in places),
                deadline=min(clock.time() + self._bounds.total, max(request.deadline for request in places) - MARGIN),
                retry=self._retry,
                clock=clock,
                tracer=self.system.tracer,
            ),
            inputs=tuple(pending.item for pending in batch.inputs),
            groups=tuple(map(tuple, places.values())),
            prices=self._prices,
        )
        try:
            batch.call = self.pipe(call.run(), partial(Settled, batch), partial(Settled, batch))
        except Overloaded as error:
            batch.release()
            for pending in batch.inputs:
                self._failed(batch, pending, error)

    def _failed(self, batch: Batch, pending: PendingInput, error: Exception) -> None:
        """Fail the requests that wait for an input; those that joined it under way get another call where that helps.

        A refusal may be for other inputs of the batch, and a deadline for the requests that it was sent for.
        """
        resent = isinstance(error, TidegateError) and error.code in RESENT
        for request in [request for request in pending.waiting if request in batch.requests or not resent]:
            self._left(request)
            request.fail(error)
        if pending.waiting:
            self._add(pending, batch.key, batch.targets)

    def _left(self, request: EmbedRequest) -> None:
        """Let a request wait for no input any more, and forget the inputs for which no other request waits."""
        for pending in request.leave():
            if not pending.waiting:
                self._forget(pending)

    def _forget(self, pending: PendingInput) -> None:
        if self._on_way.get(pending.key) is pending:
            del self._on_way[pending.key]
            self._give_back(pending.tenant, (1, pending.size))


def _limiter(embedder: Embedder, bounds: EmbeddingBounds) -> ConcurrencyLimiter:
    limits = embedder.limits
    return ConcurrencyLimiter(
        embedder.name,
        concurrency=bounds.concurrency if limits.concurrency is None else limits.concurrency,
        queue=bounds.queue if limits.queue is None else limits.queue,
    )


def _keys(message: Embed, key: BatchKey) -> tuple[bytes, ...]:
    """Return the keys of the inputs: equal for equal ones of one tenant, unless no vector is to be shared."""
    if not message.dedupe:
        return tuple(os.urandom(DIGEST_BYTES) for _ in message.inputs)
    scope = scope_of(message.tenant, key)
    return tuple(key_of(scope, item) for item in message.inputs)
