"""Signed tokens (JWT) as credentials: what is checked of them, and what their holders may do."""

import base64
import binascii
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from cachebox import LRUCache

from protocol.errors import AccessDenied
from protocol.identity import ALL_SCOPES, ChannelGrant, Principal, Scope
from service.auth.jwks import KINDS, PublishedKeys
from service.auth.keys import USUAL_SCOPES, Pattern, Tenant, tenant_of
from service.auth.token_config import TokenConfig

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

SYMMETRIC: Final = "HS256"
LAST_SECOND: Final = 253_402_300_799  # of the year 9999
MAX_LISTED: Final = 64
REMEMBERED: Final = 10_000  # tokens
REMEMBERED_FOR: Final = 300.0  # seconds; a key that is withdrawn serves for no longer

Instant = Annotated[float, msgspec.Meta(ge=0, le=LAST_SECOND)]
Name = Annotated[str, msgspec.Meta(max_length=256)]


class _Header(msgspec.Struct, frozen=True):
    alg: str
    kid: Name = ""
    crit: object = None


class Claims(msgspec.Struct, frozen=True):
    """What is read of a token; other claims are none of our concern.

    Attributes:
        exp: when it ends, in Unix seconds; a token without an end is none.
        nbf: when it begins.
        sub: who holds it.
        iss: who made it.
        aud: for whom it was made.
        tenant: whose requests its holder sees; None for those of its own subject only.
        scope: the parts of the service that it opens, separated by spaces.
        scopes: the same as a list.
        models: patterns of the models that may be asked for.
        channels: what may be done in which channels; a pattern alone grants every right.
    """

    exp: Instant
    nbf: Instant = 0.0
    sub: Name = ""
    iss: str = ""
    aud: str | tuple[str, ...] = ()
    tenant: Tenant | None = None
    scope: str | None = None
    scopes: tuple[str, ...] | None = None
    models: Annotated[tuple[Pattern, ...], msgspec.Meta(max_length=MAX_LISTED)] = ("*",)
    channels: Annotated[tuple[ChannelGrant | Pattern, ...], msgspec.Meta(max_length=MAX_LISTED)] = ()


_header_of: Final = msgspec.json.Decoder(_Header).decode
_claims_of: Final = msgspec.json.Decoder(Claims).decode


class Tokens:
    """Verifies tokens, and remembers for a short time those that were good.

    The algorithm that a token names only chooses between the keys that there are for it: the secret verifies HS256, and
    a published key the algorithm of its own type. There is no other.

    Args:
        config: the keys, and what a token must say.
        clock: Unix seconds.

    Raises:
        ValueError: the secret can't be used as a key.
    """

    def __init__(self, config: TokenConfig, *, clock: Callable[[], float] = time.time) -> None:
        from joserfc import jwk, jws  # noqa: PLC0415 - only where tokens are configured

        self._config = config
        self._secret = jwk.OctKey.import_key(config.secret) if config.secret else None
        self._published = PublishedKeys(config.jwks_url) if config.jwks_url else None
        self._clock = clock
        self._registry = jws.JWSRegistry(algorithms=[SYMMETRIC, *KINDS], strict_check_header=False)
        self._good: LRUCache[bytes, tuple[float, Principal]] = LRUCache(REMEMBERED)

    def known(self, digest: bytes) -> Principal | None:
        """Return who holds a token that was verified a short time ago."""
        until, principal = self._good.get(digest, (0.0, None))
        return principal if self._clock() < until else None

    async def verify(self, token: str, digest: bytes) -> Principal:
        """Return who holds ``token``, and remember it by its ``digest``.

        Raises:
            AccessDenied: ``token_expired``, or ``invalid_token`` with what is wrong.
            TryAgainLater: ``auth_unavailable``: there is no knowing now.
        """
        header = _read_header(token)
        payload = self._payload(token, header.alg, await self._key(header))
        principal = self._accept(payload)
        until = self._clock() + REMEMBERED_FOR
        self._good[digest] = (until if principal.expires is None else min(principal.expires, until), principal)
        return principal

    async def close(self) -> None:
        """Give up what is under way."""
        if self._published is not None:
            await self._published.close()

    async def _key(self, header: _Header) -> "OctKey | RSAKey | ECKey | OKPKey":
        if header.alg == SYMMETRIC and self._secret is not None:
            return self._secret
        if header.alg in KINDS and self._published is not None:
            return await self._published.find(header.alg, header.kid)
        raise _invalid("its algorithm is not accepted")

    def _payload(self, token: str, algorithm: str, key: "OctKey | RSAKey | ECKey | OKPKey") -> bytes:
        from joserfc import jws  # noqa: PLC0415 - only where tokens are configured
        from joserfc.errors import JoseError, SecurityWarning  # noqa: PLC0415 - the same

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", SecurityWarning)  # of the name EdDSA, which all issuers still use
                return jws.deserialize_compact(token, key, [algorithm], self._registry).payload
        except (JoseError, ValueError, TypeError) as error:
            raise _invalid("its signature is not good") from error

    def _accept(self, payload: bytes) -> Principal:
        try:
            claims = _claims_of(payload)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise _invalid(str(error)[:200]) from error
        config, now = self._config, self._clock()
        if now >= claims.exp + config.leeway:
            raise AccessDenied(code="token_expired")
        if now < claims.nbf - config.leeway:
            raise _invalid("it is not valid yet")
        if config.issuer and claims.iss != config.issuer:
            raise _invalid("somebody else made it")
        audiences = (claims.aud,) if isinstance(claims.aud, str) else claims.aud
        if config.audience not in audiences and (config.audience or audiences):
            raise _invalid("it was made for somebody else")
        return self._principal(claims)

    def _principal(self, claims: Claims) -> Principal:
        if not claims.tenant and not claims.sub:
            raise _invalid("it says neither `tenant` nor `sub`")
        return Principal(
            tenant=claims.tenant or tenant_of("token", claims.iss, claims.sub),
            subject=claims.sub,
            scopes=_scopes(claims),
            models=claims.models,
            channels=tuple(ChannelGrant(grant) if isinstance(grant, str) else grant for grant in claims.channels),
            expires=claims.exp + self._config.leeway,
        )


def _scopes(claims: Claims) -> tuple[Scope, ...]:
    """Return the scopes that are ours; a token that says nothing of scopes opens what a key usually does."""
    if claims.scope is None and claims.scopes is None:
        return USUAL_SCOPES
    named = {*(claims.scope or "").split(), *(claims.scopes or ())}
    return tuple(scope for scope in ALL_SCOPES if scope in named)


def _read_header(token: str) -> _Header:
    first = token.partition(".")[0]
    try:
        header = _header_of(base64.b64decode(first + "=" * (-len(first) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _invalid("its header can't be read") from error
    if header.crit is not None:
        raise _invalid("it asks for an extension")
    return header


def _invalid(reason: str) -> AccessDenied:
    return AccessDenied(f"The token is not valid: {reason}", code="invalid_token")
