"""``/api/requests``: submit a request, get its state, follow it, cancel it, delete it."""

from typing import Final

import msgspec
from aiohttp import web

from protocol.events import Position
from protocol.pass_fields import warning_of
from protocol.requests import (
    CancelRequest,
    DeleteRequest,
    GetRequest,
    RequestHandle,
    RequestState,
    Status,
    Submit,
    SubmitBody,
)
from service.context import call_of, container_of
from service.http import long_poll
from service.http.bodies import decode_submit, idempotency_key_of, read_json, submit_of
from service.http.dialects import WARNING
from service.http.json_response import JsonResponse, json_response
from service.http.operations import (
    ASKS,
    EVENTS,
    IDEMPOTENCY_KEY,
    INFERENCE,
    INFERS,
    REQUESTS,
    Answer,
    Body,
    Operation,
    Parameter,
    add_operations,
    path_name,
)
from service.http.outcome import FIND_TIMEOUT, inference_headers
from service.http.sse import event_stream
from service.http.submitting import submit as submit_limited

ACCEPTED: Final = 202
REPLAYED: Final = 200
DELETED: Final = 204
FIND: Final = (*ASKS, "request_not_found")
REQUEST_ID: Final = path_name("id", "The request's id.", example="req_01K9Z0V9Q6C5W3T2M1N0PABCDE")
POSITION: Final = r"^[^\n]+:[0-9]{1,15}$"

EVENT: Final = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "pattern": POSITION},
        "event": {"type": "string", "enum": ["update", "complete", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}


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
    add_operations(app, submit, show, follow, cancel, delete)


@Operation(
    "POST",
    "/api/requests",
    name="submitRequest",
    tag=REQUESTS,
    summary="Submit a request; it outlives the connection.",
    text="The answer comes at once, with the path of the events. Identical requests share one call to the provider "
    "unless `dedupe` is false.",
    parameters=(IDEMPOTENCY_KEY,),
    body=Body(
        SubmitBody,
        {"messages": [{"role": "user", "content": "Why is the sea salty?"}], "options": {"maxTokens": 200}},
    ),
    answers=(
        Answer(202, "The request runs.", Accepted, headers=("Location", *INFERENCE)),
        Answer(
            200,
            "The idempotency key belongs to this earlier request.",
            Accepted,
            headers=("Location", "Idempotent-Replayed", *INFERENCE),
        ),
    ),
    errors=INFERS,
)
async def submit(request: web.Request) -> JsonResponse:
    """Submit a request: 202, or 200 where the idempotency key belongs to an earlier one."""
    call, container = call_of(request), container_of(request)
    key = idempotency_key_of(request.headers)

    def parse(body: bytes) -> Submit:
        submission = decode_submit(body)
        return submit_of(submission, principal=call.principal, trace_id=call.trace_id, idempotency_key=key)

    message = await read_json(request, container.settings.max_body_bytes, parse)
    message, left_out = container.passing.submit(call.principal, message)
    submitted = await submit_limited(container, call.principal, message, path="/api/requests", call=call)
    handle = submitted.handle
    call.name(handle.request_id)
    headers = inference_headers(call, handle, handle.upstream_time)
    address = f"/api/requests/{handle.request_id}"
    headers["Location"] = address
    if left_out:
        headers[WARNING] = warning_of(left_out)
    if submitted.replayed:
        headers["Idempotent-Replayed"] = "true"
    accepted = Accepted(
        request_id=handle.request_id,
        assistant_status=handle.state().assistant_status,
        position=Position(handle.stream.epoch, 0),
        links=Links(own=address, events=f"{address}/events", cancel=f"{address}/cancel"),
    )
    return json_response(accepted, status=REPLAYED if submitted.replayed else ACCEPTED, headers=headers)


@Operation(
    "GET",
    "/api/requests/{id}",
    name="getRequest",
    tag=REQUESTS,
    summary="Get the state of a request.",
    parameters=(REQUEST_ID,),
    answers=(Answer(200, "Its state.", RequestState),),
    errors=FIND,
)
async def show(request: web.Request) -> JsonResponse:
    """Return the state of a request."""
    handle = await _find(request)
    return json_response(handle.state())


@Operation(
    "GET",
    "/api/requests/{id}/events",
    name="followRequest",
    tag=REQUESTS,
    summary="Follow a request as server-sent events, or by long polling.",
    text="Each event has its position as `id`, `update`, `complete` or `error` as `event`, and the same JSON as "
    "on the socket as `data`. The stream goes on until the request ends, with a comment every 15 s. A client that "
    "accepts only `application/json` gets the new events as one JSON object instead.",
    parameters=(
        REQUEST_ID,
        Parameter(
            name="after",
            place="query",
            text="The position after which to begin, as an event's `id` says it.",
            schema={"type": "string", "pattern": POSITION},
        ),
        Parameter(
            name="mode",
            place="query",
            text="`replay`: each event; `snapshot`: all content so far as one event, then new ones; `live`: new ones.",
            schema={"type": "string", "enum": ["replay", "snapshot", "live"]},
        ),
        Parameter(
            name="wait",
            place="query",
            text="Of a long poll: the seconds to wait for an event; at most 55 are waited.",
            schema={"type": "integer", "minimum": 0, "maximum": 9999, "default": 0},
        ),
        Parameter(
            name="Last-Event-ID",
            place="header",
            text="As `after`, from an automatic reconnect: a position of another epoch gets a snapshot.",
            schema={"type": "string", "pattern": POSITION},
        ),
    ),
    answers=(
        Answer(200, "The events.", media=EVENTS, headers=("x-tidegate-source",), event=EVENT),
        Answer(200, "Those of a long poll.", long_poll.NewEvents, headers=("x-tidegate-source",)),
        Answer(204, "The client has the end already: it need not reconnect."),
    ),
    errors=(*FIND, "invalid_position", "unrecoverable_position"),
)
async def follow(request: web.Request) -> web.StreamResponse:
    """Stream a request's log from the client's position, or respond to a long poll."""
    handle = await _find(request)
    if long_poll.accepts_json(request):
        return await long_poll.respond_new_events(request, handle)
    return await event_stream(request, handle)


@Operation(
    "POST",
    "/api/requests/{id}/cancel",
    name="cancelRequest",
    tag=REQUESTS,
    summary="Cancel a request.",
    text="Idempotent: a request that has ended stays as it is.",
    parameters=(REQUEST_ID,),
    answers=(Answer(202, "Its state.", RequestState),),
    errors=FIND,
)
async def cancel(request: web.Request) -> JsonResponse:
    """Cancel a request; one that has ended is not changed."""
    message = CancelRequest(request.match_info["id"], call_of(request).tenant)
    handle = await container_of(request).router.ask(message, timeout=FIND_TIMEOUT)
    return json_response(handle.state(), status=ACCEPTED)


@Operation(
    "DELETE",
    "/api/requests/{id}",
    name="deleteRequest",
    tag=REQUESTS,
    summary="Cancel a request and forget it.",
    text="Its state, its log, its idempotency key and what the cache holds of its answer are gone.",
    parameters=(REQUEST_ID,),
    answers=(Answer(204, "It is forgotten."),),
    errors=FIND,
)
async def delete(request: web.Request) -> web.Response:
    """Cancel a request and forget it; one that is not there any more is 404, as if it had never been."""
    message = DeleteRequest(request.match_info["id"], call_of(request).tenant)
    await container_of(request).router.ask(message, timeout=FIND_TIMEOUT)
    return web.Response(status=DELETED)


async def _find(request: web.Request) -> RequestHandle:
    message = GetRequest(request.match_info["id"], call_of(request).tenant)
    return await container_of(request).router.ask(message, timeout=FIND_TIMEOUT)
