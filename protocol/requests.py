"""Messages of requests: submit, get, follow and cancel."""

import datetime as dt
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import msgspec

from protocol.answer import CoreResult
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
    """Base of the structs: frozen, camelCase JSON."""


class RequestOptions(_Wire, frozen=True, forbid_unknown_fields=True):
    """Options of a request.

    Attributes:
        temperature: 0..2.
        top_p: 0..1.
        max_tokens: the most tokens of the answer.
        timeout_ms: the deadline of the whole request, in milliseconds.
        seed: makes sampling repeatable where the model supports it.
        stop: texts at which the model stops.
        dedupe: whether identical requests of one tenant may share one call.
        cache_ttl_ms: how long the finished log may answer later identical requests, in milliseconds; 0 for never.
        on_abandon: what happens when nobody follows the request: ``finish``, or ``cancel`` after a grace period.
        on_attempt_failed: what happens when a call breaks off after content: ``fail``, or ``restart``: the answer
            starts again, and the content so far is void.
        repair: whether an answer that does not match the schema is sent back to the model once, to be corrected; the
            answer then starts again, and the content so far is void. Ignored without a schema.
        partial: whether updates also have the JSON value so far, always valid JSON; only with a schema.
        prompt_version: part of the fingerprint, so that a new prompt version never gets an old answer.
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
    """How a request is run and shared, on any surface.

    Attributes:
        timeout: seconds for the whole request.
        dedupe: whether identical requests of one tenant may share one call.
        cache_ttl: seconds for which the finished log may answer later identical requests; 0 for never.
        on_abandon: what happens when nobody follows the request.
        on_attempt_failed: what happens when a call breaks off after content. ``restart`` is part of the fingerprint:
            only readers that can discard content may share such a log.
        repair: whether an answer that does not match the schema is sent back to the model once. Part of the fingerprint
            where there is a schema, for the same reason.
        partial: whether native readers also get the JSON value so far; not part of the fingerprint.
        prompt_version: part of the fingerprint.
        session_id: the caller's name for a series of requests.
        metadata: the caller's own key-value pairs.
        echo: fields of the call that its dialect repeats in each response; not part of the fingerprint.
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
    """A failure in a request's state. ``code`` is a row of ``errors.PROBLEMS``."""

    code: str
    message: str
    temporary: bool = False
    retry_after_ms: int | None = None
    errors: tuple[FieldError, ...] = ()


class RequestState(_Wire, frozen=True):
    """The state of a request: the answer of ``GET /api/requests/{id}``."""

    request_id: str
    session_id: str | None
    trace_id: str
    model: str
    provider: str | None
    assistant_status: Status
    core_result: msgspec.Raw | CoreResult | None
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
    """A reader of a log in this process: ``async for`` yields each entry, to the end of the log.

    It yields a ``Snapshot`` with all the content so far in place of entries that it can't get one by one. A loop that
    breaks off unsubscribes at once inside ``async with``, otherwise when its iterator is garbage-collected.
    """

    def __aiter__(self) -> AsyncIterator[Entry | Snapshot]: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class RequestHandle(Protocol):
    """A request in this process: its log and its state."""

    @property
    def request_id(self) -> str:
        """The request's id."""

    @property
    def source(self) -> Source:
        """Where the answer comes from."""

    @property
    def request(self) -> ChatRequest:
        """The chat request."""

    @property
    def delivery(self) -> Delivery:
        """How the request is run and shared."""

    @property
    def stream(self) -> EventStream:
        """The request's log, for readers."""

    @property
    def attempts(self) -> tuple[Attempt, ...]:
        """The calls made for this request; empty where it joined another one or was replayed from the cache."""

    @property
    def usage(self) -> Usage:
        """The tokens so far: before the end those that the provider has counted by then."""

    @property
    def cost(self) -> Cost | None:
        """The cost of its calls: 0 where it was joined or replayed, None where it is unknown or nothing was used."""

    @property
    def upstream_wait(self) -> float:
        """Seconds until the provider's first event; 0 while there was none."""

    @property
    def upstream_time(self) -> float:
        """Seconds spent in all calls to providers."""

    def state(self) -> RequestState:
        """Return the request's current state."""

    def follow(self, after: Position | None = None, mode: Mode | None = None) -> Reader:
        """Return a reader of the log.

        Args:
            after: the exclusive position to start after; None for the beginning.
            mode: as for ``hub.Subscribe``; None gives a snapshot where the position is of another epoch.

        Raises:
            UnrecoverablePosition: ``mode`` is ``replay`` and the position is of another epoch; or it is beyond the end.
        """


class Submitted(msgspec.Struct, frozen=True):
    """The reply to ``Submit``. ``replayed`` says whether the idempotency key had created this request before."""

    handle: RequestHandle
    replayed: bool = False


class Submit(Message[Submitted], frozen=True, kw_only=True):
    """Run a request, or find the log that already answers it.

    Attributes:
        request: the chat request.
        tenant: the caller's tenant; tenants share nothing.
        account: pays for the calls that are made; an answer from the cache or of a joined request costs nothing. None
            for no account.
        delivery: how the request is run and shared.
        idempotency_key: the caller's key for this submission; empty for none.
        trace_id: the caller's trace, 32 hex digits or another name; shown to the caller.
        surface: what the caller has used, for the log: ``native``, ``openai``, ``responses``, ``anthropic``, ``socket``
            or ``pipeline``; empty for a program of its own.

    Raises (as replies):
        IdempotencyKeyReused: the key was used for another request.
        Overloaded: too many requests are stored.
        NotFound: ``model_not_found``.
    """

    traced = True

    request: ChatRequest
    tenant: str = ""
    account: Account | None = None
    delivery: Delivery = Delivery()
    idempotency_key: str = ""
    trace_id: str = ""
    surface: str = ""


class GetRequest(Message[RequestHandle], frozen=True):
    """Get a request of the tenant. Raises (as a reply) ``NotFound``: ``request_not_found``."""

    request_id: str
    tenant: str = ""


class CancelRequest(Message[RequestHandle], frozen=True):
    """Cancel a request. Idempotent: an ended request stays as it is. Other requests that share its log go on."""

    traced = True

    request_id: str
    tenant: str = ""
    reason: str = "cancelled"
