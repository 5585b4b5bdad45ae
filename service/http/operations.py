"""Operations: a route and its description in one declaration, above its handler.

::

    @Operation(
        "GET",
        "/api/requests/{id}",
        name="getRequest",
        tag=REQUESTS,
        summary="Get the state of a request.",
        parameters=(path_name("id", "The request's id.", example="req_1"),),
        answers=(Answer(200, "Its state.", RequestState),),
        errors=(*ASKS, "request_not_found"),
    )
    async def show(request: web.Request) -> JsonResponse: ...

    def add_routes(app: web.Application) -> None:
        add_operations(app, show)

``service.http.openapi`` makes the OpenAPI document of an application's operations.
"""

import re
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

Method = Literal["GET", "POST", "PUT", "DELETE"]
Place = Literal["path", "query", "header"]

JSON: Final = "application/json"
EVENTS: Final = "text/event-stream"

REQUESTS: Final = "Requests"
CHANNELS: Final = "Channels"
USERS: Final = "Users"
SOCKET: Final = "Socket"
ACCOUNT: Final = "Account"
OPENAI: Final = "OpenAI"
ANTHROPIC: Final = "Anthropic"
MODELS: Final = "Models"
HEALTH: Final = "Health"
PAGES: Final = "Pages"
TAGS: Final[Mapping[str, str]] = {
    REQUESTS: "The native interface: a request outlives the connection that submitted it.",
    OPENAI: "OpenAI's interface, for its SDKs and whatever else speaks it. Unknown fields are passed on or ignored.",
    ANTHROPIC: "Anthropic's interface. Unknown fields are passed on or ignored.",
    MODELS: "The models, in OpenAI's form; with the header `anthropic-version` in Anthropic's.",
    CHANNELS: "Publish to channels, and read them. Subscribing is for the socket.",
    USERS: "The users of the tenant and their sockets, for administrators.",
    SOCKET: "One WebSocket for requests and channels.",
    ACCOUNT: "What the caller's account spends, and tickets.",
    HEALTH: "Probes. They need no key.",
    PAGES: "Pages and their files. They need no key.",
}
"""Each group of operations and what it is, in the order in which they are shown."""

ASKS: Final = ("mailbox_full", "ask_timeout", "actor_failed", "actor_stopped")
"""The failures of an operation that asks an actor."""
INFERS: Final = (
    *ASKS,
    "invalid_schema",
    "context_length_exceeded",
    "content_policy",
    "bad_tool_schema",
    "model_not_allowed",
    "model_not_found",
    "idempotency_key_reused",
    "request_gone",
    "overloaded",
)
"""The failures of an operation that submits a request."""
ANSWERS: Final = (
    "provider_rejected",
    "provider_unavailable",
    "provider_overloaded",
    "provider_rate_limited",
    "provider_error",
    "provider_billing",
    "provider_credentials",
    "provider_bad_response",
    "provider_stream_broken",
    "provider_timeout",
    "response_too_large",
    "schema_mismatch",
    "budget_exceeded",
    "deadline_exceeded",
    "cancelled",
)
"""The failures of an operation that waits for a model's answer."""

_PATTERN = re.compile(r"\{(\w+):[^{}]*\}")


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of an operation.

    Attributes:
        name: its name.
        place: where it is.
        text: what it means, in Markdown.
        schema: its JSON Schema.
        example: a valid value; None for none.
    """

    name: str
    place: Place
    text: str
    schema: Mapping[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})
    example: Any = None


class Body(msgspec.Struct, frozen=True):
    """The JSON body of an operation.

    Attributes:
        kind: its struct.
        example: a body that the service accepts.
        vendor: whose dialect it is, as the prefix of its inner schemas: unknown fields and parts are accepted there.
            Empty for a native body, where they are errors.
        required: whether the operation needs it.
    """

    kind: type[msgspec.Struct]
    example: Mapping[str, Any]
    vendor: str = ""
    required: bool = True


class Answer(msgspec.Struct, frozen=True):
    """An answer of an operation that is not a failure.

    Attributes:
        status: the HTTP status.
        text: what it means, in Markdown.
        kind: the struct of its JSON, or several of which it is one; None for an answer without JSON.
        media: the content types of an answer without JSON; none for no content.
        headers: the names of its headers, besides those that every answer has.
        event: the schema of each event of an answer with events; empty for one with just ``event`` and ``data``.
    """

    status: int
    text: str
    kind: Any = None
    media: str | tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    event: Mapping[str, Any] = {}


class Operation(msgspec.Struct, frozen=True):
    """A route and its description. As a decorator, it adds the handler.

    Attributes:
        method: the HTTP method.
        path: the path, as aiohttp's router takes it.
        name: the name of the operation in generated clients, in camel case; unique.
        tag: the group of operations that it belongs to, one of ``TAGS``.
        summary: what it does, in one sentence.
        answers: its answers, besides failures.
        text: further explanation, in Markdown.
        parameters: its parameters.
        body: its body; None for none.
        errors: the codes of its failures, besides those that follow from its access and its body.
        extra: further members of the description, such as ``x-…``.
    """

    method: Method
    path: str
    name: str
    tag: str
    summary: str
    answers: tuple[Answer, ...]
    text: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    errors: tuple[str, ...] = ()
    extra: Mapping[str, Any] = {}

    @property
    def template(self) -> str:
        """The path without the router's patterns: ``/api/channels/{name}/history``."""
        return _PATTERN.sub(r"{\1}", self.path)

    def __call__(self, handler: Handler) -> "DescribedRoute":
        """Return the route with its handler."""
        return DescribedRoute(self, handler)


class DescribedRoute(msgspec.Struct, frozen=True):
    """An operation with its handler."""

    operation: Operation
    handler: Handler


DESCRIBED: Final = web.AppKey("operations", list[Operation])


def add_operations(app: web.Application, *routes: DescribedRoute) -> None:
    """Add routes to the application, and their descriptions to its document.

    A ``GET`` has its ``HEAD``, unless it answers with events.
    """
    described = app.setdefault(DESCRIBED, [])
    for route in routes:
        operation = route.operation
        described.append(operation)
        if operation.method == "GET":
            streams = any(EVENTS in answer.media for answer in operation.answers)
            app.router.add_get(operation.path, route.handler, allow_head=not streams)
        else:
            app.router.add_route(operation.method, operation.path, route.handler)


def operations_of(app: web.Application) -> tuple[Operation, ...]:
    """Return the operations that were added to the application, in order."""
    described: list[Operation] = app.get(DESCRIBED, [])
    return tuple(described)


def path_name(name: str, text: str, *, most: int = 0, example: str = "") -> Parameter:
    """Return a parameter in the path: 1 to ``most`` characters, or any number with 0."""
    schema: dict[str, Any] = {"type": "string", "minLength": 1}
    return Parameter(
        name=name,
        place="path",
        text=text,
        schema=schema | ({"maxLength": most} if most else {}),
        example=example or None,
    )


IDEMPOTENCY_KEY: Final = Parameter(
    name="Idempotency-Key",
    place="header",
    text="The same key and body give the first answer again, with `Idempotent-Replayed: true`; the same key and "
    "another body is `idempotency_key_reused`.",
    schema={"type": "string", "pattern": "^[ -~]{1,255}$"},
)
DEDUPE: Final = Parameter(
    name="x-tidegate-dedupe",
    place="header",
    text="Whether identical requests of one tenant may share one call and its answer. Without it they do where "
    "`temperature` is 0 or there is a `seed`.",
    schema={"type": "string", "enum": ["on", "off"]},
)
ON_ABANDON: Final = Parameter(
    name="x-tidegate-on-abandon",
    place="header",
    text="What happens when the client disconnects: the request goes on (`finish`), or is cancelled (`cancel`).",
    schema={"type": "string", "enum": ["finish", "cancel"]},
)
CHAT_HEADERS: Final = (IDEMPOTENCY_KEY, DEDUPE, ON_ABANDON)
"""The headers of a vendor's chat operation."""
INFERENCE: Final = (
    "x-tidegate-source",
    "x-tidegate-attempts",
    "x-tidegate-overhead-ms",
    "x-tidegate-cost-usd",
    "x-tidegate-warning",
)
"""The headers of an inference's answer."""
