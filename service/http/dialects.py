"""The common part of the vendors' chat endpoints: submit a completion, respond with JSON or with SSE.

Each dialect supplies the canonical request, the body of a JSON response, and the encoder of a stream.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import msgspec
from aiohttp import web
from multidict import CIMultiDictProxy

from actors.log.follow import Batch, Follower
from protocol.errors import FieldError, InternalError, InvalidRequest, TidegateError
from protocol.events import Cancelled, Completed, Entry, Failed, Snapshot
from protocol.llm import ChatRequest
from protocol.parts import Piece
from protocol.pass_fields import warning_of
from protocol.requests import DEFAULT_CACHE_TTL_MS, Delivery, OnAbandon, RequestHandle, Submit
from service.auth.permissions import model_for
from service.context import CallContext, call_of, container_of
from service.http import sse
from service.http.bodies import idempotency_key_of
from service.http.json_response import JsonResponse
from service.http.outcome import SUBMIT_TIMEOUT, error_from, inference_headers, mark_cut_off, wait_for_end
from service.http.submitting import give_back, take_request
from service.middleware.errors import error_response

WARNING: Final = "x-tidegate-warning"
DEDUPE: Final[dict[str, bool]] = {"on": True, "off": False}
ON_ABANDON: Final[dict[str, OnAbandon]] = {"finish": "finish", "cancel": "cancel"}

T = TypeVar("T")


class StreamEncoder(Protocol):
    """Encodes one client's stream in its dialect, as SSE bytes."""

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """Return the bytes of ``entries``; empty where this dialect shows none of them."""

    def denial(self, error: TidegateError) -> bytes:
        """Return the bytes that end the stream of a client whose rights are gone; the log goes on."""


class Submission:
    """An HTTP call of a vendor's dialect whose completion has been submitted.

    Attributes:
        request: the HTTP request.
        call: the context of the HTTP call.
        handle: the submitted request.
        headers: headers of the response besides those of every inference.
    """

    __slots__ = ("call", "handle", "headers", "request")

    def __init__(self, request: web.Request, call: CallContext, handle: RequestHandle, headers: dict[str, str]) -> None:
        self.request = request
        self.call = call
        self.handle = handle
        self.headers = headers


async def submit_completion(
    request: web.Request,
    chat: ChatRequest,
    *,
    surface: str,
    metadata: dict[str, str] | None = None,
    echo: dict[str, Any] | None = None,
) -> Submission:
    """Submit ``chat``, which has been validated, in the name of the caller.

    Identical calls share one answer where ``temperature`` is 0 or there is a ``seed``, unless ``x-tidegate-dedupe`` is
    ``off``. A client that disconnects only stops following; with ``x-tidegate-on-abandon: cancel`` it cancels, too.

    Args:
        request: the HTTP request.
        chat: the canonical request.
        surface: the name of the dialect's addresses, for the log.
        metadata: the caller's own key-value pairs, kept with the request.
        echo: fields of the call that a later response repeats.

    Raises:
        InvalidRequest: a header has an unknown value.
        AccessDenied: ``model_not_allowed``.
        TidegateError: as ``Submit`` says.
    """
    call, headers = call_of(request), request.headers
    container, principal, delivery = container_of(request), call.principal, _delivery(headers, chat, metadata, echo)
    model = model_for(principal, chat.model)
    call.needs = partial(model_for, model=chat.model)
    chat = chat if model == chat.model else msgspec.structs.replace(chat, model=model)
    chat, left_out = container.passing.request(principal, chat)
    key = idempotency_key_of(headers)
    hold = None
    if principal.plan is not None:  # each of these routes is one path
        hold = await take_request(container, principal, chat, delivery, path=request.path, call=call)
    message = Submit(
        request=chat,
        tenant=call.tenant,
        account=principal.account,
        credential=principal.credential,
        delivery=delivery,
        idempotency_key=key,
        trace_id=call.trace_id,
        hold=hold,
        surface=surface,
    )
    try:
        submitted = await container.router.ask(message, timeout=SUBMIT_TIMEOUT)
    except BaseException as error:
        give_back(hold, error)
        raise
    handle = submitted.handle
    call.name(handle.request_id)
    call.outcome_logged = not submitted.replayed and call.request_id == handle.request_id
    answered = {"Idempotent-Replayed": "true"} if submitted.replayed else {}
    if left_out:
        answered[WARNING] = warning_of(left_out)
    return Submission(request, call, handle, answered)


async def respond_json(submission: Submission, body: Callable[[Completed], bytes]) -> web.StreamResponse:
    """Wait for the end, and respond with the JSON that ``body`` returns for it."""
    began = time.perf_counter()
    event = await wait_for_end(submission.handle.stream)
    headers = _headers(submission, began, submission.handle.upstream_time)
    if not isinstance(event, Completed):
        return _failure(submission, error_from(event), headers)
    return JsonResponse(body(event), headers=headers)


async def respond_sse(submission: Submission, encoder: StreamEncoder, *, ping: bytes = sse.PING) -> web.StreamResponse:
    """Stream the answer. Headers are held until the first data, so that a failure before it is an HTTP error.

    Without any data for ``PING_INTERVAL`` seconds, the headers are sent with a ping.
    """
    began = time.perf_counter()
    handle, request, call = submission.handle, submission.request, submission.call
    response: sse.EventResponse | None = None
    async with Follower(handle.stream, idle=sse.PING_INTERVAL) as follower:
        call.stop = sse.stopper(request, follower)
        while (batch := await follower.next()) is not None:
            failure = failure_without_content(batch) if response is None else None
            if failure is not None:
                return _failure(submission, failure, _headers(submission, began, handle.upstream_time))
            data, last = encoded(encoder, batch) if batch else (ping, False)
            if not data:
                continue
            if response is None:
                response = sse.EventResponse(_headers(submission, began, handle.upstream_wait))
                await response.prepare(request)
            await response.send(request, data, last=last)
            if last:
                mark_cut_off(call, batch)
                return response
    if call.denied is None:
        raise InternalError("a log ended without a terminal entry")
    if response is None:
        return _failure(submission, call.denied, _headers(submission, began, handle.upstream_wait))
    await send_denial(request, response, encoder)
    return response


async def send_denial(request: web.Request, response: sse.EventResponse, encoder: StreamEncoder) -> None:
    """End a stream with the reason for which the call is denied."""
    call = call_of(request)
    if call.denied is not None:
        call.failure = call.denied.code
        await response.send(request, encoder.denial(call.denied), last=True)


def encoded(encoder: StreamEncoder, batch: Batch) -> tuple[bytes, bool]:
    """Return the bytes to write for ``batch``, and whether it is the end.

    Raises:
        InternalError: it is a snapshot, which no dialect can send; only a follower that begins with one returns one.
    """
    if isinstance(batch, Snapshot):
        raise InternalError("a snapshot came from a follower that begins with entries")
    return encoder.encode(batch), batch[-1].terminal


def failure_without_content(batch: Batch) -> TidegateError | None:
    """Return the failure that ``batch`` ends with, where it has no content before it."""
    if isinstance(batch, Snapshot) or not batch or not batch[-1].terminal:
        return None
    event = batch[-1].event
    if not isinstance(event, Failed | Cancelled) or any(isinstance(entry.event, Piece) for entry in batch):
        return None
    return error_from(event)


def _headers(submission: Submission, began: float, upstream: float) -> dict[str, str]:
    """Return the headers of a response. Without an upstream time of its own, all time since ``began`` was waiting."""
    waited = upstream or time.perf_counter() - began
    return inference_headers(submission.call, submission.handle, waited) | submission.headers


def _failure(submission: Submission, error: TidegateError, headers: dict[str, str]) -> web.Response:
    submission.call.failure = error.code
    response = error_response(submission.request, submission.call, error, error)
    response.headers.update(headers)
    return response


def _delivery(
    headers: CIMultiDictProxy[str],
    request: ChatRequest,
    metadata: dict[str, str] | None,
    echo: dict[str, Any] | None,
) -> Delivery:
    shared = _choice(headers, "x-tidegate-dedupe", DEDUPE)
    if shared is None:
        shared = request.temperature == 0 or request.seed is not None
    return Delivery(
        dedupe=shared,
        cache_ttl=DEFAULT_CACHE_TTL_MS / 1000 if shared else 0.0,
        on_abandon=_choice(headers, "x-tidegate-on-abandon", ON_ABANDON) or "finish",
        metadata=metadata or {},
        echo=echo or {},
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
