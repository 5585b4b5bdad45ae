"""JWKS: the public keys of a token issuer, fetched from the address where they are published."""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
import structlog

from actors.wire.fetcher import Fetcher
from protocol.errors import AccessDenied, FetchError, TryAgainLater
from protocol.fetching import FetchConfig

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, OKPKey, RSAKey

    PublicKey = RSAKey | ECKey | OKPKey

TTL: Final = 600.0  # seconds after which the keys are fetched again
STALE: Final = 86_400.0  # seconds for which old keys are used while new ones can't be fetched
INTERVAL: Final = 10.0  # seconds between two fetches at least
TIMEOUT: Final = 5.0  # seconds for one fetch
MAX_BYTES: Final = 262_144
MAX_KEYS: Final = 100
MAX_NAME: Final = 256  # characters of a key's name
MAX_LENGTHS: Final = {"n": 1366, "e": 8, "x": 64, "y": 64}  # characters of a key's numbers: RSA has 8192 bits at most
KINDS: Final = {"RS256": ("RSA", None), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519")}
"""The accepted algorithms, each with the type and the curve of its keys."""

_log = structlog.get_logger("service")


class _Document(msgspec.Struct, frozen=True):
    keys: list[dict[str, Any]]


class PublishedKeys:
    """A cache of the public keys at ``url``.

    The keys are fetched for the first token, again in the background after ``TTL``, and when a token names an unknown
    key; at most once within ``INTERVAL``, and never twice at once. Where a fetch fails, the cached keys are used for
    ``STALE`` seconds more.

    Args:
        url: the address of the JWKS document.
        allowed: where it may be beside the internet, as in ``FetchConfig``.
        clock: seconds, monotonic.
        on_withdrawn: called with the thumbprints of keys that the issuer does not publish any more.
    """

    def __init__(
        self,
        url: str,
        *,
        allowed: tuple[str, ...] = (),
        clock: Callable[[], float] = time.monotonic,
        on_withdrawn: Callable[[frozenset[str]], object] = lambda _: None,
    ) -> None:
        self._url = url
        self._fetcher = Fetcher(FetchConfig(allowed=allowed, max_bytes=MAX_BYTES, timeout=TIMEOUT))
        self._clock = clock
        self._on_withdrawn = on_withdrawn
        self._keys: dict[tuple[str, str], PublicKey] = {}
        self._loaded: float | None = None
        self._next = clock()
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, algorithm: str, name: str) -> "PublicKey":
        """Return the key ``name`` for ``algorithm``; without a name, the only key for it.

        Raises:
            AccessDenied: ``invalid_token``: there is no such key.
            TryAgainLater: ``auth_unavailable``: the keys can't be fetched now.
        """
        age = None if self._loaded is None else self._clock() - self._loaded
        if age is None or age > TTL + STALE:
            await self._refresh()
        elif age > TTL:
            self._start()
        key = self._pick(algorithm, name)
        if key is None and (self._fetching is not None or self._clock() >= self._next):
            await self._refresh()
            key = self._pick(algorithm, name)
        if key is not None and self._usable:
            return key
        if self._failed or not self._usable:
            raise TryAgainLater(code="auth_unavailable", retry_after=max(self._next - self._clock(), 1.0))
        raise AccessDenied("the token is signed by a key that is not known", code="invalid_token")

    def refresh(self) -> None:
        """Start a fetch in the background, where the cached keys are older than ``TTL``: also where no token comes."""
        if self._loaded is not None and self._clock() - self._loaded > TTL:
            self._start()

    async def close(self) -> None:
        """Cancel a running fetch."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    @property
    def _usable(self) -> bool:
        return self._loaded is not None and self._clock() - self._loaded <= TTL + STALE

    def _pick(self, algorithm: str, name: str) -> "PublicKey | None":
        if name:
            return self._keys.get((algorithm, name))
        candidates = [key for (kind, _), key in self._keys.items() if kind == algorithm]
        return candidates[0] if len(candidates) == 1 else None

    def _start(self) -> None:
        """Start a fetch, unless one runs or the last one was too recent."""
        if self._fetching is None and self._clock() >= self._next:
            self._next = self._clock() + INTERVAL
            self._fetching = asyncio.create_task(self._load())

    async def _refresh(self) -> None:
        """Wait for the running fetch, or for a new one. Being cancelled does not cancel the fetch."""
        self._start()
        if self._fetching is not None:
            await asyncio.shield(self._fetching)

    async def _load(self) -> None:
        try:
            keys = usable_keys(await self._fetcher.get(self._url))
        except FetchError as error:
            self._fail(error.detail, error.problem.remedy if error.code == "fetch_refused" else "")
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            self._fail(str(error)[:200] or type(error).__name__)
        else:
            self._failed = False
            self._loaded = self._clock()
            withdrawn = _thumbprints(self._keys) - _thumbprints(keys)
            self._keys = keys
            if withdrawn:
                _log.info("jwks_keys_withdrawn", url=self._url, count=len(withdrawn))
                self._on_withdrawn(withdrawn)
        finally:
            self._fetching = None

    def _fail(self, reason: str, remedy: str = "") -> None:
        self._failed = True
        fields = {"remedy": remedy} if remedy else {}
        _log.warning("jwks_unavailable", url=self._url, reason=reason, **fields)


def usable_keys(document: bytes) -> "dict[tuple[str, str], PublicKey]":
    """Return the keys of a JWKS document that verify signatures, by algorithm and name; others are left out.

    Raises:
        ValueError: the document is invalid, or has no key that can be used.
    """
    found: dict[tuple[str, str], PublicKey] = {}
    for index, described in enumerate(msgspec.json.decode(document, type=_Document).keys[:MAX_KEYS]):
        for algorithm, kind in KINDS.items():
            if (described.get("kty"), described.get("crv")) == kind and _may_sign(described, algorithm):
                key = _import(described)
                name = str(described.get("kid") or f"\0{index}")
                if key is not None and len(name) <= MAX_NAME:
                    found[algorithm, name] = key
    if not found:
        raise ValueError("it has no key that can be used")
    return found


def _thumbprints(keys: "dict[tuple[str, str], PublicKey]") -> frozenset[str]:
    return frozenset(key.thumbprint() for key in keys.values())


def _may_sign(described: dict[str, Any], algorithm: str) -> bool:
    return described.get("use", "sig") == "sig" and described.get("alg") in (None, algorithm, described.get("crv"))


def _import(described: dict[str, Any]) -> "PublicKey | None":
    from joserfc.errors import JoseError  # noqa: PLC0415 - only where tokens are configured
    from joserfc.jwk import ECKey, OKPKey, RSAKey  # noqa: PLC0415 - the same

    kinds: dict[str, type[PublicKey]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
    public = {name: value for name, value in described.items() if name in {"kty", "crv", "n", "e", "x", "y"}}
    if any(
        not isinstance(public.get(name, ""), str) or len(public.get(name, "")) > MAX_LENGTHS[name]
        for name in MAX_LENGTHS
    ):
        return None
    try:
        return kinds[public["kty"]].import_key(public)
    except (JoseError, ValueError, TypeError):
        return None
