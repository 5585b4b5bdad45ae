"""Messages of requests: submit, get, follow, cancel and delete."""

import datetime as dt
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Annotated, Any, Final, Literal, Protocol, Self

import msgspec

from protocol.answer import CoreResult
from protocol.budgets import Account
from protocol.errors import FieldError
from protocol.events import Entry, EventStream, Position, Snapshot
from protocol.hub import Mode
from protocol.limits import LimitHold
from protocol.llm import (
    MAX_INT,
    MAX_MODEL,
    MAX_STOPS,
    MAX_TEMPERATURE,
    MAX_TOKENS,
    MAX_TOOLS,
    Attempt,
    ChatMessage,
    ChatRequest,
    Cost,
    Tool,
    Usage,
)
from protocol.message import Message

Source = Literal["upstream", "cache", "joined"]
Status = Literal["pending", "running", "completed", "failed", "cancelled"]
OnAbandon = Literal["finish", "cancel"]
OnAttemptFailed = Literal["fail", "restart"]

DEFAULT_TIMEOUT_MS = 120_000
DEFAULT_CACHE_TTL_MS = 300_000
MAX_TIMEOUT_MS = 3_600_000
MAX_CACHE_TTL_MS = 86_400_000
MIN_TTL_MS = 1000
MAX_NAME: Final = 256  # characters of a session's name, and of a prompt's version
MAX_METADATA: Final = 16  # pairs, OpenAI's limit
MAX_METADATA_KEY: Final = 64  # characters, OpenAI's limit
MAX_METADATA_VALUE: Final = 512  # characters, OpenAI's limit


def _within(low: int, high: int) -> msgspec.Meta:
    """Say bounds in the JSON Schema only: the validation checks them, and reports all faults of a body at once."""
    return msgspec.Meta(extra_json_schema={"minimum": low, "maximum": high})


_Name = Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": MAX_NAME})]
_Moment = Annotated[dt.datetime, msgspec.Meta(extra_json_schema={"format": "date-time"})]
_Metadata = Annotated[
    dict[str, Annotated[str, msgspec.Meta(extra_json_schema={"maxLength": MAX_METADATA_VALUE})]],
    msgspec.Meta(
        extra_json_schema={
            "maxProperties": MAX_METADATA,
            "propertyNames": {"minLength": 1, "maxLength": MAX_METADATA_KEY},
        }
    ),
]


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
        ttl_ms: how long state and log are kept after the end, in milliseconds: at most as long as the service keeps
            them by itself, which is also the default.
        on_abandon: what happens when nobody follows the request: ``finish``, or ``cancel`` after a grace period.
        on_attempt_failed: what happens when a call breaks off after content: ``fail``, or ``restart``: the answer
            starts again, and the content so far is void.
        repair: whether an answer that does not match the schema is sent back to the model once, to be corrected; the
            answer then starts again, and the content so far is void. Ignored without a schema.
        partial: whether updates also have the JSON value so far, always valid JSON; only with a schema.
        prompt_version: part of the fingerprint, so that a new prompt version never gets an old answer.
    """

    temperature: Annotated[float, _within(0, MAX_TEMPERATURE)] | None = None
    top_p: Annotated[float, _within(0, 1)] | None = None
    max_tokens: Annotated[int, _within(1, MAX_TOKENS)] | None = None
    timeout_ms: Annotated[int, _within(1, MAX_TIMEOUT_MS)] = DEFAULT_TIMEOUT_MS
    seed: Annotated[int, _within(-MAX_INT - 1, MAX_INT)] | None = None
    stop: Annotated[tuple[str, ...], msgspec.Meta(extra_json_schema={"maxItems": MAX_STOPS})] = ()
    dedupe: bool = True
    cache_ttl_ms: Annotated[int, _within(0, MAX_CACHE_TTL_MS)] = DEFAULT_CACHE_TTL_MS
    ttl_ms: Annotated[int, msgspec.Meta(extra_json_schema={"minimum": MIN_TTL_MS})] | None = None
    on_abandon: OnAbandon = "finish"
    on_attempt_failed: OnAttemptFailed = "fail"
    repair: bool = True
    partial: bool = False
    prompt_version: _Name = ""


class SubmitBody(_Wire, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /api/requests`` and of the socket's ``submit``.

    Attributes:
        messages: the conversation.
        model: a model of ``GET /v1/models``; ``default`` is the service's default.
        schema: a JSON Schema (draft 2020-12) that the answer has to match; null for free text.
        options: how the request is run, shared and answered.
        tools: functions that the model may call.
        tool_choice: ``auto``, ``none``, ``required``, or a tool's name; empty for the model's default.
        session_id: the caller's name for a series of requests.
        metadata: the caller's own key-value pairs.
    """

    messages: Annotated[tuple[ChatMessage, ...], msgspec.Meta(extra_json_schema={"minItems": 1})]
    model: Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1, "maxLength": MAX_MODEL})] = "default"
    schema: dict[str, Any] | None = None
    options: RequestOptions = RequestOptions()
    tools: Annotated[tuple[Tool, ...], msgspec.Meta(extra_json_schema={"maxItems": MAX_TOOLS})] = ()
    tool_choice: str = ""
    session_id: _Name = ""
    metadata: _Metadata = {}


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """How a request is run and shared, on any surface.

    Attributes:
        timeout: seconds for the whole request.
        dedupe: whether identical requests of one tenant may share one call.
        cache_ttl: seconds for which the finished log may answer later identical requests; 0 for never.
        ttl: seconds for which state and log are kept after the end; None for the router's own, which is the most.
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
    ttl: float | None = None
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
    """The state of a request: the answer of ``GET /api/requests/{id}``.

    Attributes:
        request_id: the request's id.
        session_id: the caller's name for a series of requests; null for none.
        trace_id: 32 hex digits.
        model: the model, as the caller named it.
        provider: the provider that answered; null while none has.
        assistant_status: the request's status.
        core_result: the validated JSON of an answer with a schema; otherwise its text, tool calls and parts. Null while
            there is no whole answer.
        seed: the caller's seed; without one it is made up, the same for equal requests, and sent to the provider where
            the temperature is 0 and the provider has seeds.
        usage: the tokens of all attempts.
        cost: the cost of all attempts; null where it is unknown.
        attempts: the calls to providers.
        source: where the answer comes from.
        position: the log's last position.
        created_at: when the request was submitted.
        updated_at: when its log was last written.
        expires_at: when the request will be forgotten; null while it runs.
        error: why it failed.
    """

    request_id: str
    session_id: str | None
    trace_id: str
    model: str
    provider: str | None
    assistant_status: Status
    core_result: msgspec.Raw | CoreResult | None
    seed: int
    usage: Usage
    cost: Cost | None
    attempts: tuple[Attempt, ...]
    source: Source
    position: Position
    created_at: _Moment
    updated_at: _Moment
    expires_at: _Moment | None
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


class Digests(msgspec.Struct, frozen=True, gc=False):
    """What takes long to compute of a large submission.

    Attributes:
        run: the digest of all that shapes the answer.
        body: the digest of the whole submission; empty without an idempotency key.
        input_bytes: about how many bytes the request to the model holds.
    """

    run: bytes
    body: bytes
    input_bytes: int


class Submit(Message[Submitted], frozen=True, kw_only=True):
    """Run a request, or find the log that already answers it.

    Attributes:
        request: the chat request.
        tenant: the caller's tenant; tenants share nothing.
        account: pays for the calls that are made; an answer from the cache or of a joined request costs nothing. None
            for no account.
        delivery: how the request is run and shared.
        idempotency_key: the caller's key for this submission; empty for none.
        credential: the digest of the caller's key or token, by which ``CancelOwned`` finds the request; empty for none.
        trace_id: the caller's trace, 32 hex digits or another name; shown to the caller.
        hold: what the request has taken from the caller's rate limits; the router settles it. None for nothing.
        surface: what the caller has used, for the log: ``native``, ``openai``, ``responses``, ``anthropic``, ``socket``
            or ``pipeline``; empty for a program of its own.
        digests: of the submission, once the router has computed them in a thread, as it does for a large one.

    Raises (as replies):
        InvalidRequest: the ``ttl`` is longer than the router's own.
        IdempotencyKeyReused: the key was used for another request.
        RequestGone: the key was used for this request, which has ended and is no longer kept.
        Overloaded: too many requests are stored.
        NotFound: ``model_not_found``.
    """

    traced = True

    request: ChatRequest
    tenant: str = ""
    account: Account | None = None
    delivery: Delivery = Delivery()
    idempotency_key: str = ""
    credential: bytes = b""
    trace_id: str = ""
    hold: LimitHold | None = None
    surface: str = ""
    digests: Digests | None = None


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


class CancelOwned(Message[int], frozen=True):
    """Cancel every running request that was submitted with a credential. Others that share their logs go on.

    Replies with the number of requests.
    """

    credential: bytes


class DeleteRequest(Message[None], frozen=True):
    """Cancel a request and forget it: its state, its log, its idempotency key, and what the cache holds of its answer.

    Its followers get their end. Other requests that share its log go on, and keep what they have; their answer does not
    go to the cache any more.

    Raises (as replies):
        NotFound: ``request_not_found``: the tenant has no such request, or it is deleted already.
        AskTimeout: the cache does not answer; the request is cancelled but not forgotten.
    """

    traced = True

    request_id: str
    tenant: str = ""


class CountRequests(Message[int], frozen=True):
    """Count the requests that are running, whether or not anybody follows them."""


class AwaitRequests(Message[None], frozen=True):
    """Wait for the moment at which no request is running: the reply comes then."""


class EndRequests(Message[int], frozen=True):
    """End every running request with ``shutting_down``, and begin no new one. Replies with the number of requests."""
