"""Messages of the LLM gateway: complete a request with progress, list models, get the providers' status."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Literal, Protocol

import msgspec

from protocol.budgets import Account
from protocol.events import Content
from protocol.llm import AnswerPart, Attempt, ChatRequest, Extra, FinishReason, HasParts, Usage
from protocol.message import Message


class Progress(Message[None], frozen=True, kw_only=True):
    """Progress of a completion: the events of one network read, in order.

    Attributes:
        events: content for the log.
        waited: seconds from the call's start to its first content, with the first content only; otherwise 0.
        counted: the tokens that the provider has counted by the first content, with that only; None where it has not.
        attempt: the report of a call that has ended; None otherwise. A call that was given up after content is reported
            again when its usage is known, perhaps after the reply.
        number: with an attempt: the call's number within the request, from 1; 0 for the next.
    """

    events: tuple[Content, ...] = ()
    waited: float = 0.0
    counted: Usage | None = None
    attempt: Attempt | None = None
    number: int = 0


class ProgressSink(Protocol):
    """Receives progress: a ``Ref[Progress]``, or an object that writes to the log directly."""

    async def tell(self, message: Progress) -> None:
        """Receive ``message``. Waits while the receiver has no room, which pauses the upstream."""


CallBegan = Callable[[int, str, str], object]
"""Is told of a call that begins: its number within the request, from 1, its provider, and the provider's model."""


class Completion(msgspec.Struct, HasParts, frozen=True, kw_only=True):
    """A whole answer.

    Attributes:
        parts: the answer's parts, in order, as the model wrote them.
        result: the validated JSON where the request has a schema; otherwise None.
        finish_reason: why the model stopped.
        raw_finish_reason: as in ``events.Completed``.
        usage: tokens of all attempts, as far as they are known now.
        cost: US dollars of these tokens; None where a price is unknown.
        provider: the provider that answered.
        model: the provider's name of the model.
        logprobs: as in ``events.Completed``.
        stop_sequence: as in ``events.Completed``.
        extra: as in ``events.Completed``.
    """

    parts: tuple[AnswerPart, ...] = ()
    result: msgspec.Raw | None = None
    finish_reason: FinishReason = "stop"
    raw_finish_reason: str = ""
    usage: Usage = Usage()
    cost: Decimal | None = None
    provider: str = ""
    model: str = ""
    logprobs: str = ""
    stop_sequence: str = ""
    extra: Extra = {}

    @property
    def repeatable(self) -> bool:
        """Whether a later request may get it: its end is known, and no container belongs to its conversation."""
        return self.finish_reason != "other" and "container" not in self.extra.get("anthropic", {})


class Complete(Message[Completion], frozen=True, kw_only=True):
    """Complete a chat request. The reply comes when the answer is complete and, with a schema, valid.

    Cancelling the ask closes the upstream connection; after content the stream is read for a moment longer, for its
    usage.

    Attributes:
        request: the chat request.
        request_id: the request's id, for the spans and the log.
        trace_id: of the request, for the log.
        tenant: the caller's tenant; the slots of a provider are shared fairly between tenants.
        account: pays for every call; None for no account.
        sink: receives the progress; None for none.
        began: is told of each call before it is sent; None for none.
        restart: whether the answer may start again after a call with content broke off; the sink then gets an
            ``AttemptFailed`` with ``restart``.
        repair: whether an answer that does not match the schema is sent back to the model once, with its errors; the
            content that the sink has got is then void, as with ``restart``.
        seed: a made-up seed, for a request without its own that is meant to have the same answer each time; sent to
            providers that are known to have seeds.

    Raises (as replies):
        NotFound: ``model_not_found``.
        Overloaded: ``provider_overloaded``: the provider's queue is full.
        BudgetExceeded: the account has no room for the next call; no further target is tried.
        ProviderError: the provider failed, and the retries are used up.
        SchemaMismatch: the answer does not match the schema, also after its repair.
        DeadlineExceeded: the deadline has passed.
    """

    traced = True

    request: ChatRequest
    request_id: str = ""
    trace_id: str = ""
    tenant: str = ""
    account: Account | None = None
    sink: ProgressSink | None = None
    began: CallBegan | None = None
    restart: bool = False
    repair: bool = False
    seed: int | None = None


class ModelInfo(msgspec.Struct, frozen=True):
    """A model name that callers can use, and the provider that serves it."""

    name: str
    provider: str


class ResolveModel(Message[ModelInfo], frozen=True):
    """Get the provider that would serve ``model``. Raises (as a reply) ``NotFound``: ``model_not_found``."""

    model: str


class ListModels(Message[tuple[ModelInfo, ...]], frozen=True):
    """List the models."""


BreakerState = Literal["closed", "open", "half-open"]
ProviderState = Literal["ready", "idle", "loading", "failed"]


class TargetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of a model of a provider. Times are seconds from now.

    Attributes:
        model: the provider's name of the model.
        state: of its circuit breaker: ``open`` refuses calls after failures, ``half-open`` lets one call through.
        retry: until the breaker lets a call through.
        cools: until the end of the wait that it asked for (``retry-after``); other targets are tried first.
        limited: until its rate limit has room for a call.
    """

    model: str
    state: BreakerState = "closed"
    retry: float = 0.0
    cools: float = 0.0
    limited: float = 0.0


class ProviderFault(msgspec.Struct, frozen=True):
    """A fault of a provider that only its operator can mend.

    Attributes:
        code: of its latest failure.
        status: the provider's HTTP status; 0 for none.
        since: when the first of these failures came, in ISO 8601.
    """

    code: str
    status: int
    since: str


class ProviderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The status of a provider, with a ``detail`` that is safe to show where it ``failed``.

    ``idle`` is a model on this machine that is loaded with its first request.

    ``targets`` has the models that are not called normally now. ``fault`` is the operator's, until a call succeeds.
    """

    name: str
    state: ProviderState
    detail: str = ""
    in_flight: int = 0
    queued: int = 0
    targets: tuple[TargetStatus, ...] = ()
    fault: ProviderFault | None = None


class GetProviders(Message[tuple[ProviderStatus, ...]], frozen=True):
    """Get the status of the providers."""


JsonSchema = dict[str, Any]
