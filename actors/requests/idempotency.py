"""Idempotency keys of submissions. They are kept apart from the requests, and for longer."""

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from actors.fair_shares import FairShares, Tenants
from actors.requests.limits import RequestLimits
from protocol.errors import Overloaded
from protocol.requests import Status

TenantKey = tuple[str, str]  # tenant and idempotency key


class UsedKey(msgspec.Struct, eq=False):
    """What a key was used for.

    Attributes:
        digest: of the submission.
        request_id: the request that was made for it.
        expires: when the key is free again, in Unix seconds.
        status: the request's.
        code: of its failure; empty for none.
    """

    digest: bytes
    request_id: str
    expires: float
    status: Status = "pending"
    code: str = ""


class IdempotencyKeys:
    """The keys of all tenants, bounded in number. A key is never evicted: another request would be run twice.

    ::

        free --add--> used --limits.key_ttl, free--> free

    Args:
        limits: how many, and for how long from their submission.
        tenants: share the bound evenly.
        clock: Unix time in seconds.
    """

    __slots__ = ("_clock", "_shares", "_ttl", "_used")

    def __init__(self, limits: RequestLimits, tenants: Tenants, clock: Callable[[], float]) -> None:
        self._ttl = limits.key_ttl
        self._clock = clock
        self._shares = FairShares(limits.max_keys, tenants, rule="split")
        self._used: OrderedDict[TenantKey, UsedKey] = OrderedDict()  # by expiry

    def __len__(self) -> int:
        return len(self._used)

    def find(self, key: TenantKey) -> UsedKey | None:
        """Return what a key was used for; None for a free one."""
        used = self._used.get(key)
        return None if used is None or used.expires <= self._clock() else used

    def add(self, key: TenantKey, digest: bytes, request_id: str) -> None:
        """Use a free key.

        Raises:
            Overloaded: the tenant has used all keys of its share.
        """
        self.expire()
        if not self._shares.take(key[0]):
            retry_after = max(1.0, next(iter(self._used.values())).expires - self._clock()) if self._used else None
            detail = f"{self._shares.held(key[0])} idempotency keys are remembered, which is the most"
            raise Overloaded(detail, retry_after=retry_after)
        self._used[key] = UsedKey(digest, request_id, self._clock() + self._ttl)

    def free(self, key: TenantKey) -> None:
        """Free a key before its time. Does nothing for a free one."""
        if self._used.pop(key, None) is not None:
            self._shares.give_back(key[0])

    def expire(self) -> None:
        """Free the keys whose time is over."""
        now = self._clock()
        while self._used:
            key, used = next(iter(self._used.items()))
            if used.expires > now:
                return
            self.free(key)
