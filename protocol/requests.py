"""The conversation about a request: submit it, look at it, follow it, cancel it."""

import datetime as dt
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import msgspec

from protocol.budgets import Account
from protocol.errors import FieldError
from protocol.events import Entry, EventStream, Position, Snapshot
from protocol.hub import Mode
from protocol.llm import Attempt, ChatMessage, ChatRequest, Cost, Tool, Usage
from protocol.message import Message

Source = Literal["upstream", "cache", "joined"]
Status = Literal["pending", "running", "completed", "failed", "cancelled"]
OnAbandon = Literal["finish", "cancel"]
OnAttemptFailed = Literal["fail", "restart"]

DEFAULT_TIMEOUT_MS = 120_000
DEFAULT_CACHE_TTL_MS = 300_000
MAX_TIMEOUT_MS = 3_600_000
MAX_CACHE_TTL_MS = 86_400_000


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Frozen camelCase JSON."""


class RequestOptions(_Wire, frozen=True, forbid_unknown_fields=True):
    """How a request is run.

    Attributes:
        temperature: 0..2.
        top_p: 0..1.
        max_tokens: the most tokens of answer.
        timeout_ms: the whole request's time, in milliseconds.
        seed: makes sampling repeatable where the model can.
        stop: texts at which the model stops.
        dedupe: whether identical requests of one tenant may share one call.
        cache_ttl_ms: how long the finished log may answer later identical requests, in milliseconds; 0 for not at all.
        on_abandon: what happens when nobody follows the request: ``finish``, or ``cancel`` after a grace period.
        on_attempt_failed: what happens when a call breaks off after content: ``fail``, or ``restart``, by which the
            answer begins anew and the content so far is void.
        repair: whether an answer that does not match the schema is given back to the model once, to be corrected; the
            answer then begins anew and the content so far is void. Without a schema it means nothing.
        partial: whether updates also have the JSON value so far, always whole; only with a schema.
        prompt_version: part of the fingerprint, so that a new prompt version never meets an old answer.
    """

    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    timeout_ms: int = DEFAULT_TIMEOUT_MS
    seed: int | None = None
    stop: tuple[str, ...] = ()
    dedupe: bool = True
    cache_ttl_ms: int = DEFAULT_CACHE_TTL_MS
    on_abandon: OnAbandon = "finish"
    on_attempt_failed: OnAttemptFailed = "fail"
    repair: bool = True
    partial: bool = False
    prompt_version: str = ""


class SubmitBody(_Wire, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /api/requests`` and of the socket's ``submit``."""

    messages: tuple[ChatMessage, ...]
    model: str = "default"
    schema: dict[str, Any] | None = None
    options: RequestOptions = RequestOptions()
    tools: tuple[Tool, ...] = ()
    tool_choice: str = ""
    session_id: str = ""
    metadata: dict[str, str] = {}


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """How a request is run and shared, whichever surface it came in by.

    Attributes:
        timeout: seconds for the whole request.
        dedupe: whether identical requests of one tenant may share one call.
        cache_ttl: seconds for which the finished log may answer later identical requests; 0 for not at all.
        on_abandon: what happens when nobody follows the request.
        on_attempt_failed: what happens when a call breaks off after content. Part of the fingerprint where it is
            ``restart``: only readers that can take content back may share such a log.
        repair: whether an answer that does not match the schema is given back to the model once. Part of the
            fingerprint where there is a schema, for the same reason.
        partial: whether native readers also get the JSON value so far; no part of the fingerprint.
        prompt_version: part of the fingerprint.
        session_id: the caller's own name for a row of requests.
        metadata: the caller's own notes.
        echo: what the call's dialect says again whenever it is asked for the request; no part of the fingerprint.
    """

    timeout: float = DEFAULT_TIMEOUT_MS / 1000
    dedupe: bool = True
    cache_ttl: float = DEFAULT_CACHE_TTL_MS / 1000
    on_abandon: OnAbandon = "finish"
    on_attempt_failed: OnAttemptFailed = "fail"
    repair: bool = False
    partial: bool = False
    prompt_version: str = ""
    session_id: str = ""
    metadata: dict[str, str] = {}
    echo: dict[str, Any] = {}


class ErrorInfo(_Wire, frozen=True, omit_defaults=True):
    """A failure as a request's state shows it; ``code`` is a row of ``errors.PROBLEMS``."""

    code: str
    message: str
    temporary: bool = False
    retry_after_ms: int | None = None
    errors: tuple[FieldError, ...] = ()


class RequestState(_Wire, frozen=True):
    """What is known of a request: the answer of ``GET /api/requests/{id}``, field by field as WIRE has it."""

    request_id: str
    session_id: str | None
    trace_id: str
    model: str
    provider: str | None
    assistant_status: Status
    core_result: msgspec.Raw | None
    seed: int | None
    usage: Usage
    cost: Cost | None
    attempts: tuple[Attempt, ...]
    source: Source
    position: Position
    created_at: dt.datetime
    updated_at: dt.datetime
    expires_at: dt.datetime | None
    error: ErrorInfo | msgspec.UnsetType = msgspec.UNSET


class Reader(Protocol):
    """Somebody who follows a log in this process: ``async for`` gives one entry after the other, to the end.

    A ``Snapshot`` takes the place of what can't be had one by one: it has all the content so far. Within ``async with``
    a loop that breaks off leaves at once, otherwise when its iterator is let go.
    """

    def __aiter__(self) -> AsyncIterator[Entry | Snapshot]: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class RequestHandle(Protocol):
    """A request in this process: its stream to follow, and its state to look at."""

    @property
    def request_id(self) -> str:
        """Its id."""

    @property
    def source(self) -> Source:
        """Where its answer comes from."""

    @property
    def request(self) -> ChatRequest:
        """What the model was asked."""

    @property
    def delivery(self) -> Delivery:
        """How it is run and shared."""

    @property
    def stream(self) -> EventStream:
        """Its log, as its readers see it."""

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The calls that were made for it: none for one that was joined or replayed."""

    @property
    def cost(self) -> Cost | None:
        """What its calls cost: nothing for one that was joined or replayed, None where unknown or nothing was used."""

    @property
    def upstream_wait(self) -> float:
        """Seconds spent waiting for the model's side until its first event; 0 while there was none."""

    @property
    def upstream_time(self) -> float:
        """Seconds spent in all its calls to the model's side."""

    def state(self) -> RequestState:
        """Return its state as of now."""

    def follow(self, after: Position | None = None, mode: Mode | None = None) -> Reader:
        """Follow it from ``after`` on, which is exclusive; from the beginning with None.

        Args:
            after: up to where the reader has everything.
            mode: as for ``hub.Subscribe``; None gives a snapshot where the position is of another epoch.

        Raises:
            UnrecoverablePosition: ``mode`` is ``replay`` and the position is of another epoch; or it lies beyond the
                end.
        """


class Submitted(msgspec.Struct, frozen=True):
    """The reply to ``Submit``: ``replayed`` says that the idempotency key had named this request before."""

    handle: RequestHandle
    replayed: bool = False


class Submit(Message[Submitted], frozen=True, kw_only=True):
    """Run this request, or find the log that already answers it.

    Attributes:
        request: what the model is asked.
        tenant: who asks; nothing is ever shared across tenants.
        account: who pays, where a call has to be made for it: an answer that is shared or kept costs nothing; None for
            nobody.
        delivery: how it is run and shared.
        idempotency_key: the caller's name for this very submission; empty for none.
        trace_id: 32 hex digits, as the caller will see it.

    Raises (as replies):
        IdempotencyKeyReused: the key names another request.
        Overloaded: too many requests are kept.
        NotFound: ``model_not_found``.
    """

    traced = True

    request: ChatRequest
    tenant: str = ""
    account: Account | None = None
    delivery: Delivery = Delivery()
    idempotency_key: str = ""
    trace_id: str = ""


class GetRequest(Message[RequestHandle], frozen=True):
    """Find a request of this tenant. Raises (as a reply) ``NotFound``: ``request_not_found``, also for another's."""

    request_id: str
    tenant: str = ""


class CancelRequest(Message[RequestHandle], frozen=True):
    """Cancel a request. Idempotent: one that has ended stays as it is. Others that share its log go on."""

    traced = True

    request_id: str
    tenant: str = ""
    reason: str = "cancelled"
