"""What is kept of a request, and of the run that answers it."""

import datetime as dt
import time
from decimal import Decimal
from typing import Final

import msgspec
from opentelemetry.trace import INVALID_SPAN, Span

from actors.log.event_log import EventLog
from actors.log.follow import Follower, follow
from actors.requests.stream import RequestStream, status_of
from protocol.budgets import Account
from protocol.events import Cancelled, Completed, Failed, Position
from protocol.hub import Mode
from protocol.llm import Attempt, ChatRequest, Cost, Usage
from protocol.requests import Delivery, ErrorInfo, RequestState, Source

NOTHING: Final = Usage()
FREE: Final = Cost(usd=Decimal(0))


class Run(msgspec.Struct, eq=False, kw_only=True):
    """One answer in the making, or made: a log, and the facts beside it. Identical requests share it.

    Attributes:
        key: the id of the request that started it.
        fingerprint: what the in-flight table and the cache know it by.
        tenant: who asks; a run is never shared across tenants.
        account: who pays for its calls: that of the request that started it; None for nobody.
        begun: whether the gateway has been asked.
        waiters: the requests that still want it, by id.
        span: open for as long as the run is; joiners are linked to it.
        attempts: its calls to the model's side, in order.
        provider: who has answered it, or was asked last; None while that is not known.
        usage: tokens of all of them.
        cost: US dollars for all of them; None where a price is unknown, and while nothing has been used.
        upstream_wait: seconds from a call's start to its first content, of the last call that had any.
    """

    key: str
    fingerprint: bytes
    request: ChatRequest
    delivery: Delivery
    log: EventLog
    span: Span = INVALID_SPAN
    tenant: str = ""
    account: Account | None = None
    begun: bool = False
    waiters: "dict[str, RequestRecord]" = {}
    attempts: tuple[Attempt, ...] = ()
    provider: str | None = None
    usage: Usage = NOTHING
    cost: Cost | None = None
    upstream_wait: float = 0.0
    _numbered: dict[int, Attempt] = {}

    def count(self, attempt: Attempt, number: int) -> None:
        """Take a call down as the one of this number, from 1: a new one, or one of which more is known now."""
        numbered = self._numbered
        numbered[number or len(numbered) + 1] = attempt
        if len(numbered) == 1:
            self.attempts, self.usage = (attempt,), attempt.usage or NOTHING
            self.cost = attempt.cost if attempt.usage else None
            return
        self.attempts = tuple(numbered[key] for key in sorted(numbered))
        usages = [one.usage for one in self.attempts if one.usage is not None]
        costs = [one.cost.usd for one in self.attempts if one.cost is not None]
        self.usage = sum(usages, NOTHING)
        self.cost = Cost(usd=sum(costs, Decimal(0))) if usages and len(costs) == len(usages) else None


class RequestRecord(msgspec.Struct, eq=False, kw_only=True):
    """A request as it is kept: who asked, the run that answers it, and its own view of that run's log.

    Implements ``protocol.requests.RequestHandle``.

    Attributes:
        tenant: who asks.
        trace_id: 32 hex digits, as the caller sees it.
        delivery: how it is run and shared.
        source: where its answer comes from.
        run: what answers it.
        stream: its view of the run's log.
        created: Unix time in seconds.
        expires: Unix time at which it is forgotten; 0 while it has not ended.
        idempotency: the tenant and the key that name it; None where it has no key.
    """

    tenant: str
    trace_id: str
    delivery: Delivery
    source: Source
    run: Run
    stream: RequestStream
    created: float = msgspec.field(default_factory=time.time)
    expires: float = 0.0
    idempotency: tuple[str, str] | None = None

    @property
    def request_id(self) -> str:
        """Its id."""
        return self.stream.request_id

    @property
    def request(self) -> ChatRequest:
        """What the model was asked; whoever shares the run asked the same."""
        return self.run.request

    @property
    def upstream_wait(self) -> float:
        """Seconds spent waiting for the model's side until its first event."""
        return self.run.upstream_wait if self.source == "upstream" else 0.0

    @property
    def upstream_time(self) -> float:
        """Seconds spent in all calls to the model's side."""
        return sum([attempt.duration_ms for attempt in self.attempts]) / 1000

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The calls that were made for it: none for one that was joined or replayed."""
        return self.run.attempts if self.source == "upstream" else ()

    @property
    def cost(self) -> Cost | None:
        """What its calls cost: nothing for one that was joined or replayed, None where unknown or nothing was used."""
        return self.run.cost if self.source == "upstream" else FREE

    def follow(self, after: Position | None = None, mode: Mode | None = None) -> Follower:
        """Follow it, as ``RequestHandle`` says."""
        return follow(self.stream, after, mode)

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
            assistant_status=status_of(stream),
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
