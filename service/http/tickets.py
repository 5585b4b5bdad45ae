"""``POST /api/tickets``: a one-time ticket, with which a web page opens a socket without a key in the URL."""

import datetime as dt

import msgspec
from aiohttp import web

from service.context import call_of, container_of
from service.http.json_response import JsonResponse, json_response


class Ticket(msgspec.Struct, frozen=True, rename="camel"):
    """A ticket for one use, until ``expires_at``."""

    ticket: str
    expires_at: dt.datetime


def add_routes(app: web.Application) -> None:
    """Add the route."""
    app.router.add_post("/api/tickets", create)


async def create(request: web.Request) -> JsonResponse:
    """Issue a ticket that opens one socket in the caller's name."""
    ticket, ends = container_of(request).auth.issue_ticket(call_of(request).principal)
    body = Ticket(ticket, dt.datetime.fromtimestamp(ends, dt.UTC))
    return json_response(body)
