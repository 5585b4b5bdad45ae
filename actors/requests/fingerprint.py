"""Digests of requests: coalescing, the cache and idempotency keys compare them."""

import hashlib

import msgspec

from actors.requests.input_size import request_bytes
from protocol.errors import InvalidRequest
from protocol.llm import ChatRequest
from protocol.requests import Delivery, Digests, Submit

_ENCODER = msgspec.msgpack.Encoder(order="deterministic", decimal_format="string")
_DIGEST_BYTES = 20


def fingerprint(
    tenant: str, request: ChatRequest, prompt_version: str = "", *, restart: bool = False, repair: bool = False
) -> bytes:
    """Return a digest of everything that shapes the answer, scoped to the tenant.

    ``restart`` changes the digest, and so does ``repair`` for a request with a schema: in such a log the answer may
    begin anew, which not every reader can handle.

    The same request in two dialects has one fingerprint, unless it passes fields through to its upstream.

    Raises:
        InvalidRequest: the request holds an integer beyond 64 bits, or is nested too deeply.
    """
    if request.dialect != "native" and not request.extra:
        request = msgspec.structs.replace(request, dialect="native")
    flags = (("restart",) if restart else ()) + (("repair",) if repair and request.schema is not None else ())
    return _digest((tenant, prompt_version, request, *flags))


def run_digest(submit: Submit) -> bytes:
    """Return the fingerprint of a submission."""
    if submit.digests is not None:
        return submit.digests.run
    delivery = submit.delivery
    restart = delivery.on_attempt_failed == "restart"
    return fingerprint(submit.tenant, submit.request, delivery.prompt_version, restart=restart, repair=delivery.repair)


def digested(submit: Submit) -> Submit:
    """Return a submission with its digests."""
    body = body_digest(submit) if submit.idempotency_key else b""
    digests = Digests(run_digest(submit), body, request_bytes(submit.request))
    return msgspec.structs.replace(submit, digests=digests)


def body_digest(submit: Submit) -> bytes:
    """Return a digest of the whole submission: a repeated idempotency key must come with the same one."""
    if submit.digests is not None:
        return submit.digests.body
    delivery: Delivery = submit.delivery
    return _digest((submit.tenant, submit.request, delivery))


def _digest(value: object) -> bytes:
    try:
        encoded = _ENCODER.encode(value)
    except (OverflowError, RecursionError) as error:
        message = "the request holds an integer beyond 64 bits, or is nested too deeply"
        raise InvalidRequest(message) from error
    return hashlib.blake2b(encoded, digest_size=_DIGEST_BYTES).digest()
