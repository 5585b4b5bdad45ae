"""``/v1/responses``: OpenAI's Responses API; a response is a request that can be retrieved, resumed and cancelled."""

import asyncio
import re
from functools import partial
from typing import Final

import msgspec
from aiohttp import web

from actors.log.follow import Follower
from protocol.errors import FieldError, InvalidRequest, NotFound, UnrecoverablePosition
from protocol.llm import ChatRequest
from protocol.openai.responses import ID_PREFIX, ResponseBody, ResponseCall, parse_response, request_id_of
from protocol.openai.responses_answer import answered_body, history_of, response_body
from protocol.openai.responses_events import NO_EVENT, ResponseEventEncoder
from protocol.requests import CancelRequest, GetRequest, RequestHandle
from service.context import call_of, container_of
from service.http import sse
from service.http.bodies import read_json
from service.http.dialects import encoded, respond_json, respond_sse, send_denial, submit_completion
from service.http.json_response import JsonResponse
from service.http.openai_answers import ResponseAnswer
from service.http.operations import (
    ANSWERS,
    ASKS,
    CHAT_HEADERS,
    EVENTS,
    INFERENCE,
    INFERS,
    OPENAI,
    Answer,
    Body,
    Operation,
    Parameter,
    add_operations,
    path_name,
)
from service.http.outcome import FIND_TIMEOUT, inference_headers, mark_cut_off
from service.http.validation import RESPONSES, check_request, metadata_faults, raise_faults

RESPONSE_ID: Final = path_name(
    "id", "The response's id, or a request's.", example="resp_req_01K9Z0V9Q6C5W3T2M1N0PABCDE"
)

_NUMBER = re.compile(r"[0-9]{1,15}")
_FLAGS: Final = {"": False, "false": False, "true": True}

_encode: Final = msgspec.json.Encoder().encode


def add_routes(app: web.Application) -> None:
    """Add the three routes."""
    add_operations(app, create, retrieve, cancel)


@Operation(
    "POST",
    "/v1/responses",
    name="createResponse",
    tag=OPENAI,
    summary="Create a response: whole, streamed, or in the background.",
    text="With `stream` each event is a server-sent event with its number. A response in the background is retrieved, "
    "or its events are followed, later.",
    parameters=CHAT_HEADERS,
    body=Body(ResponseBody, {"model": "default", "input": "Why is the sea salty?"}, "Response"),
    answers=(Answer(200, "The response.", ResponseAnswer, media=EVENTS, headers=(*INFERENCE, "Idempotent-Replayed")),),
    errors=(*INFERS, *ANSWERS, "request_not_found"),
)
async def create(request: web.Request) -> web.StreamResponse:
    """Create a response: as JSON, as a stream, or in the background, to be retrieved later."""
    limit = container_of(request).settings.max_body_bytes
    call = await read_json(request, limit, _parse)
    chat = await _continued(request, call, limit) if call.previous else call.request
    submission = await submit_completion(request, chat, surface="responses", metadata=call.metadata, echo=call.echo)
    handle = submission.handle
    if call.stream:
        return await respond_sse(submission, ResponseEventEncoder(handle, held=not call.background))
    if call.background:
        return _json(handle, inference_headers(submission.call, handle, handle.upstream_time) | submission.headers)
    return await respond_json(submission, partial(answered_body, handle))


@Operation(
    "GET",
    "/v1/responses/{id}",
    name="getResponse",
    tag=OPENAI,
    summary="Get a response in its current state, or its events.",
    parameters=(
        RESPONSE_ID,
        Parameter(
            name="stream",
            place="query",
            text="Whether to stream the events, to the end.",
            schema={"type": "boolean", "default": False},
        ),
        Parameter(
            name="starting_after",
            place="query",
            text="With `stream`: the `sequence_number` of the last event that the client has.",
            schema={"type": "integer", "minimum": 0, "maximum": 999_999_999_999_999},
        ),
    ),
    answers=(
        Answer(200, "The response.", ResponseAnswer, media=EVENTS, headers=("x-tidegate-source",)),
        Answer(204, "The client has the last event already."),
    ),
    errors=(*ASKS, "invalid_request", "request_not_found", "unrecoverable_position"),
)
async def retrieve(request: web.Request) -> web.StreamResponse:
    """Return a response in its current state, or with ``stream=true`` its events after ``starting_after``."""
    streamed, after = _opening(request)
    handle = await _find(request, request.match_info["id"])
    if not streamed:
        return _json(handle, {"Cache-Control": "no-store", "x-tidegate-source": handle.source})
    return await _resume(request, handle, after)


@Operation(
    "POST",
    "/v1/responses/{id}/cancel",
    name="cancelResponse",
    tag=OPENAI,
    summary="Cancel a response.",
    text="Idempotent: a response that has ended stays as it is.",
    parameters=(RESPONSE_ID,),
    answers=(Answer(200, "The response.", ResponseAnswer),),
    errors=(*ASKS, "request_not_found"),
)
async def cancel(request: web.Request) -> web.StreamResponse:
    """Cancel a response; one that has ended stays as it is."""
    handle = await _find(request, request.match_info["id"])
    message = CancelRequest(handle.request_id, call_of(request).tenant)
    return _json(await container_of(request).router.ask(message, timeout=FIND_TIMEOUT), {"Cache-Control": "no-store"})


def _parse(body: bytes) -> ResponseCall:
    call = parse_response(body)
    check_request(call.request, RESPONSES)
    raise_faults(metadata_faults(call.metadata))
    return call


async def _continued(request: web.Request, call: ResponseCall, limit: int) -> ChatRequest:
    """Return the request with the previous conversation before it; no larger than ``limit`` bytes.

    Raises:
        NotFound: the previous response is not kept any more.
        InvalidRequest: it has no answer; or ``body_too_large``.
    """
    try:
        handle = await _find(request, call.previous)
    except NotFound as error:
        raise NotFound(error.detail, code=error.code, errors=(FieldError("$.previous_response_id", ""),)) from error
    chat = call.after(history_of(handle))
    if len(_encode(chat.messages)) > limit:
        raise InvalidRequest(f"the conversation is larger than {limit} bytes", code="body_too_large")
    return chat


async def _resume(request: web.Request, handle: RequestHandle, after: int) -> web.StreamResponse:
    """Stream the events after ``after`` to the end; 204 where the client has the end already.

    Raises:
        InvalidRequest: the answer may restart, which this dialect can't express.
        UnrecoverablePosition: ``after`` is in the future.
    """
    delivery = handle.delivery
    if delivery.on_attempt_failed == "restart" or (delivery.repair and handle.request.schema is not None):
        raise InvalidRequest(f"this answer may begin anew: follow it at /api/requests/{handle.request_id}/events")
    log = handle.stream
    encoder = ResponseEventEncoder(handle, after=after)
    cursor, data = 0, b""
    while cursor < log.offset and not data:  # page by page through what the client has
        entries = log.since(cursor)
        cursor, data = entries[-1].offset, encoder.encode(entries)
        await asyncio.sleep(0)
    if after >= encoder.sequence:
        raise UnrecoverablePosition(f"event {after} is beyond the last, {encoder.sequence - 1}")
    ended = log.ended and cursor == log.offset
    if ended and not data:
        return web.Response(status=sse.NOTHING_MORE)
    response, call = sse.EventResponse({"x-tidegate-source": handle.source}), call_of(request)
    async with Follower(log, after=cursor, idle=sse.PING_INTERVAL) as follower:
        call.stop = sse.stopper(request, follower)
        await response.prepare(request)
        await response.send(request, data or sse.PING, last=ended)
        if ended:
            return response
        while (batch := await follower.next()) is not None:
            data, last = encoded(encoder, batch) if batch else (sse.PING, False)
            await response.send(request, data, last=last)
            if last:
                mark_cut_off(call, batch)
                break
    await send_denial(request, response, encoder)
    return response


async def _find(request: web.Request, response_id: str) -> RequestHandle:
    """Return a request of this tenant, from whichever surface, as a response.

    Raises:
        NotFound: there is none, or it was submitted with ``store: false``.
    """
    message = GetRequest(request_id_of(response_id), call_of(request).tenant)
    try:
        handle = await container_of(request).router.ask(message, timeout=FIND_TIMEOUT)
    except NotFound as error:
        raise _absent(response_id) from error
    if handle.delivery.echo.get("store") is False:
        raise _absent(response_id)
    return handle


def _absent(response_id: str) -> NotFound:
    named = ID_PREFIX + request_id_of(response_id)[:64]
    return NotFound(f"there is no response {named!r}", code="request_not_found")


def _opening(request: web.Request) -> tuple[bool, int]:
    """Return whether a stream is requested, and the number of the last event that the client has."""
    query = request.query
    streamed = _FLAGS.get(query.get("stream", ""))
    if streamed is None:
        raise _misspelt("stream", "must be `true` or `false`", query["stream"])
    after = query.get("starting_after")
    if after is None:
        return streamed, NO_EVENT
    if not streamed or not _NUMBER.fullmatch(after):
        raise _misspelt("starting_after", "must be an event's `sequence_number`, with `stream=true`", after)
    return True, int(after)


def _misspelt(name: str, reason: str, value: str) -> InvalidRequest:
    return InvalidRequest(f"`{name}` {reason}, got {value[:40]!r}", errors=(FieldError(name, reason),))


def _json(handle: RequestHandle, headers: dict[str, str]) -> JsonResponse:
    return JsonResponse(response_body(handle), headers=headers)
