"""What every handler can ask for: the container of its application, and the call that it answers."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from aiohttp import web
from opentelemetry.trace import Span, SpanContext

if TYPE_CHECKING:
    from service.container import Container


class Call:
    """One HTTP request as the service sees it; made before anything else happens to it.

    Attributes:
        request_id: the caller's ``x-request-id``, or a new id. It names the HTTP request, not the LLM request.
        trace_id: 32 hex digits.
        tenant: whose call it is; empty where no keys are configured.
        authenticated: False only on ``/ws`` without a key in its headers, where the key comes in the first frame.
        accepted: ``time.perf_counter()`` when the headers had been read, before the handler's task was made.
        span: the SERVER span, for attributes; None where the call has none.
        response: the stream that is being written; None before its headers are sent, and for an answer in one piece.
        failure: the code of the failure that was answered; empty for none.
        parent: the caller's span, as ``traceparent`` named it.
    """

    __slots__ = (
        "accepted",
        "authenticated",
        "failure",
        "parent",
        "request_id",
        "response",
        "span",
        "tenant",
        "trace_id",
    )

    def __init__(self, request_id: str, trace_id: str, accepted: float) -> None:
        self.request_id = request_id
        self.trace_id = trace_id
        self.accepted = accepted
        self.tenant = ""
        self.authenticated = True
        self.span: Span | None = None
        self.response: web.StreamResponse | None = None
        self.failure = ""
        self.parent: SpanContext | None = None


CONTAINER: Final = web.AppKey["Container"]("container")
CALL: Final = web.RequestKey("call", Call)
ACCEPTED: Final = web.RequestKey("accepted", float)
CURRENT_CALL: Final = ContextVar[Call | None]("tidegate_call", default=None)


def call_of(request: web.Request) -> Call:
    """The call that this request is."""
    return request[CALL]


def container_of(request: web.Request) -> "Container":
    """The container of the application that answers this request."""
    return request.config_dict[CONTAINER]
