"""Messages for embeddings.

A vector is bytes: little-endian 32-bit floats, as models compute them and as ``base64`` has them on the wire.
"""

import struct
from decimal import Decimal
from typing import Any, Final

import msgspec

from protocol.budgets import Account
from protocol.message import Message

FLOAT_BYTES: Final = 4
TOKEN_BYTES: Final = 4  # of text for one token, about

Input = str | tuple[int, ...]
"""The input of one vector: a text, or its tokens as the numbers of the upstream's vocabulary."""


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors of a request.

    Attributes:
        vectors: one for each input, in the order of the inputs.
        tokens: the tokens that the upstream counted for this request; inputs from the cache, and inputs that another
            request had in flight, count none.
        usd: their price in US dollars; None where it is unknown.
        asked: the number of inputs that were sent upstream.
        joined: the number of inputs that another request had in flight.
        cached: the number of inputs that were in the cache.
    """

    vectors: tuple[bytes, ...]
    tokens: int = 0
    usd: Decimal | None = Decimal(0)
    asked: int = 0
    joined: int = 0
    cached: int = 0


class Embed(Message[Embedded], frozen=True, kw_only=True):
    """Embed texts. Cancelling the ask does not affect other requests for the same inputs.

    Attributes:
        model: an alias, ``provider/model``, a model of the default provider, or ``default``.
        inputs: all of them texts, or all of them arrays of tokens.
        dimensions: the length of each vector; None for the model's own.
        tenant: the caller's tenant; tenants share nothing.
        account: pays for the inputs that are sent upstream; None for no account.
        dedupe: whether to use the cache, and to share calls with identical inputs in flight.
        extra: further fields for an upstream of the same dialect.

    Raises (as replies):
        NotFound: ``model_not_found``.
        Overloaded: too many inputs are in flight, or ``provider_overloaded``.
        BudgetExceeded: a budget of the account has no room.
        ProviderError: the provider failed, and the retries are used up.
        DeadlineExceeded: the deadline has passed.
    """

    traced = True

    model: str
    inputs: tuple[Input, ...]
    dimensions: int | None = None
    tenant: str = ""
    account: Account | None = None
    dedupe: bool = True
    extra: dict[str, Any] = msgspec.field(default_factory=dict)


class Vectors(msgspec.Struct, frozen=True, kw_only=True):
    """An upstream's answer to one embeddings call.

    Attributes:
        vectors: in the order of the inputs.
        tokens: of all inputs together; None where the upstream does not report them.
        model: the upstream's name of the model; empty where it does not report one.
    """

    vectors: tuple[bytes, ...]
    tokens: int | None = None
    model: str = ""


def byte_size(given: Input) -> int:
    """Return the size of an input as text, in bytes; for tokens an estimate."""
    return len(given.encode()) if isinstance(given, str) else len(given) * TOKEN_BYTES


def floats(vector: bytes) -> tuple[float, ...]:
    """Return the numbers of a vector."""
    return struct.unpack(f"<{len(vector) // FLOAT_BYTES}f", vector)
