"""The entry point for requests: it decides which log answers a submission.

In this order: the log of the request with this idempotency key; the running log with this fingerprint, joined; a
finished log with this fingerprint, replayed from the cache; otherwise a new run. The router owns the tables of requests
and runs; each run owns its log, and has its own actor.
"""

import logging
from contextlib import suppress
from functools import partial
from typing import Final

from opentelemetry import trace

from actors.requests.failure import failure
from actors.requests.fingerprint import body_digest, fingerprint
from actors.requests.limits import RequestLimits
from actors.requests.outcome import LOGGER, log_end
from actors.requests.record import RequestRecord
from actors.requests.run import Run
from actors.requests.runs import RunTable
from actors.requests.store import RequestStore
from actors.requests.stream import RequestStream
from actors.runtime import Actor, Deferred, Promise, Ref, Timer, handles
from protocol import ids, spans
from protocol.cache import CachedLog, CacheGet, CachePut
from protocol.errors import (
    ActorStopped,
    DeadlineExceeded,
    IdempotencyKeyReused,
    NotFound,
    Overloaded,
    TidegateError,
)
from protocol.events import Cancelled, Failed
from protocol.gateway import Complete, ResolveModel
from protocol.message import Message
from protocol.requests import CancelRequest, GetRequest, RequestHandle, Source, Submit, Submitted

DEFAULT_LIMITS: Final = RequestLimits()
SWEEP_INTERVAL: Final = 15.0  # seconds between two sweeps of the store
CACHE_TIMEOUT: Final = 1.0  # seconds; a slower cache counts as a miss
RESOLVE_TIMEOUT: Final = 5.0  # seconds
MAX_MODELS: Final = 1024  # model names that are known to be served; at the bound all are forgotten

_log = logging.getLogger(LOGGER)


class ModelResolved(Message[None], frozen=True):
    """The gateway serves the submission's model; the next step is ``cache``, if there is one."""

    submit: Submit
    digest: bytes
    cache: Ref[CacheGet | CachePut] | None
    reply: Promise[Submitted]


class SubmitRefused(Message[None], frozen=True):
    """The gateway does not serve the submission's model, or has not answered."""

    error: Exception
    reply: Promise[Submitted]


class CacheAnswered(Message[None], frozen=True):
    """The cache's answer to a submission; None for a miss."""

    submit: Submit
    digest: bytes
    cached: CachedLog | None
    reply: Promise[Submitted]


class RequestTimedOut(Message[None], frozen=True):
    """The timeout of a request that joined another one's run is over."""

    request_id: str
    tenant: str


class GraceExpired(Message[None], frozen=True):
    """A request has had no follower for the grace period."""

    request_id: str
    tenant: str


class ForgetModels(Message[None], frozen=True):
    """The gateway's models have changed: ask it again for each name."""


class SweepRequests(Message[None], frozen=True):
    """Drop the ended requests whose time is over."""


RouterMessage = (
    Submit
    | GetRequest
    | CancelRequest
    | ForgetModels
    | ModelResolved
    | SubmitRefused
    | CacheAnswered
    | RequestTimedOut
    | GraceExpired
    | SweepRequests
)


class RequestRouter(Actor[RouterMessage]):
    """Finds or starts the run for each submission, and stores the requests.

    Args:
        gateway: completes the requests.
        cache: stores finished logs; None for no cache.
        limits: how many requests are stored, for how long, and how large.
    """

    capacity = 4096
    overflow = "reject"

    def __init__(
        self,
        *,
        gateway: "Ref[Complete | ResolveModel]",
        cache: "Ref[CacheGet | CachePut] | None" = None,
        limits: RequestLimits = DEFAULT_LIMITS,
    ) -> None:
        self._gateway = gateway
        self._cache = cache
        self._limits = limits
        self._grace_timers: dict[str, Timer] = {}  # by request id: requests without a follower
        self._store = RequestStore(ttl=limits.ttl, max_requests=limits.max_requests, max_bytes=limits.max_bytes)
        self._models: set[str] = set()

    async def started(self) -> None:
        """Create the table of runs, and schedule the first sweep."""
        self._tracing = self.system.tracing
        self._runs = RunTable(
            self.system,
            gateway=self._gateway,
            cache=self._cache,
            limit=self._limits.max_requests,
            ring_bytes=self._limits.ring_bytes,
            on_end=self._run_ended,
        )
        self.schedule(SWEEP_INTERVAL, SweepRequests())

    async def stopped(self) -> None:
        """End all runs, so that their readers get an end and can submit again elsewhere."""
        await self._runs.close()

    @handles(Submit)
    async def submit(self, message: Submit) -> Submitted | Deferred[Submitted]:
        """Find or start the run for this submission, in the order of the module's docstring."""
        if message.idempotency_key:
            known = self._store.by_key(message.tenant, message.idempotency_key)
            if known is not None:
                return self._repeat(message, *known)
        digest = fingerprint(
            message.tenant,
            message.request,
            message.delivery.prompt_version,
            restart=message.delivery.on_attempt_failed == "restart",
            repair=message.delivery.repair,
        )
        run = self._joinable(message, digest)
        if run is not None:
            return self._join(message, run)
        served = message.request.model in self._models
        cache = self._cache if message.delivery.dedupe and message.delivery.cache_ttl > 0 else None
        if served and cache is None:
            return self._begin(message, digest)
        reply = self.promise(Submit)
        if served and cache is not None:
            self._ask_cache(cache, message, digest, reply)
        else:
            self.ask_then(
                self._gateway,
                ResolveModel(message.request.model),
                timeout=RESOLVE_TIMEOUT,
                ok=lambda _: ModelResolved(message, digest, cache, reply),
                err=lambda error: SubmitRefused(error, reply),
            )
        return reply

    @handles(ModelResolved)
    async def model_resolved(self, message: ModelResolved) -> None:
        """Remember that the model is served, and ask the cache."""
        if len(self._models) >= MAX_MODELS:
            self._models.clear()
        self._models.add(message.submit.request.model)
        if message.cache is None:
            self._reply(message.reply, message.submit, message.digest, None)
        else:
            self._ask_cache(message.cache, message.submit, message.digest, message.reply)

    @handles(SubmitRefused)
    async def submit_refused(self, message: SubmitRefused) -> None:
        """Reply with the error."""
        message.reply.reject(message.error)

    @handles(CacheAnswered)
    async def cache_answered(self, message: CacheAnswered) -> None:
        """Decide which log answers, now that the cache has replied."""
        self._reply(message.reply, message.submit, message.digest, message.cached)

    @handles(GetRequest)
    async def get(self, message: GetRequest) -> RequestHandle:
        """Return a request of this tenant."""
        return self._find(message.request_id, message.tenant)

    @handles(CancelRequest)
    async def cancel(self, message: CancelRequest) -> RequestHandle:
        """Cancel a request. Its run goes on for the others, and is cancelled with the last one."""
        record = self._find(message.request_id, message.tenant)
        self._leave(record, Cancelled(reason=message.reason))
        return record

    @handles(RequestTimedOut)
    async def timed_out(self, message: RequestTimedOut) -> None:
        """End a joined request at its own deadline; its run's deadline may be later."""
        record = self._store.get(message.request_id, message.tenant)
        if record is not None:
            self._leave(record, failure(DeadlineExceeded()))

    @handles(GraceExpired)
    async def grace_expired(self, message: GraceExpired) -> None:
        """Cancel an abandoned request, unless it has a follower again."""
        self._grace_timers.pop(message.request_id, None)
        record = self._store.get(message.request_id, message.tenant)
        if record is not None and not record.stream.followers:
            self._leave(record, Cancelled(reason="abandoned"))

    @handles(ForgetModels)
    async def forget_models(self, _message: ForgetModels) -> None:
        """Forget which models the gateway serves."""
        self._models.clear()

    @handles(SweepRequests)
    async def sweep(self, _message: SweepRequests) -> None:
        """Drop the ended requests whose time is over, and schedule the next sweep."""
        self._store.expire()
        expired, self._store.expired = self._store.expired, 0
        if expired and _log.isEnabledFor(logging.DEBUG):
            _log.debug("requests_expired", extra={"fields": {"count": expired}})
        self.schedule(SWEEP_INTERVAL, SweepRequests())

    def _repeat(self, message: Submit, digest: bytes, record: RequestRecord) -> Submitted:
        if digest != body_digest(message):
            raise IdempotencyKeyReused
        return Submitted(record, replayed=True)

    def _joinable(self, message: Submit, digest: bytes) -> Run | None:
        return self._runs.joinable(digest) if message.delivery.dedupe else None

    def _ask_cache(
        self, cache: Ref[CacheGet | CachePut], message: Submit, digest: bytes, reply: Promise[Submitted]
    ) -> None:
        """Ask the cache; an error or a timeout counts as a miss."""
        self.ask_then(
            cache,
            CacheGet(digest),
            timeout=CACHE_TIMEOUT,
            ok=lambda cached: CacheAnswered(message, digest, cached, reply),
            err=lambda _: CacheAnswered(message, digest, None, reply),
        )

    def _reply(self, reply: Promise[Submitted], message: Submit, digest: bytes, cached: CachedLog | None) -> None:
        try:
            reply.resolve(self._decide(message, digest, cached))
        except TidegateError as error:
            reply.reject(error)

    def _decide(self, message: Submit, digest: bytes, cached: CachedLog | None) -> Submitted:
        """Look again for the key and the running log: others may have been submitted in the meantime."""
        if message.idempotency_key:
            known = self._store.by_key(message.tenant, message.idempotency_key)
            if known is not None:
                return self._repeat(message, *known)
        run = self._joinable(message, digest)
        if run is not None:
            return self._join(message, run)
        return self._replay(message, digest, cached) if cached else self._begin(message, digest)

    def _join(self, message: Submit, run: Run) -> Submitted:
        record = self._record(message, run, "joined")
        run.join(record.stream)
        if message.delivery.timeout < run.delivery.timeout:
            self.schedule(message.delivery.timeout, RequestTimedOut(record.request_id, record.tenant))
        return Submitted(record)

    def _replay(self, message: Submit, digest: bytes, cached: CachedLog) -> Submitted:
        run = Run.replay(message, cached, fingerprint=digest, max_bytes=self._limits.ring_bytes)
        record = self._record(message, run, "cache")
        self._ended(record.request_id)
        return Submitted(record)

    def _begin(self, message: Submit, digest: bytes) -> Submitted:
        run = self._runs.new(message, digest)
        record = self._record(message, run, "upstream", request_id=run.key)
        run.begin(record.stream, record.created)
        self._runs.start(run, shared=message.delivery.dedupe)
        return Submitted(record)

    def _record(self, message: Submit, run: Run, source: Source, *, request_id: str = "") -> RequestRecord:
        """Store a request that ``run`` answers."""
        cancels = message.delivery.on_abandon == "cancel"
        on_followers = partial(self._followers_changed, message.tenant) if cancels else None
        record = RequestRecord(
            tenant=message.tenant,
            trace_id=message.trace_id,
            surface=message.surface,
            account="" if message.account is None else message.account.name,
            delivery=message.delivery,
            source=source,
            run=run,
            stream=RequestStream(
                request_id or ids.request_id(), run.log, on_followers=on_followers, partial=message.delivery.partial
            ),
        )
        if self._tracing:
            trace.get_current_span().set_attribute(spans.SOURCE, source)
        key = message.idempotency_key
        self._store.add(record, key=key, digest=body_digest(message) if key else b"")
        if cancels and source != "cache":
            self._followers_changed(message.tenant, record.request_id, 0)
        return record

    def _leave(self, record: RequestRecord, event: Cancelled | Failed) -> None:
        """End one request. Its run goes on for the others, and is cancelled where it is the last one."""
        if record.stream.ended:
            return
        if record.run.leave(record.stream, event):
            self._runs.cancel(record.run, event)
        else:
            self._ended(record.request_id)

    def _run_ended(self, run: Run) -> None:
        for request_id in run.requests:
            self._ended(request_id)

    def _ended(self, request_id: str) -> None:
        record = self._store.ended(request_id)
        if record is not None:
            log_end(record)

    def _find(self, request_id: str, tenant: str) -> RequestRecord:
        record = self._store.get(request_id, tenant)
        if record is None:
            message = f"there is no request {request_id[:64]!r}"
            raise NotFound(message, code="request_not_found")
        return record

    def _followers_changed(self, tenant: str, request_id: str, count: int) -> None:
        """Start the grace period of a request without followers, and stop it when a follower comes.

        A system without room for one more timer lets the request finish.
        """
        timer = self._grace_timers.pop(request_id, None)
        if timer is not None:
            timer.cancel()
        if count == 0:
            with suppress(Overloaded, ActorStopped):
                self._grace_timers[request_id] = self.schedule(
                    self._limits.abandon_grace, GraceExpired(request_id, tenant)
                )
