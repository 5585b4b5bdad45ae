"""``/api/requests``: submit a request, get its state, follow it, cancel it, delete it."""

from typing import Final

import msgspec
from aiohttp import web

from protocol.events import Position
from protocol.requests import CancelRequest, DeleteRequest, GetRequest, RequestHandle, Status
from service.context import call_of, container_of
from service.http import long_poll
from service.http.bodies import decode_submit, idempotency_key_of, read_json, submit_of
from service.http.json_response import JsonResponse, json_response
from service.http.outcome import FIND_TIMEOUT, SUBMIT_TIMEOUT, inference_headers
from service.http.sse import event_stream

ACCEPTED: Final = 202
REPLAYED: Final = 200
DELETED: Final = 204


class Links(msgspec.Struct, frozen=True, rename={"own": "self"}):
    """Paths for what a client does next."""

    own: str
    events: str
    cancel: str
    socket: str = "/ws"


class Accepted(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The answer to a submission.

    Attributes:
        request_id: the request's id.
        assistant_status: the request's status.
        position: the position before the log's first entry: a client that follows from here gets all of it.
        links: paths for what a client does next.
    """

    request_id: str
    assistant_status: Status
    position: Position
    links: Links


def add_routes(app: web.Application) -> None:
    """Add the five routes."""
    router = app.router
    router.add_post("/api/requests", submit)
    router.add_get("/api/requests/{id}", show)
    router.add_get("/api/requests/{id}/events", follow, allow_head=False)
    router.add_post("/api/requests/{id}/cancel", cancel)
    router.add_delete("/api/requests/{id}", delete)


async def submit(request: web.Request) -> JsonResponse:
    """Submit a request: 202, or 200 where the idempotency key belongs to an earlier one."""
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
    return json_response(accepted, status=REPLAYED if submitted.replayed else ACCEPTED, headers=headers)


async def show(request: web.Request) -> JsonResponse:
    """Return the state of a request."""
    handle = await _find(request)
    return json_response(handle.state())


async def follow(request: web.Request) -> web.StreamResponse:
    """Stream a request's log from the client's position, or respond to a long poll."""
    handle = await _find(request)
    if long_poll.accepts_json(request):
        return await long_poll.respond_new_events(request, handle)
    return await event_stream(request, handle)


async def cancel(request: web.Request) -> JsonResponse:
    """Cancel a request; one that has ended is not changed."""
    message = CancelRequest(request.match_info["id"], call_of(request).tenant)
    handle = await container_of(request).router.ask(message, timeout=FIND_TIMEOUT)
    return json_response(handle.state(), status=ACCEPTED)


async def delete(request: web.Request) -> web.Response:
    """Cancel a request and forget it; one that is not there any more is 404, as if it had never been."""
    message = DeleteRequest(request.match_info["id"], call_of(request).tenant)
    await container_of(request).router.ask(message, timeout=FIND_TIMEOUT)
    return web.Response(status=DELETED)


async def _find(request: web.Request) -> RequestHandle:
    message = GetRequest(request.match_info["id"], call_of(request).tenant)
    return await container_of(request).router.ask(message, timeout=FIND_TIMEOUT)
