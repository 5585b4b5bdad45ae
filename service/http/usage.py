"""``GET /api/usage``: spending and budgets of the caller's account in the current windows."""

import msgspec
from aiohttp import web

from protocol.ledger import Standing
from service.context import call_of, container_of
from service.http.json_response import JsonResponse, json_response
from service.http.operations import ACCOUNT, Answer, Operation, add_operations


class AccountUsage(msgspec.Struct, frozen=True):
    """The spending of an account. A caller without an account has no windows.

    Attributes:
        account: the account that pays for the caller's requests; None for none.
        windows: today and this month.
    """

    account: str | None = None
    windows: tuple[Standing, ...] = ()


def add_routes(app: web.Application) -> None:
    """Add the route."""
    add_operations(app, usage)


@Operation(
    "GET",
    "/api/usage",
    name="getUsage",
    tag=ACCOUNT,
    summary="Get what the caller's account has spent, and may spend.",
    answers=(Answer(200, "The spending of today and of this month.", AccountUsage),),
)
async def usage(request: web.Request) -> JsonResponse:
    """Return the spending of the caller's account."""
    account = call_of(request).principal.account
    answer = AccountUsage()
    if account is not None:
        answer = AccountUsage(account.name, await container_of(request).ledger.spent(account))
    return json_response(answer)
