"""The one place of submission: which log answers a request.

In this order: the log that the idempotency key names; the running log with this fingerprint, joined; a finished log
with this fingerprint, replayed from the cache; otherwise a new run. The router owns who shares what; each run has its
own actor, which owns its log.
"""

from contextlib import suppress
from functools import partial
from typing import Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind, Tracer

from actors.log.event_log import EventLog
from actors.requests.fingerprint import body_digest, fingerprint
from actors.requests.limits import RequestLimits
from actors.requests.record import RequestRecord, Run
from actors.requests.runs import RunTable
from actors.requests.state import Cancel, RequestStateActor, Start, failure
from actors.requests.store import RequestStore
from actors.requests.stream import RequestStream
from actors.runtime import Actor, Deferred, Keyed, Promise, Ref, Timer, handles
from protocol import ids, spans
from protocol.cache import CachedLog, CacheGet, CachePut
from protocol.errors import (
    ActorStopped,
    DeadlineExceeded,
    IdempotencyKeyReused,
    NotFound,
    Overloaded,
    ShuttingDown,
    TidegateError,
)
from protocol.events import Cancelled, Failed, Started
from protocol.gateway import Complete, ResolveModel
from protocol.message import Message
from protocol.requests import CancelRequest, GetRequest, RequestHandle, Source, Submit, Submitted

DEFAULT_LIMITS: Final = RequestLimits()
SWEEP_INTERVAL: Final = 15.0  # seconds between looks for what has outlived its time
CACHE_TIMEOUT: Final = 1.0  # seconds; a cache that is slower counts as a miss
RESOLVE_TIMEOUT: Final = 5.0  # seconds
MAX_MODELS: Final = 1024  # names that the gateway is known to serve; more are asked for again


class Resolved(Message[None], frozen=True):
    """The gateway serves a submission's model; what is next is ``cache``, where there is one to look into."""

    submit: Submit
    digest: bytes
    cache: Ref[CacheGet | CachePut] | None
    reply: Promise[Submitted]


class Refused(Message[None], frozen=True):
    """A submission can't be taken."""

    error: Exception
    reply: Promise[Submitted]


class Looked(Message[None], frozen=True):
    """What the cache has for a submission."""

    submit: Submit
    digest: bytes
    found: CachedLog | None
    reply: Promise[Submitted]


class WaiterDue(Message[None], frozen=True):
    """A request that joined another's run has used up its own time."""

    request_id: str
    tenant: str


class Abandoned(Message[None], frozen=True):
    """Nobody has followed a request for a while."""

    request_id: str
    tenant: str


class ForgetModels(Message[None], frozen=True):
    """What the gateway serves has changed: ask it again."""


class Sweep(Message[None], frozen=True):
    """Time to drop what has outlived its time."""


RouterMessage = (
    Submit | GetRequest | CancelRequest | ForgetModels | Resolved | Refused | Looked | WaiterDue | Abandoned | Sweep
)


class RequestRouter(Actor[RouterMessage]):
    """Finds or starts the run for each submission, and keeps the requests that can still be asked for.

    Args:
        gateway: who completes.
        cache: where finished logs are; None for no cache.
        limits: how many requests are kept, how long, and how large.
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
        self._unfollowed: dict[str, Timer] = {}  # by request id: those that are given up when their time is over
        self._store = RequestStore(ttl=limits.ttl, max_requests=limits.max_requests, max_bytes=limits.max_bytes)
        self._runs = RunTable(self._store)
        self._models: set[str] = set()

    async def started(self) -> None:
        """Set up the group of run actors, and look regularly for what has outlived its time."""
        self._tracer: Tracer | None = self.system.tracer if self.system.tracing else None
        self._actors: Keyed[Start | Cancel] = self.system.keyed(
            self._new_actor, name="request-state", idle=1.0, limit=self._limits.max_requests
        )
        self.schedule(SWEEP_INTERVAL, Sweep())

    async def stopped(self) -> None:
        """Runs that are stopped half-way still end: their readers are told, and may ask again elsewhere."""
        for run in self._runs:
            run.log.append(failure(ShuttingDown("the run was stopped before its end")))
            run.span.end()
            self._runs.ended(run)
        await self._actors.kill()

    @handles(Submit)
    async def submit(self, message: Submit) -> Submitted | Deferred[Submitted]:
        """Find or start the run for this submission; the order is the module's docstring."""
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
            self._look_up(cache, message, digest, reply)
        else:
            self.ask_then(
                self._gateway,
                ResolveModel(message.request.model),
                timeout=RESOLVE_TIMEOUT,
                ok=lambda _: Resolved(message, digest, cache, reply),
                err=lambda error: Refused(error, reply),
            )
        return reply

    @handles(Resolved)
    async def resolved(self, message: Resolved) -> None:
        """The model is there: remember that, and look into the cache."""
        if len(self._models) >= MAX_MODELS:
            self._models.clear()
        self._models.add(message.submit.request.model)
        if message.cache is None:
            self._settle(message.reply, message.submit, message.digest, None)
        else:
            self._look_up(message.cache, message.submit, message.digest, message.reply)

    @handles(Refused)
    async def refused(self, message: Refused) -> None:
        """The submission can't be taken."""
        message.reply.reject(message.error)

    @handles(Looked)
    async def looked(self, message: Looked) -> None:
        """Decide, now that the cache has answered: others may have come meanwhile."""
        self._settle(message.reply, message.submit, message.digest, message.found)

    @handles(GetRequest)
    async def get(self, message: GetRequest) -> RequestHandle:
        """Return a request of this tenant."""
        return self._find(message.request_id, message.tenant)

    @handles(CancelRequest)
    async def cancel(self, message: CancelRequest) -> RequestHandle:
        """Cancel a request: it leaves its run, and the run is given up when nobody is left."""
        record = self._find(message.request_id, message.tenant)
        self._leave(record, Cancelled(reason=message.reason))
        return record

    @handles(WaiterDue)
    async def waiter_due(self, message: WaiterDue) -> None:
        """A joined request has its own deadline; the run that it joined may have a later one."""
        record = self._store.get(message.request_id, message.tenant)
        if record is not None:
            self._leave(record, failure(DeadlineExceeded()))

    @handles(Abandoned)
    async def abandoned(self, message: Abandoned) -> None:
        """Give a request up, unless somebody follows it again."""
        self._unfollowed.pop(message.request_id, None)
        record = self._store.get(message.request_id, message.tenant)
        if record is not None and not record.stream.followers:
            self._leave(record, Cancelled(reason="abandoned"))

    @handles(ForgetModels)
    async def forget_models(self, _message: ForgetModels) -> None:
        """Ask the gateway again for each model's name."""
        self._models.clear()

    @handles(Sweep)
    async def sweep(self, _message: Sweep) -> None:
        """Drop what has outlived its time."""
        self._store.expire()
        self.schedule(SWEEP_INTERVAL, Sweep())

    def _repeat(self, message: Submit, digest: bytes, record: RequestRecord) -> Submitted:
        if digest != body_digest(message):
            raise IdempotencyKeyReused
        return Submitted(record, replayed=True)

    def _joinable(self, message: Submit, digest: bytes) -> Run | None:
        return self._runs.joinable(digest) if message.delivery.dedupe else None

    def _look_up(
        self, cache: Ref[CacheGet | CachePut], message: Submit, digest: bytes, reply: Promise[Submitted]
    ) -> None:
        """Ask the cache; one that fails or is slow counts as one that has nothing."""
        self.ask_then(
            cache,
            CacheGet(digest),
            timeout=CACHE_TIMEOUT,
            ok=lambda found: Looked(message, digest, found, reply),
            err=lambda _: Looked(message, digest, None, reply),
        )

    def _settle(self, reply: Promise[Submitted], message: Submit, digest: bytes, found: CachedLog | None) -> None:
        try:
            reply.resolve(self._decide(message, digest, found))
        except TidegateError as error:
            reply.reject(error)

    def _decide(self, message: Submit, digest: bytes, found: CachedLog | None) -> Submitted:
        if message.idempotency_key:
            known = self._store.by_key(message.tenant, message.idempotency_key)
            if known is not None:
                return self._repeat(message, *known)
        run = self._joinable(message, digest)
        if run is not None:
            return self._join(message, run)
        return self._replay(message, digest, found) if found else self._begin(message, digest)

    def _join(self, message: Submit, run: Run) -> Submitted:
        submitter = trace.get_current_span()
        run.span.add_link(submitter.get_span_context(), {spans.REQUEST_ID: run.key})
        submitter.add_link(run.span.get_span_context())
        record = self._record(message, run, "joined")
        run.waiters[record.request_id] = record
        if message.delivery.timeout < run.delivery.timeout:
            self.schedule(message.delivery.timeout, WaiterDue(record.request_id, record.tenant))
        return Submitted(record)

    def _replay(self, message: Submit, digest: bytes, found: CachedLog) -> Submitted:
        log = EventLog(max_bytes=self._limits.ring_bytes)
        log.extend(found.events)
        run = Run(
            key="", fingerprint=digest, request=message.request, delivery=message.delivery, log=log, span=INVALID_SPAN
        )
        run.provider, run.usage = found.provider, found.usage
        record = self._record(message, run, "cache")
        self._store.ended(record)
        return Submitted(record)

    def _begin(self, message: Submit, digest: bytes) -> Submitted:
        key = ids.request_id()
        log = EventLog(max_bytes=self._limits.ring_bytes)
        span = self._span(key)
        run = Run(
            key=key,
            fingerprint=digest,
            request=message.request,
            delivery=message.delivery,
            log=log,
            span=span,
            tenant=message.tenant,
            account=message.account,
        )
        record = self._record(message, run, "upstream", request_id=key)
        log.append(Started(model=message.request.model, created=int(record.created)))
        run.waiters[key] = record
        self._runs.add(run, shared=message.delivery.dedupe)
        try:
            self._post_within(span, key, Start())
        except TidegateError as error:
            log.append(failure(error))
            self._runs.ended(run)
            raise
        return Submitted(record)

    def _span(self, key: str) -> Span:
        """Open a run's span; with tracing off it is none at all."""
        if self._tracer is None:
            return INVALID_SPAN
        name, attributes = spans.process("request-state"), {spans.REQUEST_ID: key}
        return self._tracer.start_span(name, kind=SpanKind.CONSUMER, attributes=attributes)

    def _post_within(self, span: Span, key: str, message: Start) -> None:
        """Post so that all that is done for ``message`` is below ``span``; a span that is not there costs nothing."""
        if not span.get_span_context().is_valid:
            self._actors.ref(key).post(message)
            return
        token = otel_context.attach(trace.set_span_in_context(span))
        try:
            self._actors.ref(key).post(message)
        finally:
            otel_context.detach(token)

    def _record(self, message: Submit, run: Run, source: Source, *, request_id: str = "") -> RequestRecord:
        abandons = message.delivery.on_abandon == "cancel"
        watch = partial(self._followers_changed, message.tenant) if abandons else None
        record = RequestRecord(
            tenant=message.tenant,
            trace_id=message.trace_id,
            delivery=message.delivery,
            source=source,
            run=run,
            stream=RequestStream(
                request_id or ids.request_id(), run.log, on_followers=watch, partial=message.delivery.partial
            ),
        )
        if self._tracer is not None:
            trace.get_current_span().set_attribute(spans.SOURCE, source)
        key = message.idempotency_key
        self._store.add(record, key=key, digest=body_digest(message) if key else b"")
        if abandons and source != "cache":
            self._followers_changed(message.tenant, record.request_id, 0)
        return record

    def _leave(self, record: RequestRecord, event: Cancelled | Failed) -> None:
        """End one request. Its run goes on for the others, and is given up where there are none."""
        if not record.stream.ended and self._runs.leave(record, event):
            self._actors.ref(record.run.key).post(Cancel(event))

    def _find(self, request_id: str, tenant: str) -> RequestRecord:
        record = self._store.get(request_id, tenant)
        if record is None:
            message = f"there is no request {request_id[:64]!r}"
            raise NotFound(message, code="request_not_found")
        return record

    def _followers_changed(self, tenant: str, request_id: str, count: int) -> None:
        """Wait for the grace period before giving up a request that nobody follows; all of it, each time.

        A service with so many timers that there is no room for this one lets the request finish.
        """
        timer = self._unfollowed.pop(request_id, None)
        if timer is not None:
            timer.cancel()
        if count == 0:
            with suppress(Overloaded, ActorStopped):
                self._unfollowed[request_id] = self.schedule(self._limits.abandon_grace, Abandoned(request_id, tenant))

    def _new_actor(self, key: str) -> RequestStateActor:
        return RequestStateActor(self._runs[key], gateway=self._gateway, cache=self._cache, on_end=self._runs.ended)
