"""The stored requests, running and ended."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Final

from actors.fair_shares import FairShares, Tenants
from actors.requests.idempotency import IdempotencyKeys, TenantKey, UsedKey
from actors.requests.input_size import delivery_bytes
from actors.requests.limits import RequestLimits
from actors.requests.record import RequestRecord
from actors.requests.stream import status_of
from protocol.errors import Overloaded
from protocol.events import Failed

RECORD_BYTES: Final = 4096  # of a stored request without its log and its input, rounded up
SMALL_INPUT: Final = 16 * 1024  # bytes
MIN_COMPACT: Final = 64  # own expiries that are kept before those of dropped requests are looked for


class RequestStore:
    """Requests by id, bounded in number and in bytes; an ended one stays for its ``ttl``.

    ::

        running --ended--> ended --ttl, remove, or a bound is reached--> dropped
           +-----remove------------------------------------------------> dropped

    The tenants share both bounds, as ``FairShares`` says. At a bound the tenant that is furthest above its floor gives
    room: of its requests the one that ended first is dropped early. Running requests are never dropped: a tenant that
    runs more than its floor leaves free what others have left of theirs.

    A submission's idempotency key outlives its request. It is free again at once if the request ended temporarily
    before any content: the next submission with that key is a new request.

    Args:
        limits: the bounds. A run that several requests share counts once for each of them.
        tenants: share the bounds; None for any tenants, ``MAX_TENANTS`` of them with a floor.
        clock: Unix time in seconds.

    Attributes:
        expired: how many requests were dropped because their ``ttl`` was over.
    """

    def __init__(
        self, limits: RequestLimits, tenants: Tenants | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        tenants = tenants or Tenants()
        self._ttl = limits.ttl
        self._clock = clock
        self._records: dict[str, RequestRecord] = {}
        self._keys = IdempotencyKeys(limits, tenants, clock)
        self._ended: OrderedDict[str, int] = OrderedDict()  # bytes by id, in the order of the ends
        self._ended_of: dict[str, OrderedDict[str, None]] = {}  # the same ids by tenant
        self._early: list[tuple[float, str]] = []  # a heap: the expiry and the id of those with a ``ttl`` of their own
        self._rows = FairShares(limits.max_requests, tenants)
        self._running = FairShares(limits.max_requests, tenants, rule="reserve")
        self._bytes = FairShares(limits.max_bytes, tenants)
        self._input = FairShares(limits.max_input_bytes, tenants, rule="reserve")
        self.expired = 0

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[RequestRecord]:
        return iter(self._records.values())

    def get(self, request_id: str, tenant: str) -> RequestRecord | None:
        """Return a request of this tenant; None for an unknown or expired one."""
        record = self._records.get(request_id)
        if record is None or record.tenant != tenant or (record.expires and record.expires <= self._clock()):
            return None
        return record

    def running_of(self, credential: bytes) -> tuple[RequestRecord, ...]:
        """Return the running requests that were submitted with a credential; looks at every stored request."""
        return tuple(one for one in self._records.values() if one.credential == credential and not one.stream.ended)

    def by_key(self, tenant: str, key: str) -> tuple[UsedKey, RequestRecord | None] | None:
        """Return what an idempotency key was used for, and its request while that is kept; None for a free key."""
        used = self._keys.find((tenant, key))
        return None if used is None else (used, self.get(used.request_id, tenant))

    def add(self, record: RequestRecord, *, key: str = "", digest: bytes = b"") -> None:
        """Store ``record``, with the idempotency key and the digest of its submission where there is one.

        Raises:
            Overloaded: the tenant has its share, and there is no room beyond: its requests are running, or its keys
                are used.
        """
        self._expire()
        tenant = record.tenant
        if key:
            record.idempotency = (tenant, key)
            self._keys.add(record.idempotency, digest, record.request_id)
        self._take_input(record)
        runs = record.source != "cache"
        if not runs or self._running.take(tenant):
            if self._take_row(tenant):
                self._records[record.request_id] = record
                return
            if runs:
                self._running.give_back(tenant)
        if key:
            self._keys.free((tenant, key))
        self._give_input_back(record)
        running = self._running.held(tenant)
        raise Overloaded(f"{running} requests are running, which is the most that are kept", retry_after=1.0)

    def ended(self, request_id: str) -> RequestRecord | None:
        """Start the ``ttl`` of a request that has ended, and return it.

        Does nothing, and returns None, for an unknown one, or when called again.
        """
        record = self._records.get(request_id)
        if record is None or record.expires:
            return None
        own = record.delivery.ttl
        record.expires = self._clock() + (self._ttl if own is None else own)
        if own is not None:
            self._push_early(record)
        if record.idempotency is not None:
            self._end_key(record)
        if record.source != "cache":
            self._running.give_back(record.tenant)
            self._give_input_back(record)
        size = record.run.size + delivery_bytes(record.delivery) + RECORD_BYTES
        self._ended[request_id] = self._take_bytes(record.tenant, size)
        ended_of = self._ended_of.get(record.tenant)
        if ended_of is None:
            ended_of = self._ended_of[record.tenant] = OrderedDict()
        ended_of[request_id] = None
        return record

    def remove(self, record: RequestRecord) -> None:
        """Drop a request, running or ended, and free its idempotency key. Does nothing for an unknown one."""
        if self._drop(record.request_id) and (used := self._key_of(record)) is not None:
            self._keys.free(used)

    def expire(self) -> None:
        """Drop the requests whose ``ttl`` is over, and count them in ``expired``; free the keys whose time is over."""
        self._expire()
        self._keys.expire()

    def _expire(self) -> None:
        now, early, before = self._clock(), self._early, len(self._records)
        while early and early[0][0] <= now:
            self._drop(heappop(early)[1])
        while self._ended and self._records[next(iter(self._ended))].expires <= now:
            self._drop(next(iter(self._ended)))
        self.expired += before - len(self._records)

    def _take_input(self, record: RequestRecord) -> None:
        size = _large_input(record)
        if size and not self._input.take(record.tenant, size):
            if record.idempotency is not None:
                self._keys.free(record.idempotency)
            held = self._input.held(record.tenant)
            raise Overloaded(f"running requests hold {held} bytes of input, which is the most", retry_after=1.0)

    def _give_input_back(self, record: RequestRecord) -> None:
        size = _large_input(record)
        if size:
            self._input.give_back(record.tenant, size)

    def _take_row(self, tenant: str) -> bool:
        while not self._rows.take(tenant):
            victim = self._rows.furthest_above(tenant, among=self._ended_of)
            if victim is None:
                return False
            self._drop_first(victim)
        return True

    def _take_bytes(self, tenant: str, size: int) -> int:
        """Count ``size`` bytes for an ended request; return what was counted.

        The newest one of a tenant stays, however large: where there is no room for it even alone, it counts less.
        """
        while not self._bytes.take(tenant, size):
            victim = self._bytes.furthest_above(tenant, size, among=self._ended_of)
            if victim is None and tenant in self._ended_of:
                victim = tenant
            if victim is None:
                size = self._bytes.bound - self._bytes.total
            else:
                self._drop_first(victim)
        return size

    def _push_early(self, record: RequestRecord) -> None:
        heappush(self._early, (record.expires, record.request_id))
        if len(self._early) > 2 * len(self._records) + MIN_COMPACT:
            self._early = [entry for entry in self._early if entry[1] in self._records]
            heapify(self._early)

    def _drop_first(self, tenant: str) -> None:
        self._drop(next(iter(self._ended_of[tenant])))

    def _drop(self, request_id: str) -> bool:
        record = self._records.pop(request_id, None)
        if record is None:
            return False
        tenant = record.tenant
        self._rows.give_back(tenant)
        size = self._ended.pop(request_id, None)
        if size is None:
            if record.source != "cache":
                self._running.give_back(tenant)
                self._give_input_back(record)
            return True
        self._bytes.give_back(tenant, size)
        ended_of = self._ended_of[tenant]
        del ended_of[request_id]
        if not ended_of:
            del self._ended_of[tenant]
        return True

    def _end_key(self, record: RequestRecord) -> None:
        """Free the key of an ended request that may be submitted again; note for the others how it has ended."""
        key = self._key_of(record)
        if key is None or (used := self._keys.find(key)) is None:
            return
        if record.frees_key:
            self._keys.free(key)
            return
        end = record.stream.terminal
        used.status = status_of(record.stream)
        used.code = end.event.code if end is not None and isinstance(end.event, Failed) else ""

    def _key_of(self, record: RequestRecord) -> TenantKey | None:
        """Return the key of a request; None where it has none, or the key names another request by now."""
        key = record.idempotency
        used = None if key is None else self._keys.find(key)
        return key if used is not None and used.request_id == record.request_id else None


def _large_input(record: RequestRecord) -> int:
    """Return the bytes of a request's own input; 0 for a small one, of which the number of requests is bound enough."""
    size = record.run.input_bytes if record.source == "upstream" else 0
    return size if size > SMALL_INPUT else 0
