"""Request bodies: reading, strict decoding, and the conversion of a submission to the router's message."""

import asyncio
import re
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web
from multidict import CIMultiDictProxy

from protocol.errors import FieldError, InvalidRequest
from protocol.identity import Principal
from protocol.json.hints import hint
from protocol.llm import ChatRequest
from protocol.requests import Delivery, Submit, SubmitBody
from service.auth.permissions import model_for
from service.http.validation import NATIVE, check_request, raise_faults, submission_faults

BODY_TIMEOUT: Final = 30.0  # seconds in which a body has to arrive after its headers

_JSON_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json\s*(?:;.*)?", re.IGNORECASE)
_REASON = re.compile(r"^(?P<reason>.*?)(?: - at `(?P<path>[^`]*)`)?$", re.DOTALL)
_FIELD = re.compile(r"(?:missing required|unknown) field `(?P<name>[^`]*)`")
_KEY = re.compile(r"[\x20-\x7e]{1,255}")

T = TypeVar("T")

_decoder: Final = msgspec.json.Decoder(SubmitBody)


async def read_json(request: web.Request, limit: int) -> bytes:
    """Return the body of a JSON request. Never reads more than ``limit`` bytes.

    A body without a ``Content-Type`` counts as JSON, except with an ``Origin``: a web page can post to any address
    without a CORS preflight as long as it sets no type.

    Raises:
        InvalidRequest: ``unsupported_media_type``; ``body_too_large``; or ``invalid_request`` where the body does not
            arrive in time, or can't be decompressed.
    """
    _check_type(request)
    content = request.content
    try:
        if content.is_eof():
            body = content.read_nowait()
        elif (request.content_length or 0) > limit:
            raise _too_large(limit)
        else:
            async with asyncio.timeout(BODY_TIMEOUT):
                body = await _read(request, limit)
    except TimeoutError:
        raise InvalidRequest(f"the body did not arrive within {BODY_TIMEOUT:g} s") from None
    except web.RequestPayloadError:
        raise InvalidRequest("the body is not encoded as its headers say") from None
    if len(body) > limit:
        raise _too_large(limit)
    return body


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


async def _read(request: web.Request, limit: int) -> bytes:
    content, chunks, size = request.content, [], 0
    while not content.at_eof():
        chunk = await content.readany()
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(limit: int) -> InvalidRequest:
    return InvalidRequest(f"the body is larger than {limit} bytes", code="body_too_large")


def _malformed(body: bytes, error: Exception) -> InvalidRequest:
    if not body:
        detail = "the body is empty"
    elif isinstance(error, msgspec.DecodeError):
        detail = str(error)
    else:
        detail = "the body is not UTF-8" if isinstance(error, UnicodeDecodeError) else "the body is nested too deeply"
    return InvalidRequest(detail, code="malformed_json")


def _invalid(message: str, kind: Any) -> InvalidRequest:  # noqa: ANN401 - any type that msgspec decodes
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
