"""``GET /api/usage``: what the caller's account has spent in the present windows, and what it may."""

import msgspec
from aiohttp import web

from protocol.ledger import Standing
from service.context import call_of, container_of
from service.http.json_response import Answer, json_answer


class AccountUsage(msgspec.Struct, frozen=True):
    """The answer. A caller without an account has no windows.

    Attributes:
        account: who pays for the caller's requests; None for nobody.
        windows: today and this month.
    """

    account: str | None = None
    windows: tuple[Standing, ...] = ()


def add_routes(app: web.Application) -> None:
    """Offer the address."""
    app.router.add_get("/api/usage", usage)


async def usage(request: web.Request) -> Answer:
    """Say how the caller's own account stands."""
    account = call_of(request).principal.account
    answer = AccountUsage()
    if account is not None:
        answer = AccountUsage(account.name, await container_of(request).ledger.spent(account))
    return json_answer(answer)
