"""The stored requests, running and ended."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Final

from actors.requests.input_size import delivery_bytes
from actors.requests.record import RequestRecord
from protocol.errors import Overloaded

RECORD_BYTES: Final = 4096  # of a stored request without its log and its input, rounded up
MIN_COMPACT: Final = 64  # own expiries that are kept before those of dropped requests are looked for


class RequestStore:
    """Requests by id, bounded in number and in bytes; an ended one stays for its ``ttl``.

    ::

        running --ended--> ended --ttl, remove, or a bound is reached--> dropped
           +-----remove------------------------------------------------> dropped

    A request that ended temporarily before any content frees its idempotency key at once: the next submission with that
    key is a new request.

    Only ``remove`` drops a running request. At a bound the request that ended first is dropped early; where none has
    ended, ``add`` raises.

    Args:
        ttl: seconds for which an ended request is stored, unless it has a ``ttl`` of its own, which is not longer.
        max_requests: the most requests, running ones included.
        max_bytes: the bound on what ended requests hold, in bytes: their logs and their input. A run that several
            requests share counts once for each of them.
        clock: Unix time in seconds.

    Attributes:
        expired: how many requests were dropped because their ``ttl`` was over.
    """

    def __init__(
        self, *, ttl: float, max_requests: int, max_bytes: int, clock: Callable[[], float] = time.time
    ) -> None:
        self._ttl = ttl
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._clock = clock
        self._records: dict[str, RequestRecord] = {}
        self._keys: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._ended: OrderedDict[str, int] = OrderedDict()  # bytes by id, in the order of the ends
        self._early: list[tuple[float, str]] = []  # a heap: the expiry and the id of those with a ``ttl`` of their own
        self._bytes = 0
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

    def by_key(self, tenant: str, key: str) -> tuple[bytes, RequestRecord] | None:
        """Return the request with this idempotency key, and the digest of its submission; None where there is none."""
        digest, request_id = self._keys.get((tenant, key), (b"", ""))
        record = self.get(request_id, tenant) if request_id else None
        return (digest, record) if record else None

    def add(self, record: RequestRecord, *, key: str = "", digest: bytes = b"") -> None:
        """Store ``record``, with the idempotency key and the digest of its submission where there is one.

        Raises:
            Overloaded: the store is full, and all its requests are running.
        """
        self.expire()
        if len(self._records) >= self._max_requests:
            if not self._ended:
                message = f"{self._max_requests} requests are running, which is the most that are kept"
                raise Overloaded(message, retry_after=1.0)
            self._drop_first()
        self._records[record.request_id] = record
        if key:
            record.idempotency = (record.tenant, key)
            self._keys[record.idempotency] = (digest, record.request_id)

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
        if record.idempotency is not None and record.frees_key:
            self._forget_key(record)
        size = record.run.size + delivery_bytes(record.delivery) + RECORD_BYTES
        self._ended[request_id] = size
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._ended) > 1:
            self._drop_first()
        return record

    def remove(self, record: RequestRecord) -> None:
        """Drop a request, running or ended, and its idempotency key. Does nothing for an unknown one."""
        self._drop(record.request_id)

    def expire(self) -> None:
        """Drop the requests whose ``ttl`` is over, and count them in ``expired``."""
        now, early, before = self._clock(), self._early, len(self._records)
        while early and early[0][0] <= now:
            self._drop(heappop(early)[1])
        while self._ended and self._records[next(iter(self._ended))].expires <= now:
            self._drop_first()
        self.expired += before - len(self._records)

    def _push_early(self, record: RequestRecord) -> None:
        heappush(self._early, (record.expires, record.request_id))
        if len(self._early) > 2 * len(self._records) + MIN_COMPACT:
            self._early = [entry for entry in self._early if entry[1] in self._records]
            heapify(self._early)

    def _drop_first(self) -> None:
        self._drop(next(iter(self._ended)))

    def _drop(self, request_id: str) -> None:
        self._bytes -= self._ended.pop(request_id, 0)
        record = self._records.pop(request_id, None)
        if record is not None:
            self._forget_key(record)

    def _forget_key(self, record: RequestRecord) -> None:
        if record.idempotency is not None:
            self._keys.pop(record.idempotency, None)
            record.idempotency = None
