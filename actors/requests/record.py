"""A stored request: what its callers see of it."""

import datetime as dt
import time
from decimal import Decimal
from typing import Final

import msgspec

from actors.log.follow import Follower, follow
from actors.requests.run import NO_USAGE, Run
from actors.requests.stream import RequestStream, status_of
from protocol.answer import core_result
from protocol.events import Cancelled, Completed, Failed, Position
from protocol.hub import Mode
from protocol.limits import LimitHold
from protocol.llm import Attempt, ChatRequest, Cost, Usage
from protocol.requests import Delivery, ErrorInfo, RequestState, Source

NO_COST: Final = Cost(usd=Decimal(0))
WITHOUT_CONTENT: Final = 2  # entries of a request that ended before any content: its start and its end


class RequestRecord(msgspec.Struct, eq=False, kw_only=True):
    """A stored request: its caller, the run that answers it, and its own view of the run's log.

    Implements ``protocol.requests.RequestHandle``.

    Attributes:
        request_id: its id.
        tenant: the tenant whose request it is.
        trace_id: 32 hex digits or another name, as the caller sees it.
        surface: what its caller has used.
        account: the name of the account that pays; empty for none.
        credential: the digest of the key or the token that it was submitted with; empty for none.
        delivery: how it is run and shared.
        source: where its answer comes from.
        run: the run that answers it.
        stream: its view of the run's log.
        created: when it was submitted, in Unix seconds.
        expires: when the store drops it, in Unix seconds; 0 while it has not ended.
        hold: what it has taken from rate limits; None for nothing, and once it has ended.
        idempotency: the tenant and the idempotency key; None where it has no key.
    """

    request_id: str
    tenant: str
    trace_id: str
    surface: str = ""
    account: str = ""
    credential: bytes = b""
    delivery: Delivery
    source: Source
    run: Run
    stream: RequestStream
    created: float = msgspec.field(default_factory=time.time)
    expires: float = 0.0
    hold: LimitHold | None = None
    idempotency: tuple[str, str] | None = None

    def release(self) -> None:
        """End its lease among the calls at once."""
        hold, self.hold = self.hold, None
        if hold is not None:
            hold.release()

    @property
    def request(self) -> ChatRequest:
        """The request to the model, the same for all that share the run."""
        return self.run.request

    @property
    def upstream_wait(self) -> float:
        """Seconds from the upstream call's start to its first content; 0 for a joined or replayed request."""
        return self.run.upstream_wait if self.source == "upstream" else 0.0

    @property
    def upstream_time(self) -> float:
        """Seconds spent in all calls to the upstream."""
        return sum([attempt.duration_ms for attempt in self.attempts]) / 1000

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The upstream calls that were made for it: none for a joined or replayed request."""
        return self.run.attempts if self.source == "upstream" else ()

    @property
    def usage(self) -> Usage:
        """The tokens so far, of all calls of the run; before the end those that the provider has counted by then."""
        return self.run.usage if self.run.usage != NO_USAGE else self.run.counted

    @property
    def cost(self) -> Cost | None:
        """What its calls cost: 0 for a joined or replayed request, None where unknown or nothing was used."""
        return self.run.cost if self.source == "upstream" else NO_COST

    @property
    def frees_key(self) -> bool:
        """Whether it ended temporarily before any content: submitted again, it may succeed."""
        end = self.stream.terminal
        failed = end is not None and isinstance(end.event, Failed) and end.event.temporary
        return failed and self.stream.offset <= WITHOUT_CONTENT

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
            core_result=core_result(event) if isinstance(event, Completed) else None,
            seed=run.seed,
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


def use_no_tokens(hold: LimitHold | None, *, ended: bool = False) -> None:
    """Count no tokens for a request that another one's log answers; with ``ended`` it does not run either."""
    if hold is not None:
        hold.count(0)
        if ended:
            hold.release()


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
