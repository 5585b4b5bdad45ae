"""The entry point for requests: it decides which log answers a submission.

In this order: the log of the request with this idempotency key; the running log with this fingerprint, joined; a
finished log with this fingerprint, replayed from the cache; otherwise a new run. The router owns the tables of requests
and runs; each run owns its log, and has its own actor.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from opentelemetry import trace

from actors.fair_shares import Tenants
from actors.large_inputs import aside, is_large
from actors.requests.failure import failure
from actors.requests.fingerprint import body_digest, digested, run_digest
from actors.requests.idempotency import UsedKey
from actors.requests.limits import RequestLimits
from actors.requests.outcome import LOGGER, log_end
from actors.requests.record import RequestRecord, use_no_tokens
from actors.requests.router_messages import (
    CacheAnswered,
    CacheMessage,
    Decided,
    ForgetModels,
    GraceExpired,
    InputDigested,
    ModelResolved,
    RequestTimedOut,
    RouterMessage,
    SubmitRefused,
    SweepRequests,
    Uncached,
)
from actors.requests.run import Run
from actors.requests.runs import RunTable
from actors.requests.store import RequestStore
from actors.requests.stream import RequestStream
from actors.runtime import Actor, Deferred, Promise, Ref, Timer, handles
from protocol import ids, spans
from protocol.cache import CacheDelete, CachedLog, CacheGet
from protocol.errors import (
    ActorStopped,
    DeadlineExceeded,
    IdempotencyKeyReused,
    NotFound,
    Overloaded,
    RequestGone,
    TidegateError,
)
from protocol.events import Cancelled, Failed
from protocol.gateway import Complete, ResolveModel
from protocol.requests import (
    AwaitRequests,
    CancelOwned,
    CancelRequest,
    CountRequests,
    DeleteRequest,
    EndRequests,
    GetRequest,
    RequestHandle,
    Source,
    Submit,
    Submitted,
)

DEFAULT_LIMITS: Final = RequestLimits()
SWEEP_INTERVAL: Final = 15.0  # seconds between two sweeps of the store
CACHE_TIMEOUT: Final = 1.0  # seconds; a slower cache counts as a miss
RESOLVE_TIMEOUT: Final = 5.0  # seconds
MAX_MODELS: Final = 1024  # model names that are known to be served; at the bound all are forgotten

_log = logging.getLogger(LOGGER)


class RequestRouter(Actor[RouterMessage]):
    """Finds or starts the run for each submission, and stores the requests.

    Args:
        gateway: completes the requests.
        cache: stores finished logs; None for no cache.
        limits: how many requests are stored, for how long, and how large.
        tenants: share these bounds; None for any tenants.
    """

    capacity = 4096
    overflow = "reject"

    def __init__(
        self,
        *,
        gateway: "Ref[Complete | ResolveModel]",
        cache: "Ref[CacheMessage] | None" = None,
        limits: RequestLimits = DEFAULT_LIMITS,
        tenants: Tenants | None = None,
    ) -> None:
        self._gateway = gateway
        self._cache = cache
        self._limits = limits
        self._grace_timers: dict[str, Timer] = {}  # by request id: requests without a follower
        self._store = RequestStore(limits, tenants)
        self._models: set[str] = set()
        self._waiting: list[Promise[None]] = []  # for the moment at which no request is running

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
        self._limits.check_ttl(message.delivery.ttl)
        if is_large(message.request):
            reply = self.promise(Submit)
            work = aside(partial(digested, message))
            self.pipe(work, partial(InputDigested, reply=reply), partial(SubmitRefused, reply=reply))
            return reply
        return self._find_or_begin(message)

    @handles(InputDigested)
    async def input_digested(self, message: InputDigested) -> None:
        """Go on with a large submission; the others have gone on meanwhile."""
        self._reply(message.reply, partial(self._find_or_begin, message.submit, message.reply))

    def _find_or_begin(self, message: Submit, reply: Promise[Submitted] | None = None) -> Decided:
        if message.idempotency_key:
            known = self._store.by_key(message.tenant, message.idempotency_key)
            if known is not None:
                return self._repeat(message, *known)
        digest = run_digest(message)
        run = self._runs.joinable(digest) if message.delivery.dedupe else None
        if run is not None:
            return self._join(message, run)
        served = message.request.model in self._models
        cache = self._cache if message.delivery.dedupe and message.delivery.cache_ttl > 0 else None
        if served and cache is None:
            return self._begin(message, digest)
        reply = self.promise(Submit) if reply is None else reply
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
            self._reply(message.reply, partial(self._decide, message.submit, message.digest, None))
        else:
            self._ask_cache(message.cache, message.submit, message.digest, message.reply)

    @handles(SubmitRefused)
    async def submit_refused(self, message: SubmitRefused) -> None:
        """Reply with the error."""
        message.reply.reject(message.error)

    @handles(CacheAnswered)
    async def cache_answered(self, message: CacheAnswered) -> None:
        """Decide which log answers, now that the cache has replied."""
        self._reply(message.reply, partial(self._decide, message.submit, message.digest, message.cached))

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

    @handles(CancelOwned)
    async def cancel_owned(self, message: CancelOwned) -> int:
        """Cancel the running requests of a credential that was revoked."""
        owned = self._store.running_of(message.credential)
        for record in owned:
            self._leave(record, Cancelled(reason="key_revoked"))
        return len(owned)

    @handles(DeleteRequest)
    async def delete(self, message: DeleteRequest) -> Deferred[None] | None:
        """Cancel a request, remove its answer from the cache, and then forget it."""
        record = self._find(message.request_id, message.tenant)
        record.run.forgotten = True
        self._leave(record, Cancelled(reason="deleted"))
        if self._cache is None or not record.run.cached:
            self._forget(record)
            return None
        reply = self.promise(DeleteRequest)
        self.ask_then(
            self._cache,
            CacheDelete(record.run.fingerprint, record.tenant),
            timeout=CACHE_TIMEOUT,
            ok=lambda _: Uncached(record, reply),
            err=lambda error: Uncached(record, reply, error),
        )
        return reply

    @handles(Uncached)
    async def uncached(self, message: Uncached) -> None:
        """Forget a deleted request; where the cache has failed, it stays, so that it can be deleted again."""
        if message.error is not None:
            message.reply.reject(message.error)
            return
        self._forget(message.record)
        message.reply.resolve(None)

    @handles(CountRequests)
    async def count(self, _message: CountRequests) -> int:
        """Return the number of running requests."""
        return self._runs.requests

    @handles(AwaitRequests)
    async def wait(self, _message: AwaitRequests) -> Deferred[None] | None:
        """Reply when no request is running."""
        if not len(self._runs):
            return None
        self._waiting = [promise for promise in self._waiting if not promise.abandoned]
        self._waiting.append(self.promise(AwaitRequests))
        return self._waiting[-1]

    @handles(EndRequests)
    async def end(self, _message: EndRequests) -> int:
        """End all runs; their readers get the end at once."""
        return self._runs.end()

    @handles(RequestTimedOut)
    async def timed_out(self, message: RequestTimedOut) -> None:
        """End a joined request at its own deadline; its run's deadline may be later."""
        record = self._store.get(message.request_id, message.tenant)
        if record is not None:
            self._leave(record, failure(DeadlineExceeded(), record.delivery.timeout))

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

    def _repeat(self, message: Submit, used: UsedKey, record: RequestRecord | None) -> Submitted:
        if used.digest != body_digest(message):
            raise IdempotencyKeyReused
        use_no_tokens(message.hold, ended=True)
        if record is None:
            ended = f"{used.status} ({used.code})" if used.code else used.status
            raise RequestGone(f"request {used.request_id} of this key is {ended}, and no longer kept")
        return Submitted(record, replayed=True)

    def _ask_cache(self, cache: Ref[CacheMessage], message: Submit, digest: bytes, reply: Promise[Submitted]) -> None:
        """Ask the cache; an error or a timeout counts as a miss."""
        self.ask_then(
            cache,
            CacheGet(digest, message.tenant),
            timeout=CACHE_TIMEOUT,
            ok=lambda cached: CacheAnswered(message, digest, cached, reply),
            err=lambda _: CacheAnswered(message, digest, None, reply),
        )

    def _reply(self, reply: Promise[Submitted], decide: Callable[[], Decided]) -> None:
        try:
            decided = decide()
        except TidegateError as error:
            reply.reject(error)
            return
        if not isinstance(decided, Promise):
            reply.resolve(decided)

    def _decide(self, message: Submit, digest: bytes, cached: CachedLog | None) -> Submitted:
        """Look again for the key and the running log: others may have been submitted in the meantime."""
        if message.idempotency_key:
            known = self._store.by_key(message.tenant, message.idempotency_key)
            if known is not None:
                return self._repeat(message, *known)
        run = self._runs.joinable(digest) if message.delivery.dedupe else None
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
        request_id = request_id or ids.request_id()
        record = RequestRecord(
            request_id=request_id,
            tenant=message.tenant,
            trace_id=message.trace_id,
            surface=message.surface,
            account="" if message.account is None else message.account.name,
            credential=message.credential,
            delivery=message.delivery,
            source=source,
            run=run,
            hold=message.hold,
            stream=RequestStream(request_id, run.log, on_followers=on_followers, partial=message.delivery.partial),
        )
        if source != "upstream":
            use_no_tokens(message.hold)
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

    def _forget(self, record: RequestRecord) -> None:
        record.release()
        self._store.remove(record)
        timer = self._grace_timers.pop(record.request_id, None)
        if timer is not None:
            timer.cancel()

    def _run_ended(self, run: Run) -> None:
        for request_id in run.requests:
            self._ended(request_id)
        while self._waiting and not len(self._runs):
            self._waiting.pop(0).resolve(None)

    def _ended(self, request_id: str) -> None:
        record = self._store.ended(request_id)
        if record is not None:
            record.release()
            log_end(record)

    def _find(self, request_id: str, tenant: str) -> RequestRecord:
        record = self._store.get(request_id, tenant)
        if record is None:
            raise NotFound(f"there is no request {request_id[:64]!r}", code="request_not_found")
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
                expired = GraceExpired(request_id, tenant)
                self._grace_timers[request_id] = self.schedule(self._limits.abandon_grace, expired)
