"""Request bodies: reading, strict decoding, and the conversion of a submission to the router's message."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import HttpVersion11, hdrs, web
from multidict import CIMultiDictProxy

from actors.large_inputs import LARGE, aside
from protocol.errors import FieldError, InvalidRequest, shortened
from protocol.identity import Principal
from protocol.json.hints import hint
from protocol.json.values import MAX_VALUES, has_more_values
from protocol.llm import ChatRequest
from protocol.requests import Delivery, Submit, SubmitBody
from service.auth.permissions import model_for
from service.context import call_of, container_of
from service.http.inflate import inflated, too_large, undecodable
from service.http.validation import NATIVE, check_request, raise_faults, submission_faults

BODY_TIMEOUT: Final = 30.0  # seconds in which a body has to arrive after its headers
MIN_RATE: Final = 64 * 1024  # bytes of a body that have to arrive in each further second
SMALL: Final = 16 * 1024  # bytes of a body up to which its share and its values are not counted
ENCODINGS: Final = {"": False, "identity": False, "gzip": True, "x-gzip": True}  # whether the body is inflated

_JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
_REASON = re.compile(r"^(?P<reason>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_FIELD = re.compile(r"(?:missing required|unknown) field `(?P<name>[^`]*)`")
_KEY = re.compile(r"[\x20-\x7e]{1,255}")

T = TypeVar("T")

_decoder: Final = msgspec.json.Decoder(SubmitBody)


async def read_json(request: web.Request, limit: int, parse: Callable[[bytes], T], *, values: int = MAX_VALUES) -> T:
    """Return what ``parse`` makes of a JSON request's body, inflated; it runs in a thread where the body is large.

    Never reads, and never inflates to, more than ``limit`` bytes, and parses no more than so many JSON ``values``.

    A body without a ``Content-Type`` counts as JSON, except with an ``Origin``: a web page can post to any address
    without a CORS preflight as long as it sets no type.

    Raises:
        InvalidRequest: ``unsupported_media_type``; ``body_too_large``; ``too_many_values``; ``body_timeout``;
            or ``invalid_request`` where the body can't be inflated; or what ``parse`` raises.
        Overloaded: too many bytes of bodies are at work.
    """
    _check_type(request)
    content, encoding = request.content, request.headers.get("Content-Encoding")
    try:
        if content.is_eof() and encoding is None:
            body = content.read_nowait()
            if len(body) > SMALL:
                _count(request, len(body))
        elif (request.content_length or 0) > limit:
            raise too_large(limit)
        else:
            if hdrs.EXPECT in request.headers:
                await _ask_for_body(request)
            async with asyncio.timeout(BODY_TIMEOUT) as deadline:
                body = await _read(request, limit, encoding, deadline)
    except TimeoutError:
        detail = f"the body did not arrive within {BODY_TIMEOUT:g} s, and at {MIN_RATE} bytes a second after that"
        raise InvalidRequest(detail, code="body_timeout") from None
    except web.RequestPayloadError:
        raise undecodable() from None
    if len(body) > limit:
        raise too_large(limit)
    if len(body) <= SMALL:
        return parse(body)
    if len(body) <= LARGE:
        return _bounded(parse, body, values)
    return await aside(partial(_bounded, parse, body, values))


def decode(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """Decode ``body``.

    Raises:
        InvalidRequest: ``malformed_json``; or ``invalid_request`` with the path of the wrong field in ``errors``.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        reason = str(error)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(body, error) from None
    try:
        msgspec.json.decode(body)
    except msgspec.ValidationError:
        pass  # valid JSON with a number out of range: the first reason says more
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(body, error) from None
    raise _invalid(reason, decoder.type)


def decode_submit(body: bytes) -> SubmitBody:
    """Decode the body of ``POST /api/requests``; raises as :func:`decode` does."""
    return decode(_decoder, body)


def submit_of(
    body: SubmitBody, *, principal: Principal, trace_id: str, idempotency_key: str = "", surface: str = "native"
) -> Submit:
    """Validate a decoded body and return it as the router's message, in the caller's name.

    Raises:
        InvalidRequest: ``invalid_request`` with the path of each invalid value; or ``invalid_schema``.
        AccessDenied: ``model_not_allowed``.
    """
    options = body.options
    request = ChatRequest(
        model=model_for(principal, body.model),
        messages=body.messages,
        schema=body.schema,
        tools=body.tools,
        tool_choice=body.tool_choice,
        temperature=options.temperature,
        top_p=options.top_p,
        max_tokens=options.max_tokens,
        seed=options.seed,
        stop=options.stop,
    )
    raise_faults(submission_faults(body))
    check_request(request, NATIVE)
    delivery = Delivery(
        timeout=options.timeout_ms / 1000,
        dedupe=options.dedupe,
        cache_ttl=options.cache_ttl_ms / 1000,
        ttl=None if options.ttl_ms is None else options.ttl_ms / 1000,
        on_abandon=options.on_abandon,
        on_attempt_failed=options.on_attempt_failed,
        repair=options.repair,
        partial=options.partial,
        prompt_version=options.prompt_version,
        session_id=body.session_id,
        metadata=body.metadata,
    )
    return Submit(
        request=request,
        tenant=principal.tenant,
        account=principal.account,
        credential=principal.credential,
        delivery=delivery,
        idempotency_key=idempotency_key,
        trace_id=trace_id,
        surface=surface,
    )


def idempotency_key_of(headers: CIMultiDictProxy[str]) -> str:
    """Return the ``Idempotency-Key``; empty for none.

    Raises:
        InvalidRequest: the header is sent twice, or is not 1 to 255 printable ASCII characters.
    """
    keys = headers.getall("Idempotency-Key", None)
    if keys is None:
        return ""
    if len(keys) > 1 or not _KEY.fullmatch(keys[0]):
        reason = "must be one value of 1 to 255 printable ASCII characters"
        raise InvalidRequest(f"`Idempotency-Key` {reason}", errors=(FieldError("Idempotency-Key", reason),))
    return keys[0]


def _check_type(request: web.Request) -> None:
    kind = request.headers.get("Content-Type")
    if kind == "application/json" or (kind is None and "Origin" not in request.headers):
        return
    if kind is None or not _JSON_TYPE.fullmatch(kind):
        sent = "no content type" if kind is None else repr(kind[:80])
        detail = f"send `Content-Type: application/json`, not {sent} (curl: `--json`, or `-H` with it)"
        raise InvalidRequest(detail, code="unsupported_media_type")


async def _ask_for_body(request: web.Request) -> None:
    """Tell a client that waits for it that its body is going to be read."""
    if request.version == HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the response itself has not begun


async def _read(request: web.Request, limit: int, encoding: str | None, deadline: asyncio.Timeout) -> bytes:
    if encoding is not None and encoding.strip().lower() not in ENCODINGS:
        detail = f"send the body as it is, or with `Content-Encoding: gzip`, not {encoding[:40]!r}"
        raise InvalidRequest(detail, code="unsupported_media_type")
    if ENCODINGS.get((encoding or "identity").strip().lower()):
        return await inflated(_chunks(request, limit, deadline), limit, partial(_count, request))
    return b"".join([chunk async for chunk in _chunks(request, limit, deadline)])


async def _chunks(request: web.Request, limit: int, deadline: asyncio.Timeout) -> AsyncIterator[bytes]:
    """Yield the body as it comes, and count its bytes: those that are declared at once, others as they come."""
    content, size, counted = request.content, 0, request.content_length or 0
    began = asyncio.get_running_loop().time()
    if counted > SMALL:
        _count(request, counted)
    while not content.at_eof():
        chunk = await content.readany()
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        deadline.reschedule(began + BODY_TIMEOUT + size / MIN_RATE)
        if size > max(counted, SMALL):
            _count(request, len(chunk))
        yield chunk


def _count(request: web.Request, size: int) -> None:
    container_of(request).bodies.take(call_of(request), size)


def _bounded(parse: Callable[[bytes], T], body: bytes, values: int) -> T:
    if has_more_values(body, values):
        detail = f"the body has more than {values} JSON values"
        raise InvalidRequest(detail, code="too_many_values")
    return parse(body)


def _malformed(body: bytes, error: Exception) -> InvalidRequest:
    if not body:
        detail = "the body is empty"
    elif isinstance(error, msgspec.DecodeError):
        detail = str(error)
    else:
        detail = "the body is not UTF-8" if isinstance(error, UnicodeDecodeError) else "the body is nested too deeply"
    return InvalidRequest(detail, code="malformed_json")


def _invalid(message: str, kind: Any) -> InvalidRequest:  # noqa: ANN401 - any type that msgspec decodes
    message = shortened(message)
    found = _REASON.match(message)
    reason, path = (found["reason"], found["path"] or "$") if found else (message, "$")
    more = hint(reason, path, kind)
    named = _FIELD.search(reason)
    if named:
        path = f"{path}.{named['name']}"
    reason += more
    return InvalidRequest(
        f"{reason} (at `{path}`)" if more else f"{reason}, at `{path}`", errors=(FieldError(path, reason),)
    )
