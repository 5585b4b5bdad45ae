"""``/api/requests``: submit a request, look at it, follow it, cancel it."""

from typing import Final

import msgspec
from aiohttp import web

from protocol.events import Position
from protocol.requests import CancelRequest, GetRequest, RequestHandle, Status
from service.context import call_of, container_of
from service.http import long_poll
from service.http.bodies import decode_submit, idempotency_key_of, read_json, submit_of
from service.http.json_response import Answer, json_answer
from service.http.outcome import FIND_TIMEOUT, SUBMIT_TIMEOUT, inference_headers
from service.http.sse import event_stream

ACCEPTED: Final = 202
REPLAYED: Final = 200


class Links(msgspec.Struct, frozen=True, rename={"own": "self"}):
    """Where to go on: addresses relative to this host."""

    own: str
    events: str
    cancel: str
    socket: str = "/ws"


class Accepted(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The answer to a submission.

    Attributes:
        request_id: names the request from now on.
        assistant_status: how far it is.
        position: where a reader who wants all of it begins: the log's epoch, and the offset before the first entry.
        links: where to go on.
    """

    request_id: str
    assistant_status: Status
    position: Position
    links: Links


def add_routes(app: web.Application) -> None:
    """Offer the four addresses."""
    router = app.router
    router.add_post("/api/requests", submit)
    router.add_get("/api/requests/{id}", show)
    router.add_get("/api/requests/{id}/events", follow, allow_head=False)
    router.add_post("/api/requests/{id}/cancel", cancel)


async def submit(request: web.Request) -> Answer:
    """Take a request: 202, or 200 for one that its idempotency key names already."""
    call, container = call_of(request), container_of(request)
    key = idempotency_key_of(request.headers)
    body = decode_submit(await read_json(request, container.settings.max_body_bytes))
    message = submit_of(body, principal=call.principal, trace_id=call.trace_id, idempotency_key=key)
    submitted = await container.router.ask(message, timeout=SUBMIT_TIMEOUT)
    handle = submitted.handle
    call.name(handle.request_id)
    headers = inference_headers(call, handle, handle.upstream_time)
    address = f"/api/requests/{handle.request_id}"
    headers["Location"] = address
    if submitted.replayed:
        headers["Idempotent-Replayed"] = "true"
    accepted = Accepted(
        request_id=handle.request_id,
        assistant_status=handle.state().assistant_status,
        position=Position(handle.stream.epoch, 0),
        links=Links(own=address, events=f"{address}/events", cancel=f"{address}/cancel"),
    )
    return json_answer(accepted, status=REPLAYED if submitted.replayed else ACCEPTED, headers=headers)


async def show(request: web.Request) -> Answer:
    """Return what is known of a request."""
    handle = await _find(request)
    return json_answer(handle.state())


async def follow(request: web.Request) -> web.StreamResponse:
    """Stream a request's log from wherever the client wants to go on, or answer with what is new of it."""
    handle = await _find(request)
    return await (long_poll.news(request, handle) if long_poll.wanted(request) else event_stream(request, handle))


async def cancel(request: web.Request) -> Answer:
    """Cancel a request; one that has ended stays as it is."""
    message = CancelRequest(request.match_info["id"], call_of(request).tenant)
    handle = await container_of(request).router.ask(message, timeout=FIND_TIMEOUT)
    return json_answer(handle.state(), status=ACCEPTED)


async def _find(request: web.Request) -> RequestHandle:
    message = GetRequest(request.match_info["id"], call_of(request).tenant)
    return await container_of(request).router.ask(message, timeout=FIND_TIMEOUT)
