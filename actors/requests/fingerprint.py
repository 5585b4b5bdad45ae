"""Which requests are the same: the digest that coalescing, the cache and idempotency keys go by."""

import hashlib

import msgspec

from protocol.errors import InvalidRequest
from protocol.llm import ChatRequest
from protocol.requests import Delivery, Submit

_ENCODER = msgspec.msgpack.Encoder(order="deterministic", decimal_format="string")
_DIGEST_BYTES = 20


def fingerprint(
    tenant: str, request: ChatRequest, prompt_version: str = "", *, restart: bool = False, repair: bool = False
) -> bytes:
    """Return a digest of everything that shapes the answer, scoped to the tenant.

    With ``restart`` it is another one, and with ``repair`` where there is a schema: a log in which the answer begins
    anew is not for readers who can't take that.

    Two dialects that ask the same have the same fingerprint, unless one of them passes fields through to its upstream.
    """
    if request.dialect != "native" and not request.extra:
        request = msgspec.structs.replace(request, dialect="native")
    marks = (("restart",) if restart else ()) + (("repair",) if repair and request.schema is not None else ())
    return _digest((tenant, prompt_version, request, *marks))


def body_digest(submit: Submit) -> bytes:
    """Return a digest of the whole submission: what an idempotency key has to be repeated with."""
    delivery: Delivery = submit.delivery
    return _digest((submit.tenant, submit.request, delivery))


def _digest(value: object) -> bytes:
    try:
        encoded = _ENCODER.encode(value)
    except (OverflowError, RecursionError) as error:
        message = "the request holds an integer beyond 64 bits, or is nested too deeply"
        raise InvalidRequest(message) from error
    return hashlib.blake2b(encoded, digest_size=_DIGEST_BYTES).digest()
