"""Who may call: API keys, held only as keyed digests, in memory."""

import hashlib
import hmac
import os
from collections.abc import Iterable
from typing import Final

from aiohttp import web

from protocol.errors import AccessDenied

DIGEST_BYTES: Final = 32
TENANT_BYTES: Final = 8  # 16 hex digits: short in a cache key, and no two of a few thousand keys share one
LONGEST_KEY: Final = 512  # characters; a longer one is refused without being hashed


class Authenticator:
    """Knows the keys and whose they are. With no keys everybody is the anonymous tenant ``""``.

    A key is looked up by its digest under a secret of this process, so the time it takes says nothing about how much of
    a guess was right. The tenant is a digest of the key alone: the same in every process, and for every restart.
    """

    __slots__ = ("_secret", "_tenants")

    def __init__(self, keys: Iterable[str] = ()) -> None:
        self._secret = os.urandom(DIGEST_BYTES)
        self._tenants: dict[bytes, tuple[bytes, str]] = {}
        for key in keys:
            digest = self._digest(key)
            self._tenants[digest] = (digest, tenant_of(key))

    @property
    def required(self) -> bool:
        """Whether callers need a key at all."""
        return bool(self._tenants)

    def authenticate(self, key: str) -> str:
        """Return the tenant whose key this is; where none is required, the anonymous one.

        Raises:
            AccessDenied: no key that is known.
        """
        if not self._tenants:
            return ""
        if 0 < len(key) <= LONGEST_KEY:
            digest = self._digest(key)
            known, tenant = self._tenants.get(digest, (b"", ""))
            if hmac.compare_digest(known, digest):
                return tenant
        raise AccessDenied

    def _digest(self, key: str) -> bytes:
        return hashlib.blake2b(key.encode(), digest_size=DIGEST_BYTES, key=self._secret).digest()


def tenant_of(key: str) -> str:
    """Return the stable name of whoever holds ``key``; the key can't be had back from it."""
    return hashlib.blake2b(key.encode(), digest_size=TENANT_BYTES, person=b"tidegate-tenant").hexdigest()


def credential(request: web.BaseRequest) -> str:
    """Return the key that a request brings, by ``Authorization: Bearer`` or ``x-api-key``; empty for none."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key:
        return key.strip()
    return request.headers.get("x-api-key", "").strip()
