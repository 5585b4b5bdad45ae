"""Idempotency keys of publications."""

from collections import OrderedDict
from hashlib import blake2b
from typing import Final, NamedTuple

from protocol.errors import IdempotencyKeyReused

MAX_KEYS: Final = 1000  # of a channel; one more drops the oldest
KEY_TTL: Final = 300.0  # seconds
KEY_BYTES: Final = 400  # of a key's record, without the key


class _Used(NamedTuple):
    digest: bytes
    offset: int
    subscribers: int
    expires: float


class PublicationKeys:
    """What each key was used for in a channel, for ``KEY_TTL`` seconds: the offset and the number of subscribers.

    Attributes:
        size: bytes held, estimated.
    """

    __slots__ = ("_used", "size")

    def __init__(self) -> None:
        self._used: OrderedDict[str, _Used] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._used)

    def find(self, key: str, event: str, data: bytes, now: float) -> tuple[int, int] | None:
        """Return the offset and the subscribers of the publication with ``key``; None where there is none.

        Raises:
            IdempotencyKeyReused: the key was used for another publication.
        """
        self.expire(now)
        used = self._used.get(key)
        if used is None:
            return None
        if used.digest != _digest(event, data):
            raise IdempotencyKeyReused("the key was used for another publication in this channel")
        return used.offset, used.subscribers

    def put(self, key: str, event: str, data: bytes, used: tuple[int, int], now: float) -> None:
        """Record the publication with ``key``."""
        if len(self._used) >= MAX_KEYS:
            self._drop()
        self._used[key] = _Used(_digest(event, data), *used, now + KEY_TTL)
        self.size += _size(key)

    def expire(self, now: float) -> bool:
        """Drop expired keys; return whether there were any."""
        before = len(self._used)
        while self._used and next(iter(self._used.values())).expires <= now:
            self._drop()
        return len(self._used) < before

    def clear(self) -> None:
        """Drop all keys."""
        self._used.clear()
        self.size = 0

    def _drop(self) -> None:
        key, _ = self._used.popitem(last=False)
        self.size -= _size(key)


def _digest(event: str, data: bytes) -> bytes:
    return blake2b(event.encode("utf-8", "surrogatepass") + b"\0" + data, digest_size=16).digest()


def _size(key: str) -> int:
    return KEY_BYTES + 4 * len(key)
