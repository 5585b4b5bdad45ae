"""What every handler can ask for: the container of its application, and the call that it answers."""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from aiohttp import web
from opentelemetry.trace import Span, SpanContext

from protocol.identity import ANONYMOUS
from protocol.ids import request_id as new_request_id

if TYPE_CHECKING:
    from service.container import Container


class Call:
    """One HTTP request as the service sees it; made before anything else happens to it.

    Args:
        request_id: the caller's ``x-request-id``; empty for none.
        trace_id: 32 hex digits.
        accepted: ``time.perf_counter()`` when the headers had been read, before the handler's task was made.
        parent: the caller's span, as ``traceparent`` named it.

    Attributes:
        trace_id: 32 hex digits.
        principal: who calls; anybody where neither keys nor tokens are configured.
        authenticated: False only on ``/ws`` where a key is needed and the headers bring none: its handler, which first
            looks at the origin, refuses the upgrade.
        accepted: ``time.perf_counter()`` when the headers had been read, before the handler's task was made.
        span: the SERVER span, for attributes; None where the call has none.
        response: the stream that is being written; None before its headers are sent, and for an answer in one piece.
        ended: whether its handler has ended; an answer in one piece is sent after that.
        failure: the code of the failure that was answered; empty for none.
        parent: the caller's span, as ``traceparent`` named it.
    """

    __slots__ = (
        "_request_id",
        "accepted",
        "authenticated",
        "ended",
        "failure",
        "parent",
        "principal",
        "response",
        "span",
        "trace_id",
    )

    def __init__(self, request_id: str, trace_id: str, accepted: float, parent: SpanContext | None = None) -> None:
        self._request_id = request_id
        self.trace_id = trace_id
        self.accepted = accepted
        self.principal = ANONYMOUS
        self.authenticated = True
        self.span: Span | None = None
        self.ended = False
        self.response: web.StreamResponse | None = None
        self.failure = ""
        self.parent = parent

    @property
    def tenant(self) -> str:
        """Whose requests and channels this call may see."""
        return self.principal.tenant

    @property
    def request_id(self) -> str:
        """The caller's name for this call, or the id of the LLM request that it asks for, or one of its own."""
        if not self._request_id:
            self._request_id = new_request_id()
        return self._request_id

    def name(self, request_id: str) -> None:
        """Let the call have this name, unless it has one already."""
        self._request_id = self._request_id or request_id


SERVER_NAME: Final = "tidegate"
CONTAINER: Final = web.AppKey["Container"]("container")
CALL: Final = web.RequestKey("call", Call)
ACCEPTED: Final = web.RequestKey("accepted", float)
CURRENT_CALL: Final = ContextVar[Call | None]("tidegate_call", default=None)


def call_of(request: web.Request) -> Call:
    """The call that this request is."""
    return request[CALL]


def container_of(request: web.Request) -> "Container":
    """The container of the application that answers this request."""
    return request.app[CONTAINER]
