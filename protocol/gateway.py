"""The conversation with the model's side: complete this request, and tell me as it comes."""

from decimal import Decimal
from typing import Any, Literal, Protocol

import msgspec

from protocol.budgets import Account
from protocol.events import Content
from protocol.llm import Attempt, ChatRequest, FinishReason, ReasoningPart, ToolCall, Usage
from protocol.message import Message


class Progress(Message[None], frozen=True, kw_only=True):
    """What has come from the model's side: all events of one network read, in order.

    Attributes:
        events: content for the log.
        waited: with the first content only: seconds from the call's start to it; otherwise 0.
        attempt: a call that has ended, well or not; None otherwise. One that is given up after content is told a second
            time once it is known what it has used, perhaps after the reply.
        number: with an attempt: which of the request's calls it was, from 1; 0 for the next.
    """

    events: tuple[Content, ...] = ()
    waited: float = 0.0
    attempt: Attempt | None = None
    number: int = 0


class ProgressSink(Protocol):
    """Whoever is told of progress: a ``Ref[Progress]``, or what writes it down at once."""

    async def tell(self, message: Progress) -> None:
        """Take ``message``; waits while there is no room, which holds back the upstream."""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer.

    Attributes:
        text: the answer's text.
        tool_calls: the calls that the model asks for.
        result: the validated JSON where a schema was given; otherwise None.
        finish_reason: why the model stopped.
        usage: tokens of all the attempts together, as far as they are known by now.
        cost: US dollars for them; None where a price is unknown.
        provider: who answered.
        model: the provider's own name of the model.
        reasoning: what the model thought, thought by thought.
        logprobs: as ``events.Completed`` has them.
        stop_sequence: as ``events.Completed`` has it.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    result: msgspec.Raw | None = None
    finish_reason: FinishReason = "stop"
    usage: Usage = Usage()
    cost: Decimal | None = None
    provider: str = ""
    model: str = ""
    reasoning: tuple[ReasoningPart, ...] = ()
    logprobs: str = ""
    stop_sequence: str = ""


class Complete(Message[Completion], frozen=True, kw_only=True):
    """Ask a model. The reply comes when the answer is whole and, with a schema, valid.

    Giving up the ask closes the upstream socket; after content, once it has been read on for a moment to its usage.

    Attributes:
        request: what is asked.
        request_id: whose call it is, for the spans.
        tenant: who asks; a provider's places are shared fairly between tenants.
        account: who pays for every call; None for nobody.
        sink: who is told while it comes; None for nobody.
        restart: whether the answer may begin anew after a call that has brought content broke off; the sink is told so
            by an ``AttemptFailed`` with ``restart``.
        repair: whether a whole answer that does not match the schema is given back to the model, once and with what is
            wrong with it; where content has been told, the sink is told that it is void as with ``restart``.

    Raises (as replies):
        NotFound: ``model_not_found``.
        Overloaded: ``provider_overloaded``: the provider's queue is full.
        BudgetExceeded: the account has no room for the next call; nobody else is asked.
        ProviderError: the model's side failed, and the retries are spent.
        SchemaMismatch: the answer is whole but does not match the schema, also after its repair.
        DeadlineExceeded: out of time.
    """

    traced = True

    request: ChatRequest
    request_id: str = ""
    tenant: str = ""
    account: Account | None = None
    sink: ProgressSink | None = None
    restart: bool = False
    repair: bool = False


class ModelInfo(msgspec.Struct, frozen=True):
    """A model that can be asked for by ``name``; ``provider`` serves it."""

    name: str
    provider: str


class ResolveModel(Message[ModelInfo], frozen=True):
    """Who would serve ``model``. Raises (as a reply) ``NotFound``: ``model_not_found``."""

    model: str


class ListModels(Message[tuple[ModelInfo, ...]], frozen=True):
    """Which models there are."""


BreakerState = Literal["closed", "open", "half-open"]
ProviderState = Literal["ready", "loading", "failed"]


class TargetStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a model of a provider has done lately; times are seconds from now.

    Attributes:
        model: the provider's own name of it.
        state: of its breaker: ``open`` while it is left alone after failures, ``half-open`` while one call may try it.
        retry: until that call is let through.
        cools: for how long others are asked first, as it has asked for.
        limited: until its rate limit has room for a call.
    """

    model: str
    state: BreakerState = "closed"
    retry: float = 0.0
    cools: float = 0.0
    limited: float = 0.0


class ProviderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider is: ``state`` is ``ready``, ``loading``, or ``failed`` with ``detail`` safe to show.

    ``targets`` are those of its models that are not simply asked now.
    """

    name: str
    state: ProviderState
    detail: str = ""
    in_flight: int = 0
    queued: int = 0
    targets: tuple[TargetStatus, ...] = ()


class GetProviders(Message[tuple[ProviderStatus, ...]], frozen=True):
    """How the providers are."""


JsonSchema = dict[str, Any]
