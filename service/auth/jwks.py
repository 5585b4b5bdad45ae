"""The public keys of whoever signs tokens, from the address where they are published."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec
import structlog

from protocol.errors import AccessDenied, TryAgainLater

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    PublicKey = RSAKey | ECKey | OKPKey

TTL: Final = 600.0  # seconds after which the keys are asked for again
STALE: Final = 86_400.0  # seconds for which old keys serve while new ones can't be had
INTERVAL: Final = 10.0  # seconds between two calls at least, whatever the callers bring
TIMEOUT: Final = 5.0  # seconds for one call
MAX_BYTES: Final = 262_144
MAX_KEYS: Final = 100
KINDS: Final = {"RS256": ("RSA", None), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}
"""The algorithms that are accepted, each with the type and the curve of its keys."""

OK: Final = 200

_log = structlog.get_logger("service")


class _Document(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


class PublishedKeys:
    """The keys that are published at ``url``, for as long as they may be used.

    They are asked for when the first token comes, again after ``TTL`` without anybody waiting, and when a token names
    a key that is not among them; never twice within ``INTERVAL``, and never by two callers at once. While they can't be
    had, those that are there go on serving for ``STALE``.

    Args:
        url: where they are.
        clock: seconds that never go back.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._url = url
        self._clock = clock
        self._keys: dict[tuple[str, str], PublicKey] = {}
        self._loaded: float | None = None
        self._next = clock()
        self._failed = False
        self._call: asyncio.Task[None] | None = None

    async def find(self, algorithm: str, name: str) -> "PublicKey":
        """Return the key called ``name`` for ``algorithm``; without a name, the only one that there is for it.

        Raises:
            AccessDenied: ``invalid_token``: there is no such key.
            TryAgainLater: ``auth_unavailable``: which keys there are can't be found out now.
        """
        age = None if self._loaded is None else self._clock() - self._loaded
        if age is None or age > TTL + STALE:
            await self._refresh()
        elif age > TTL:
            self._start()
        key = self._pick(algorithm, name)
        if key is None and (self._call is not None or self._clock() >= self._next):
            await self._refresh()
            key = self._pick(algorithm, name)
        if key is not None and self._usable:
            return key
        if self._failed or not self._usable:
            raise TryAgainLater(code="auth_unavailable", retry_after=max(self._next - self._clock(), 1.0))
        raise AccessDenied("the token is signed by a key that is not known", code="invalid_token")

    async def close(self) -> None:
        """Give up a call that is under way."""
        if self._call is not None:
            self._call.cancel()
            await asyncio.gather(self._call, return_exceptions=True)

    @property
    def _usable(self) -> bool:
        return self._loaded is not None and self._clock() - self._loaded <= TTL + STALE

    def _pick(self, algorithm: str, name: str) -> "PublicKey | None":
        if name:
            return self._keys.get((algorithm, name))
        suiting = [key for (suits, _), key in self._keys.items() if suits == algorithm]
        return suiting[0] if len(suiting) == 1 else None

    def _start(self) -> None:
        """Begin a call, unless there is one or it is too early."""
        if self._call is None and self._clock() >= self._next:
            self._next = self._clock() + INTERVAL
            self._call = asyncio.create_task(self._load())

    async def _refresh(self) -> None:
        """Wait for the call that is under way, or for a new one where it is time. Leaving does not end it."""
        self._start()
        if self._call is not None:
            await asyncio.shield(self._call)

    async def _load(self) -> None:
        try:
            self._keys = usable_keys(await self._fetch())
        except (aiohttp.ClientError, msgspec.DecodeError, OSError, ValueError) as error:
            self._failed = True
            _log.warning("jwks_unavailable", url=self._url, reason=str(error)[:200] or type(error).__name__)
        else:
            self._failed = False
            self._loaded = self._clock()
        finally:
            self._call = None

    async def _fetch(self) -> bytes:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT)
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(self._url, allow_redirects=False) as response,
        ):
            if response.status != OK:
                raise ValueError(f"status {response.status}")
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError(f"more than {MAX_BYTES} bytes")
            return bytes(body)


def usable_keys(document: bytes) -> "dict[tuple[str, str], PublicKey]":
    """Return the keys of a JWKS document that verify signatures, by algorithm and name; others are left out.

    Raises:
        ValueError: it is no such document, or has no key that can be used.
    """
    found: dict[tuple[str, str], PublicKey] = {}
    for index, described in enumerate(msgspec.json.decode(document, type=_Document).keys[:MAX_KEYS]):
        for algorithm, kind in KINDS.items():
            if (described.get("kty"), described.get("crv")) == kind and _may_sign(described, algorithm):
                key = _import(described)
                if key is not None:
                    found[algorithm, str(described.get("kid") or f"\0{index}")] = key
    if not found:
        raise ValueError("it has no key that can be used")
    return found


def _may_sign(described: dict[str, Any], algorithm: str) -> bool:
    return described.get("use", "sig") == "sig" and described.get("alg") in (None, algorithm, described.get("crv"))


def _import(described: dict[str, Any]) -> "PublicKey | None":
    from joserfc.errors import JoseError  # noqa: PLC0415 - only where tokens are configured
    from joserfc.jwk import ECKey, OKPKey, RSAKey  # noqa: PLC0415 - the same

    kinds: dict[str, type[PublicKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    public = {name: value for name, value in described.items() if name in {"kty", "crv", "n", "e", "x", "y"}}
    try:
        return kinds[public["kty"]].import_key(public)
    except (JoseError, ValueError, TypeError):
        return None
