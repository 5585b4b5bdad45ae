"""The stored requests, running and ended."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from actors.requests.input_size import delivery_bytes
from actors.requests.record import RequestRecord
from protocol.errors import Overloaded

RECORD_BYTES: Final = 4096  # of a stored request without its log and its input, rounded up


class RequestStore:
    """Requests by id, bounded in number and in bytes; an ended one stays for ``ttl`` seconds.

    ::

        running --ended--> ended --ttl, or a bound is reached--> dropped

    A request that ended temporarily before any content frees its idempotency key at once: the next submission with that
    key is a new request.

    A running request is never dropped. At a bound the request that ended first is dropped early; where none has ended,
    ``add`` raises.

    Args:
        ttl: seconds for which an ended request is stored.
        max_requests: the most requests, running ones included.
        max_bytes: the bound on what ended requests hold, in bytes: their logs and their input. A run that several
            requests share counts once for each of them.
        clock: Unix time in seconds.
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
        self._ended: deque[tuple[str, int]] = deque()
        self._bytes = 0

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
        if len(self._records) >= self._max_requests and not self._evict():
            message = f"{self._max_requests} requests are running, which is the most that are kept"
            raise Overloaded(message, retry_after=1.0)
        self._records[record.request_id] = record
        if key:
            record.idempotency = (record.tenant, key)
            self._keys[record.idempotency] = (digest, record.request_id)

    def ended(self, request_id: str) -> None:
        """Start the ``ttl`` of a request that has ended. Does nothing for an unknown one, or when called again."""
        record = self._records.get(request_id)
        if record is None or record.expires:
            return
        record.expires = self._clock() + self._ttl
        if record.idempotency is not None and record.frees_key:
            self._forget_key(record)
        size = record.run.size + delivery_bytes(record.delivery) + RECORD_BYTES
        self._ended.append((request_id, size))
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._ended) > 1:
            self._evict()

    def expire(self) -> None:
        """Drop the requests whose ``ttl`` is over."""
        now = self._clock()
        while self._ended:
            record = self._records.get(self._ended[0][0])
            if record is not None and record.expires > now:
                return
            self._evict()

    def _evict(self) -> bool:
        if not self._ended:
            return False
        request_id, size = self._ended.popleft()
        self._bytes -= size
        record = self._records.pop(request_id, None)
        if record is not None:
            self._forget_key(record)
        return True

    def _forget_key(self, record: RequestRecord) -> None:
        if record.idempotency is not None:
            self._keys.pop(record.idempotency, None)
            record.idempotency = None
