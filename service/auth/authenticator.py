"""Authenticator: finds the caller of an API key, a signed token or a ticket."""

import asyncio
from typing import Final

import msgspec
import structlog
from aiohttp import web

from protocol.errors import AccessDenied, TidegateError, TryAgainLater
from protocol.identity import ANONYMOUS, Principal
from service.auth.grants import Grants
from service.auth.keys import KeyStore
from service.auth.tickets import Tickets
from service.auth.token_config import TokenPlans
from service.auth.tokens import TokenVerifier

LONGEST_CREDENTIAL: Final = 8192  # characters; a longer one is refused without being hashed
TOKEN_DOTS: Final = 2
FIND_TIMEOUT: Final = 5.0  # seconds
RETRY_AFTER: Final = 1.0  # seconds

_log = structlog.get_logger("service")


class Authenticator:
    """Authenticates callers. Where neither keys nor tokens are configured, every caller is ``ANONYMOUS``.

    Args:
        keys: the API keys.
        tokens: verifies signed tokens; None where none are accepted.
        tickets: the unused tickets; None for a new store.
        grants: what is open by each credential; None for a new table.

    Attributes:
        grants: what is open by each credential: calls and sockets enter it with the caller that was found here.
    """

    __slots__ = ("_keys", "_tickets", "_tokens", "grants")

    def __init__(
        self,
        keys: KeyStore,
        tokens: TokenVerifier | None = None,
        tickets: Tickets | None = None,
        grants: Grants | None = None,
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._tickets = Tickets() if tickets is None else tickets
        self.grants = Grants() if grants is None else grants
        if tokens is not None:
            tokens.on_withdrawn = self._signers_withdrawn

    @property
    def required(self) -> bool:
        """Whether callers need a credential."""
        return self._tokens is not None or self._keys.required

    async def authenticate(self, credential: str) -> Principal:
        """Return the caller of a key or token. A recently verified one needs no waiting.

        Raises:
            AccessDenied: ``unauthenticated``, ``invalid_token`` or ``token_expired``.
            TryAgainLater: ``auth_unavailable``: it can't be verified now.
        """
        if not self.required:
            return ANONYMOUS
        if not 0 < len(credential) <= LONGEST_CREDENTIAL:
            raise AccessDenied("No key was sent" if not credential else "This key is not known")
        principal = self.known(credential)
        if principal is not None:
            return principal
        digest = self._keys.digest(credential)
        if self._tokens is None or credential.count(".") != TOKEN_DOTS:
            return await self._find(digest)
        return await self._tokens.verify(credential, digest)

    def known(self, credential: str) -> Principal | None:
        """Return the caller of a key or of a recently verified token; None where that takes waiting."""
        if len(credential) > LONGEST_CREDENTIAL:
            return None
        digest = self._keys.digest(credential)
        principal = self._keys.known(digest)
        return principal if principal is not None or self._tokens is None else self._tokens.known(digest)

    def issue_ticket(self, principal: Principal) -> tuple[str, float]:
        """Return a new ticket for ``principal``, and its expiry in Unix seconds.

        Raises:
            Overloaded: too many tickets are unused.
        """
        return self._tickets.issue(principal)

    def authenticate_ticket(self, ticket: str) -> Principal:
        """Return the caller of a ticket, which is used up by this.

        Raises:
            AccessDenied: ``invalid_ticket``: the ticket is unknown, used or expired.
        """
        return self._tickets.redeem(ticket)

    def revoke(self, principal: Principal) -> int:
        """End all that is open by the key of ``principal``, and invalidate its tickets; return how much was open."""
        self._tickets.withdraw(principal)
        return self.grants.end(principal.credential)

    def change(self, principal: Principal) -> int:
        """Let all that is open by a key have the rights of ``principal``, and no others; return how much that is.

        The key's tickets are invalid: they have the rights of before.
        """
        self._tickets.withdraw(principal)
        return self.grants.change(principal)

    def refresh(self) -> None:
        """Fetch in the background what tells that a token is not valid any more, where it is old."""
        if self._tokens is not None:
            self._tokens.refresh()

    def set_plans(self, plans: TokenPlans) -> None:
        """Limit the holders of tokens by ``plans`` from now on."""
        if self._tokens is not None:
            self._tokens.set_plans(plans)

    async def close(self) -> None:
        """Cancel a fetch of public keys, and the timer of the tokens' expiries."""
        self.grants.close()
        if self._tokens is not None:
            await self._tokens.close()

    def _signers_withdrawn(self, signers: frozenset[str]) -> None:
        self._tickets.withdraw_signed(signers)
        self.grants.end_signed(signers)

    async def _find(self, digest: bytes) -> Principal:
        try:
            async with asyncio.timeout(FIND_TIMEOUT):
                principal = await self._look_up(digest)
        except TidegateError:
            raise
        except Exception as error:
            _log.exception("auth_unavailable")
            raise TryAgainLater(code="auth_unavailable", retry_after=RETRY_AFTER) from error
        if principal is None:
            raise AccessDenied("This key is not known")
        return principal

    async def _look_up(self, digest: bytes) -> Principal | None:
        """Look a key up; again where rights have changed meanwhile, so that what is returned is in force."""
        while True:
            revision = self.grants.revision
            principal = await self._keys.find(digest)
            if revision == self.grants.revision:
                break
        if principal is None or principal.credential:
            return principal
        return msgspec.structs.replace(principal, credential=digest)


def credential(request: web.BaseRequest) -> str:
    """Return the credential of ``Authorization: Bearer`` or ``x-api-key``; empty for none."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key:
        return key.strip()
    return request.headers.get("x-api-key", "").strip()
