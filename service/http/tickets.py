"""``POST /api/tickets``: a one-time ticket, with which a web page opens a socket without a key in the URL."""

import datetime as dt
from typing import Annotated

import msgspec
from aiohttp import web

from service.context import call_of, container_of
from service.http.json_response import JsonResponse, json_response
from service.http.operations import ACCOUNT, Answer, Operation, add_operations


class Ticket(msgspec.Struct, frozen=True, rename="camel"):
    """A ticket for one use, until ``expires_at``."""

    ticket: str
    expires_at: Annotated[dt.datetime, msgspec.Meta(extra_json_schema={"format": "date-time"})]


def add_routes(app: web.Application) -> None:
    """Add the route."""
    add_operations(app, create)


@Operation(
    "POST",
    "/api/tickets",
    name="createTicket",
    tag=ACCOUNT,
    summary="Get a ticket that opens one socket.",
    text="For web pages, which can't send a key with a socket: connect to `/ws?ticket=…` once, and at once.",
    answers=(Answer(200, "The ticket.", Ticket),),
    errors=("overloaded",),
)
async def create(request: web.Request) -> JsonResponse:
    """Issue a ticket that opens one socket in the caller's name."""
    ticket, ends = container_of(request).auth.issue_ticket(call_of(request).principal)
    body = Ticket(ticket, dt.datetime.fromtimestamp(ends, dt.UTC))
    return json_response(body)
