"""``POST /api/tickets``: what a web page needs to open a socket without showing a key in an address."""

import datetime as dt

import msgspec
from aiohttp import web

from service.context import call_of, container_of
from service.http.json_response import Answer, json_answer


class Ticket(msgspec.Struct, frozen=True, rename="camel"):
    """The answer: a ticket for one use, until ``expires_at``."""

    ticket: str
    expires_at: dt.datetime


def add_routes(app: web.Application) -> None:
    """Offer the address."""
    app.router.add_post("/api/tickets", create)


async def create(request: web.Request) -> Answer:
    """Give a ticket with which the caller, as who they are now, opens one socket."""
    ticket, ends = container_of(request).auth.issue_ticket(call_of(request).principal)
    body = Ticket(ticket, dt.datetime.fromtimestamp(ends, dt.UTC))
    return json_answer(body)
