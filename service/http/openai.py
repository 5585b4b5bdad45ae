"""``POST /v1/chat/completions``: OpenAI's dialect over the same requests and logs as everything else."""

import time
from typing import Final, TypeVar

from aiohttp import web
from multidict import CIMultiDictProxy

from actors.follow import Batch, Follower
from protocol.errors import FieldError, InternalError, InvalidRequest, TidegateError
from protocol.events import Cancelled, Completed, Delta, Entry, Failed, Snapshot, ToolCallDelta
from protocol.llm import ChatRequest
from protocol.openai import ChatCall, ChunkEncoder, completion_body, parse_chat
from protocol.requests import DEFAULT_CACHE_TTL_MS, Delivery, OnAbandon, RequestHandle, Submit
from service.context import Call, call_of, container_of
from service.http import sse
from service.http.bodies import idempotency_key_of, read_json
from service.http.inference import SUBMIT_TIMEOUT, end_of, error_of, inference_headers
from service.http.rules import OPENAI, check_request
from service.middleware.errors import error_response

DEDUPE: Final[dict[str, bool]] = {"on": True, "off": False}
ON_ABANDON: Final[dict[str, OnAbandon]] = {"finish": "finish", "cancel": "cancel"}
SLOW_CONSUMER: Final = Failed(code="slow_consumer", message="the client read too slowly", temporary=True)

_CONTENT: Final = (Delta, ToolCallDelta)

T = TypeVar("T")


def add_routes(app: web.Application) -> None:
    """Offer the address."""
    app.router.add_post("/v1/chat/completions", chat_completions)


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Complete a chat, whole or as a stream.

    A client that leaves only stops following; ``x-tidegate-on-abandon: cancel`` asks for more. Identical calls share
    one answer where ``temperature`` is 0 or there is a ``seed``, unless ``x-tidegate-dedupe`` says otherwise.
    """
    call, container = call_of(request), container_of(request)
    chat = parse_chat(await read_json(request, container.settings.max_body_bytes))
    check_request(chat.request, OPENAI)
    headers = request.headers
    message = Submit(
        request=chat.request,
        tenant=call.tenant,
        delivery=_delivery(headers, chat.request),
        idempotency_key=idempotency_key_of(headers),
        trace_id=call.trace_id,
    )
    submitted = await container.router.ask(message, timeout=SUBMIT_TIMEOUT)
    handle = submitted.handle
    call.name(handle.request_id)
    extra = {"Idempotent-Replayed": "true"} if submitted.replayed else {}
    answer = _stream if chat.stream else _whole
    return await answer(request, call, chat, handle, extra)


async def _whole(
    request: web.Request, call: Call, chat: ChatCall, handle: RequestHandle, extra: dict[str, str]
) -> web.StreamResponse:
    began = time.perf_counter()
    created = int(time.time())
    event = await end_of(handle.stream)
    headers = inference_headers(call, handle, _waited(began, handle.upstream_time)) | extra
    if not isinstance(event, Completed):
        return _failure(request, call, error_of(event), headers)
    structured = chat.request.schema is not None
    body = completion_body(handle.request_id, created, chat.request.model, event, structured=structured)
    return web.Response(body=body, headers=headers, content_type="application/json")


async def _stream(
    request: web.Request, call: Call, chat: ChatCall, handle: RequestHandle, extra: dict[str, str]
) -> web.StreamResponse:
    """Hold the headers until there is content, so that a failure before it is an HTTP error; but not for ever."""
    began = time.perf_counter()
    encoder = ChunkEncoder(handle.request_id, int(time.time()), chat.request.model, chat.include_usage)
    response: sse.EventResponse | None = None
    async with Follower(handle.stream, idle=sse.PING_INTERVAL) as follower:
        while (batch := await follower.next()) is not None:
            failure = _failure_without_content(batch) if response is None else None
            if failure is not None:
                headers = inference_headers(call, handle, _waited(began, handle.upstream_time))
                return _failure(request, call, failure, headers | extra)
            data, last = _chunks(encoder, batch, begun=response is not None)
            if not data:
                continue
            if response is None:
                headers = inference_headers(call, handle, _waited(began, handle.upstream_wait))
                response = sse.EventResponse(headers | extra)
                await response.prepare(request)
            await response.send(request, data, last=last)
            if last:
                return response
    raise InternalError("a log ended without a terminal entry")


def _waited(began: float, upstream: float) -> float:
    """Return how many seconds since ``began`` were not ours; of another's call, or one without news, that is all."""
    return upstream or time.perf_counter() - began


def _chunks(encoder: ChunkEncoder, batch: Batch, *, begun: bool) -> tuple[bytes, bool]:
    """Return what to write for ``batch``, and whether it is the end."""
    if isinstance(batch, Snapshot):
        if not begun:
            return encoder.snapshot(batch), False
        return encoder.encode([Entry(batch.offset, SLOW_CONSUMER)]), True
    if not batch:
        return sse.PING, False
    return encoder.encode(batch), batch[-1].terminal


def _failure_without_content(batch: Batch) -> TidegateError | None:
    if isinstance(batch, Snapshot) or not batch or not batch[-1].terminal:
        return None
    event = batch[-1].event
    if not isinstance(event, Failed | Cancelled) or any(isinstance(entry.event, _CONTENT) for entry in batch):
        return None
    return error_of(event)


def _failure(request: web.Request, call: Call, error: TidegateError, headers: dict[str, str]) -> web.Response:
    call.failure = error.code
    response = error_response(request, call, error, error)
    response.headers.update(headers)
    return response


def _delivery(headers: CIMultiDictProxy[str], request: ChatRequest) -> Delivery:
    shared = _choice(headers, "x-tidegate-dedupe", DEDUPE)
    if shared is None:
        shared = request.temperature == 0 or request.seed is not None
    return Delivery(
        dedupe=shared,
        cache_ttl=DEFAULT_CACHE_TTL_MS / 1000 if shared else 0.0,
        on_abandon=_choice(headers, "x-tidegate-on-abandon", ON_ABANDON) or "finish",
    )


def _choice(headers: CIMultiDictProxy[str], name: str, choices: dict[str, T]) -> T | None:
    value = headers.get(name)
    if value is None:
        return None
    chosen = choices.get(value.strip().lower())
    if chosen is None:
        reason = "must be " + " or ".join(f"`{choice}`" for choice in choices)
        raise InvalidRequest(f"`{name}` {reason}, got {value[:40]!r}", errors=(FieldError(name, reason),))
    return chosen
