"""Signed tokens (JWT): their verification, and the permissions in their claims."""

import base64
import binascii
import json
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from cachebox import LRUCache

from protocol.errors import AccessDenied, ConfigurationError
from protocol.identity import ALL_SCOPES, ChannelGrant, Principal, Scope
from service.auth.jwks import KINDS, PublishedKeys
from service.auth.keys import DEFAULT_SCOPES, Pattern, Tenant, tenant_of
from service.auth.token_config import TokenConfig, TokenPlans

if TYPE_CHECKING:
    from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

SYMMETRIC: Final = "HS256"
LAST_SECOND: Final = 253_402_300_799  # of the year 9999
MAX_LISTED: Final = 64
CACHE_ENTRIES: Final = 10_000  # verified tokens
CACHE_TTL: Final = 300.0  # seconds; a withdrawn public key is accepted no longer than this

Instant = Annotated[float, msgspec.Meta(ge=0, le=LAST_SECOND)]
Name = Annotated[str, msgspec.Meta(max_length=256)]


class _Header(msgspec.Struct, frozen=True):
    alg: str
    kid: Name = ""
    crit: object = None


class Claims(msgspec.Struct, frozen=True):
    """The claims that are read; all others are ignored.

    Attributes:
        exp: the expiry, in Unix seconds; required.
        nbf: the time before which the token is not valid, in Unix seconds.
        sub: the subject: the token's holder.
        iss: the issuer.
        aud: the audience: one or several.
        tenant: the tenant whose requests and channels its holder sees; None for a tenant of the subject's own.
        scope: the scopes, separated by spaces.
        scopes: the same as a list.
        models: patterns of the models that may be used.
        channels: the rights in channels; a pattern alone grants every right.
        plan: the name of the plan that limits its holder; counts where the routes' file has a table ``[jwt]``.
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
    plan: object = None


_header_of: Final = msgspec.json.Decoder(_Header).decode
_claims_of: Final = msgspec.json.Decoder(Claims).decode


class TokenVerifier:
    """Verifies tokens, and caches the verified ones for ``CACHE_TTL`` seconds.

    A token's ``alg`` only selects among the keys of that algorithm: the secret verifies HS256, a published key the
    algorithm of its own type. No other algorithm is accepted.

    Args:
        config: the keys, and what a token must say.
        clock: Unix seconds.

    Attributes:
        on_withdrawn: called with the signers whose tokens are not accepted any more: public keys, by their thumbprints.

    Raises:
        ValueError: the secret can't be used as a key.
    """

    def __init__(self, config: TokenConfig, *, clock: Callable[[], float] = time.time) -> None:
        from joserfc import jwk, jws  # noqa: PLC0415 - only where tokens are configured

        self._config = config
        self._secret = jwk.OctKey.import_key(config.secret) if config.secret else None
        self._published = (
            PublishedKeys(config.jwks_url, allowed=config.fetch_allowed, on_withdrawn=self._withdrawn)
            if config.jwks_url
            else None
        )
        self._clock = clock
        self._plans = TokenPlans()
        self._registry = jws.JWSRegistry(algorithms=[SYMMETRIC, *KINDS], strict_check_header=False)
        self._cache: LRUCache[bytes, tuple[float, Principal]] = LRUCache(CACHE_ENTRIES)
        self.on_withdrawn: Callable[[frozenset[str]], object] = lambda _: None

    def known(self, digest: bytes) -> Principal | None:
        """Return the holder of a cached token; None where it is not cached."""
        until, principal = self._cache.get(digest, (0.0, None))
        return principal if self._clock() < until else None

    def set_plans(self, plans: TokenPlans) -> None:
        """Limit the holders of tokens by ``plans`` from now on."""
        if plans != self._plans:
            self._plans = plans
            self._cache.clear()

    async def verify(self, token: str, digest: bytes) -> Principal:
        """Verify ``token`` and return its holder; the result is cached by ``digest``.

        Raises:
            AccessDenied: ``token_expired``, or ``invalid_token`` with the reason.
            TryAgainLater: ``auth_unavailable``: the public keys can't be fetched now.
        """
        header = _read_header(token)
        key = await self._key(header)
        accepted = self._accept(self._payload(token, header.alg, key))
        signer = "" if key is self._secret else key.thumbprint()
        principal = msgspec.structs.replace(accepted, credential=digest, signer=signer)
        until = self._clock() + CACHE_TTL
        self._cache[digest] = (until if principal.expires is None else min(principal.expires, until), principal)
        return principal

    def refresh(self) -> None:
        """Fetch old public keys again in the background, so that withdrawn ones are noticed."""
        if self._published is not None:
            self._published.refresh()

    async def close(self) -> None:
        """Cancel a fetch of public keys."""
        if self._published is not None:
            await self._published.close()

    def _withdrawn(self, signers: frozenset[str]) -> None:
        for digest, (_, principal) in tuple(self._cache.items()):
            if principal.signer in signers:
                self._cache.pop(digest, None)
        self.on_withdrawn(signers)

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
                warnings.simplefilter("ignore", SecurityWarning)  # for the name EdDSA, which issuers still use
                return jws.deserialize_compact(token, key, [algorithm], self._registry).payload
        except (JoseError, ValueError, TypeError) as error:
            raise _invalid("its signature is not good") from error

    def _accept(self, payload: bytes) -> Principal:
        try:
            _check_names(payload)
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
            plan=self._plans.of(claims.plan),
            expires=claims.exp + self._config.leeway,
        )


def _scopes(claims: Claims) -> tuple[Scope, ...]:
    """Return the known scopes among the claims; without any scope claim, those that a key has by default."""
    if claims.scope is None and claims.scopes is None:
        return DEFAULT_SCOPES
    named = {*(claims.scope or "").split(), *(claims.scopes or ())}
    return tuple(scope for scope in ALL_SCOPES if scope in named)


def _read_header(token: str) -> _Header:
    first = token.partition(".")[0]
    try:
        decoded = base64.b64decode(first + "=" * (-len(first) % 4), altchars=b"-_", validate=True)
        _check_names(decoded)
        header = _header_of(decoded)
    except (binascii.Error, msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _invalid("its header can't be read") from error
    if header.crit is not None:
        raise _invalid("it asks for an extension")
    return header


def _check_names(text: bytes) -> None:
    """Check that no object of a JSON text has a name twice: readers differ in which of the two counts.

    Raises:
        ValueError: one has, or the text is no JSON.
        RecursionError: it is nested too deeply.
    """
    json.loads(text, object_pairs_hook=_distinct)


def _distinct(pairs: list[tuple[str, object]]) -> None:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("it has a name twice")


def _invalid(reason: str) -> AccessDenied:
    return AccessDenied(f"The token is not valid: {reason}", code="invalid_token")


def open_token_verifier(config: TokenConfig) -> TokenVerifier | None:
    """Return the token verifier; None where no tokens are accepted.

    Raises:
        ConfigurationError: the secret can't be used as a key.
    """
    if not config.enabled:
        return None
    try:
        return TokenVerifier(config)
    except ValueError as error:
        raise ConfigurationError(f"JWT_SECRET: {error}") from None
