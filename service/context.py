"""The context of a handler: the container of its application, and its HTTP call."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from aiohttp import web
from opentelemetry.trace import Span, SpanContext

from protocol.errors import AccessDenied
from protocol.identity import ANONYMOUS, Principal
from protocol.ids import request_id as new_request_id
from protocol.limits import LimitHold, QuotaStanding
from service.auth.grants import Grants
from service.auth.permissions import check_route

if TYPE_CHECKING:
    from service.container import Container


NO_HEADERS: Final[Mapping[str, str]] = {}


class CallContext:
    """The context of one HTTP call: its ids, its caller, its span, its failure. Made before anything else happens.

    ::

        running --rights_ended--> denied --its task is cancelled: 401, or 403----------> ended
                                    +------a stream's ``stop``: the error as its end---> ended

    Args:
        request_id: the caller's ``x-request-id``; empty for none.
        trace_id: 32 hex digits, or another name that the caller has given its trace.
        accepted: ``time.perf_counter()`` when the headers had been read, before the handler's task was made.
        parent: the caller's span, from ``traceparent``; None for none.

    Attributes:
        trace_id: as given.
        principal: the caller; ``ANONYMOUS`` where neither keys nor tokens are configured.
        authenticated: False only on ``/ws`` and health, where a key is required and the headers have none, or on health
            an invalid one: the socket's handler checks the ticket, and health shows less.
        body_bytes: of its body that are counted in the tenant's share; 0 for a small one.
        accepted: ``time.perf_counter()`` when the headers had been read, before the handler's task was made.
        span: the SERVER span, for attributes; None where the call has none.
        response: the stream that is being written; None before its headers are sent, and for a response in one piece.
        ended: whether the handler has ended; a response in one piece is sent after that.
        failure: the error code of the response; empty for none.
        outcome_logged: whether the line ``request_ended`` tells how the call went, under the same request id.
        limits: what is left of the caller's limits, for the headers of the response; none for an unlimited caller.
        hold: what the call has taken from the limits, until it ends; None for nothing.
        uncounted: the endpoint of a call whose handler has yet to take it from the limits; empty for none.
        route: the template of the matched route.
        needs: raises ``AccessDenied`` where a caller lacks a further right that the call needs; None for no further
            right. Asked again when the caller's rights change.
        stop: ends the stream that is being written, whose handler then sends ``denied`` as its end; None where the
            call is to be cancelled instead.
        denied: why the call has to end before its time; None where it has not.
        task: answers the call.
        cors: headers of the response for the page that has sent the call; none where the call has no ``Origin``.
        parent: the caller's span, from ``traceparent``; None for none.
    """

    __slots__ = (
        "_request_id",
        "accepted",
        "authenticated",
        "body_bytes",
        "cors",
        "denied",
        "ended",
        "failure",
        "hold",
        "limits",
        "needs",
        "outcome_logged",
        "parent",
        "principal",
        "response",
        "route",
        "span",
        "stop",
        "task",
        "trace_id",
        "uncounted",
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
        self.outcome_logged = False
        self.limits: Sequence[QuotaStanding] = ()
        self.hold: LimitHold | None = None
        self.uncounted = ""
        self.body_bytes = 0
        self.cors = NO_HEADERS
        self.parent = parent
        self.route = ""
        self.needs: Callable[[Principal], object] | None = None
        self.stop: Callable[[], object] | None = None
        self.denied: AccessDenied | None = None
        self.task: asyncio.Task[object] | None = None

    @property
    def tenant(self) -> str:
        """The tenant whose requests and channels this call may see."""
        return self.principal.tenant

    @property
    def request_id(self) -> str:
        """The caller's ``x-request-id``, else the id of the LLM request that it submits, else a new one."""
        if not self._request_id:
            self._request_id = new_request_id()
        return self._request_id

    @property
    def known_id(self) -> str:
        """The request id, where the call has one by now; empty otherwise, and it may still get that of its request."""
        return self._request_id

    def name(self, request_id: str) -> None:
        """Set the request id, unless the call has one."""
        self._request_id = self._request_id or request_id

    def enter_grants(self, grants: Grants, principal: Principal) -> None:
        """Be a call of ``principal`` that ends with the caller's rights; the current task answers it."""
        self.principal = principal
        self.task = asyncio.current_task()
        grants.enter(principal, self)

    def leave_grants(self, grants: Grants) -> None:
        """End with nobody's rights any more."""
        if self.task is not None:
            self.task = None
            grants.leave(self.principal, self)

    def rights_ended(self, error: AccessDenied) -> None:
        """End the call: a stream gets ``error`` as its end, anything else as its response."""
        if self.ended or self.denied is not None:
            return
        self.denied = error
        if self.stop is not None:
            self.stop()
        elif self.task is not None:
            self.task.cancel()

    def rights_changed(self, principal: Principal) -> None:
        """Go on with the rights of ``principal``; end the call where they do not cover it."""
        try:
            check_route(principal, self.route)
            if self.needs is not None:
                self.needs(principal)
        except AccessDenied as error:
            self.rights_ended(error)
        else:
            self.principal = principal

    def take_denial(self) -> bool:
        """Return whether ``rights_ended`` alone has cancelled the current task; it is not cancelled any more then.

        The handler of a ``CancelledError`` calls it, as ``asyncio.timeout`` does for its own cancellation.
        """
        task = self.task
        return self.denied is not None and task is asyncio.current_task() and task is not None and not task.uncancel()


SERVER_NAME: Final = "tidegate"
CONTAINER: Final = web.AppKey["Container"]("container")
CALL: Final = web.RequestKey("call", CallContext)
ACCEPTED: Final = web.RequestKey("accepted", float)
CURRENT_CALL: Final = ContextVar[CallContext | None]("tidegate_call", default=None)


def call_of(request: web.Request) -> CallContext:
    """Return the call of a request."""
    return request[CALL]


def container_of(request: web.Request) -> "Container":
    """Return the container of the application that handles a request."""
    return request.app[CONTAINER]
