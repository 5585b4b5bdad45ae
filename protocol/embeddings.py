"""The conversation about embeddings: ask for the vectors of texts.

A vector is held as its bytes, little-endian 32-bit floats: what models compute in, and what ``base64`` is on the wire.
"""

import struct
from decimal import Decimal
from typing import Any, Final

import msgspec

from protocol.budgets import Account
from protocol.message import Message

FLOAT_BYTES: Final = 4
TOKEN_BYTES: Final = 4  # of text that a token stands for, about

Input = str | tuple[int, ...]
"""What one vector is for: a text, or the tokens of one, by the upstream's own numbers of them."""


class Embedded(msgspec.Struct, frozen=True, kw_only=True):
    """The vectors of a request.

    Attributes:
        vectors: one for each input, in the order of the inputs.
        tokens: the tokens that this request has caused upstream; inputs from the cache, and those that another request
            had asked for already, cost nothing.
        usd: their price in US dollars; None where it is unknown.
        asked: how many inputs the model's side was asked for.
        joined: how many another request had asked for already.
        cached: how many were in the cache.
    """

    vectors: tuple[bytes, ...]
    tokens: int = 0
    usd: Decimal | None = Decimal(0)
    asked: int = 0
    joined: int = 0
    cached: int = 0


class Embed(Message[Embedded], frozen=True, kw_only=True):
    """Ask for the vectors of texts. Giving up the ask leaves what others wait for as it is.

    Attributes:
        model: an alias, ``provider/model``, a model of the default provider, or ``default``.
        inputs: all of them texts, or all of them tokens.
        dimensions: the length of each vector; None for the model's own.
        tenant: whose request it is: nothing is shared between tenants.
        account: who pays for what has to be asked for; None for nobody.
        dedupe: whether to take part in the cache, and share with identical inputs in flight.
        extra: further fields for an upstream of the same dialect.

    Raises (as replies):
        NotFound: ``model_not_found``.
        Overloaded: too many inputs are on their way, or ``provider_overloaded``.
        BudgetExceeded: the account has no room for it.
        ProviderError: the model's side failed, and the retries are spent.
        DeadlineExceeded: out of time.
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
    """What an upstream has answered.

    Attributes:
        vectors: in the order of the inputs.
        tokens: for all the inputs together; None where it does not say.
        model: its own name of the model; empty where it does not say.
    """

    vectors: tuple[bytes, ...]
    tokens: int | None = None
    model: str = ""


def byte_size(given: Input) -> int:
    """Return the bytes that an input takes as text, for tokens about."""
    return len(given.encode()) if isinstance(given, str) else len(given) * TOKEN_BYTES


def floats(vector: bytes) -> tuple[float, ...]:
    """Return the numbers of a vector."""
    return struct.unpack(f"<{len(vector) // FLOAT_BYTES}f", vector)
