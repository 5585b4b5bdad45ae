"""Takes a request or an embeddings call from the limits of its caller, and gives back what it has not used."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import msgspec

from actors.llm_gateway.usage import worst_case
from actors.rate_limits import refusal
from protocol.errors import TidegateError
from protocol.identity import Principal
from protocol.limits import LimitHold
from protocol.llm import ChatRequest
from protocol.requests import Delivery, Submit, Submitted
from service.context import CallContext
from service.http.outcome import SUBMIT_TIMEOUT
from service.middleware.limits import CHAT

if TYPE_CHECKING:
    from service.container import Container

SERVER_ERROR: Final = 500
GRACE: Final = 60.0  # seconds after a request's own timeout, after which its place among the calls at once is free


def take_request(
    container: "Container",
    principal: Principal,
    request: ChatRequest,
    delivery: Delivery,
    *,
    path: str,
    call: CallContext | None = None,
) -> Awaitable[LimitHold | None]:
    """Take a request from the limits of its caller, before it is submitted.

    Args:
        container: has the limits.
        principal: the caller.
        request: the request.
        delivery: how it is run.
        path: the route by which it came.
        call: the HTTP call whose answer tells what is left; None for a frame of a socket.

    Raises:
        RateLimited: a limit has no room.
        InvalidRequest: the request may use more tokens than a whole window has.
        TryAgainLater: ``limits_unavailable``.
    """
    lease = delivery.timeout + GRACE
    return take(container, principal, CHAT, lambda: sum(worst_case(request)), lease, path=path, call=call)


async def take(
    container: "Container",
    principal: Principal,
    endpoint: str,
    estimate: Callable[[], int],
    lease: float,
    *,
    path: str,
    call: CallContext | None = None,
) -> LimitHold | None:
    """Take a call from the limits of its caller; raises as ``take_request`` does.

    Args:
        container: has the limits.
        principal: the caller.
        endpoint: the endpoint's name.
        estimate: returns the most tokens that the call is expected to use.
        lease: seconds after which it counts as ended.
        path: the route.
        call: the HTTP call whose answer tells what is left; None for none.
    """
    if call is not None:
        call.uncounted = ""
    decision = await container.limits.decide(principal, endpoint, path=path, estimate=estimate, lease=lease)
    if call is not None:
        call.limits = decision.standings
    if decision.refused is not None:
        raise refusal(decision)
    return decision.hold


def give_back(hold: LimitHold | None, error: BaseException) -> None:
    """Give back what a request has taken that could not be submitted: all of it unless the client is at fault."""
    if hold is None:
        return
    if isinstance(error, TidegateError) and error.problem.status < SERVER_ERROR:
        hold.count(0)
        hold.release()
    else:
        hold.undo()


async def submit(
    container: "Container", principal: Principal, message: Submit, *, path: str, call: CallContext | None = None
) -> Submitted:
    """Submit a request within the limits of its caller; raises as ``take_request`` and ``Submit`` say."""
    hold = None
    if principal.plan is not None:
        hold = await take_request(container, principal, message.request, message.delivery, path=path, call=call)
    if hold is None:
        return await container.router.ask(message, timeout=SUBMIT_TIMEOUT)
    try:
        return await container.router.ask(msgspec.structs.replace(message, hold=hold), timeout=SUBMIT_TIMEOUT)
    except BaseException as error:
        give_back(hold, error)
        raise
