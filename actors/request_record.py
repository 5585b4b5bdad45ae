"""What is kept of a request and of the run that answers it, and for how long."""

import datetime as dt
import time
from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal

import msgspec
from opentelemetry.trace import Span

from actors.event_log import EventLog, RequestStream
from protocol.errors import Overloaded
from protocol.events import Cancelled, Completed, Failed, Position
from protocol.llm import Attempt, ChatRequest, Cost, Usage
from protocol.requests import Delivery, ErrorInfo, RequestState, Source, Status

FREE = Cost(usd=Decimal(0))
RECORD_BYTES = 4096  # a stored request without its log, as measured and rounded up


class Run:
    """One answer in the making, or made: a log, and the facts beside it. Identical requests share it.

    Attributes:
        key: the id of the request that started it.
        fingerprint: what the in-flight table and the cache know it by.
        begun: whether the gateway has been asked.
        waiters: the requests that still want it, by id.
        span: open for as long as the run is; joiners are linked to it.
    """

    __slots__ = (
        "attempts",
        "begun",
        "cost",
        "delivery",
        "fingerprint",
        "key",
        "log",
        "provider",
        "request",
        "span",
        "upstream_wait",
        "usage",
        "waiters",
    )

    def __init__(
        self, *, key: str, fingerprint: bytes, request: ChatRequest, delivery: Delivery, log: EventLog, span: Span
    ) -> None:
        self.key = key
        self.fingerprint = fingerprint
        self.request = request
        self.delivery = delivery
        self.log = log
        self.span = span
        self.begun = False
        self.waiters: dict[str, RequestRecord] = {}
        self.attempts: tuple[Attempt, ...] = ()
        self.provider: str | None = None
        self.usage = Usage()
        self.cost: Cost | None = None
        self.upstream_wait = 0.0


class RequestRecord:
    """A request as it is kept: who asked, the run that answers it, and its own view of that run's log.

    Implements ``protocol.requests.RequestHandle``.
    """

    __slots__ = ("created", "delivery", "expires", "idempotency", "run", "source", "stream", "tenant", "trace_id")

    def __init__(self, *, tenant: str, trace_id: str, delivery: Delivery, source: Source, run: Run) -> None:
        self.tenant = tenant
        self.trace_id = trace_id
        self.delivery = delivery
        self.source: Source = source
        self.run = run
        self.stream = RequestStream("", run.log)
        self.created = time.time()
        self.expires = 0.0
        self.idempotency: tuple[str, str] | None = None

    @property
    def request_id(self) -> str:
        """Its id."""
        return self.stream.request_id

    @property
    def upstream_wait(self) -> float:
        """Seconds spent waiting for the model's side until its first event."""
        return self.run.upstream_wait if self.source == "upstream" else 0.0

    @property
    def upstream_time(self) -> float:
        """Seconds spent in all calls to the model's side."""
        return sum(attempt.duration_ms for attempt in self.attempts) / 1000

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The calls that were made for it: none for one that was joined or replayed."""
        return self.run.attempts if self.source == "upstream" else ()

    @property
    def cost(self) -> Cost | None:
        """What its calls cost: nothing for one that was joined or replayed, None where a price is unknown."""
        return self.run.cost if self.source == "upstream" else FREE

    def state(self) -> RequestState:
        """Return its state as of now."""
        run, stream = self.run, self.stream
        entry = stream.terminal
        event = entry.event if entry else None
        updated = run.log.changed
        return RequestState(
            request_id=self.request_id,
            session_id=self.delivery.session_id or None,
            trace_id=self.trace_id,
            model=run.request.model,
            provider=run.provider,
            assistant_status=self._status(),
            core_result=event.result if isinstance(event, Completed) else None,
            seed=run.request.seed,
            usage=run.usage,
            cost=self.cost,
            attempts=self.attempts,
            source=self.source,
            position=Position(stream.epoch, stream.offset),
            created_at=_utc(self.created),
            updated_at=_utc(max(self.created, updated)),
            expires_at=_utc(self.expires) if self.expires else None,
            error=_error(event) if isinstance(event, Failed | Cancelled) else msgspec.UNSET,
        )

    def _status(self) -> Status:
        entry = self.stream.terminal
        if entry is None:
            return "running" if self.stream.offset > 1 else "pending"
        if isinstance(entry.event, Completed):
            return "completed"
        return "failed" if isinstance(entry.event, Failed) else "cancelled"


def _error(event: Failed | Cancelled) -> ErrorInfo:
    if isinstance(event, Cancelled):
        return ErrorInfo(code="cancelled", message=event.reason)
    return ErrorInfo(
        code=event.code,
        message=event.message,
        temporary=event.temporary,
        retry_after_ms=event.retry_after_ms,
        errors=event.errors,
    )


def _utc(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(round(seconds, 3), dt.UTC)


class RequestStore:
    """The requests that can still be asked for: bounded in number and bytes, each for ``ttl`` seconds after its end.

    A running request is never dropped. Where a bound is reached, the one that ended first goes early; where nothing has
    ended, :meth:`add` refuses.

    Args:
        ttl: seconds for which an ended request is kept.
        max_requests: how many are kept at most.
        max_bytes: the bound on ended requests' logs, in bytes. A shared log counts once for each of its requests.
        clock: Unix time in seconds.
    """

    def __init__(
        self, *, ttl: float, max_requests: int, max_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._ttl = ttl
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._clock = clock
        self._records: dict[str, RequestRecord] = {}
        self._keys: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._ended: deque[tuple[str, int]] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[RequestRecord]:
        return iter(self._records.values())

    def get(self, request_id: str, tenant: str) -> RequestRecord | None:
        """Return a live request of this tenant."""
        record = self._records.get(request_id)
        if record is None or record.tenant != tenant or (record.expires and record.expires <= self._clock()):
            return None
        return record

    def by_key(self, tenant: str, key: str) -> tuple[bytes, RequestRecord] | None:
        """Return what an idempotency key names: the digest it was used with, and the request."""
        digest, request_id = self._keys.get((tenant, key), (b"", ""))
        record = self.get(request_id, tenant) if request_id else None
        return (digest, record) if record else None

    def add(self, record: RequestRecord, *, key: str = "", digest: bytes = b"") -> None:
        """Keep ``record``, and under its idempotency key where it has one.

        Raises:
            Overloaded: the bound is reached, and all that are kept are running.
        """
        self.expire()
        if len(self._records) >= self._max_requests and not self._evict():
            message = f"{self._max_requests} requests are running, which is the most that are kept"
            raise Overloaded(message, retry_after=1.0)
        self._records[record.request_id] = record
        if key:
            record.idempotency = (record.tenant, key)
            self._keys[record.idempotency] = (digest, record.request_id)

    def ended(self, record: RequestRecord) -> None:
        """Let the time of an ended request begin. Calling it again does nothing."""
        if record.expires:
            return
        record.expires = self._clock() + self._ttl
        size = record.run.log.size + RECORD_BYTES
        self._ended.append((record.request_id, size))
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._ended) > 1:
            self._evict()

    def expire(self) -> None:
        """Drop what has outlived its time."""
        now = self._clock()
        while self._ended:
            record = self._records.get(self._ended[0][0])
            if record is not None and record.expires > now:
                return
            self._evict()

    def _evict(self) -> bool:
        if not self._ended:
            return False
        request_id, size = self._ended.popleft()
        self._bytes -= size
        record = self._records.pop(request_id, None)
        if record is not None and record.idempotency is not None:
            self._keys.pop(record.idempotency, None)
        return True
