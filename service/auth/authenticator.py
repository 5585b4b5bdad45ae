"""Who calls: by a key, by a signed token, or by a ticket."""

import asyncio
from typing import Final

import structlog
from aiohttp import web

from protocol.errors import AccessDenied, TidegateError, TryAgainLater
from protocol.identity import ANONYMOUS, Principal
from service.auth.keys import Keys
from service.auth.tickets import Tickets
from service.auth.tokens import Tokens

LONGEST_CREDENTIAL: Final = 8192  # characters; a longer one is refused without being hashed
TOKEN_DOTS: Final = 2
FIND_TIMEOUT: Final = 5.0  # seconds
RETRY_AFTER: Final = 1.0  # seconds

_log = structlog.get_logger("service")


class Authenticator:
    """Finds out who somebody is by what they bring. Where neither keys nor tokens are configured, it is anybody.

    Args:
        keys: whose keys there are.
        tokens: verifies tokens; None where there are none.
        tickets: those that nobody has used yet.
    """

    __slots__ = ("_keys", "_tickets", "_tokens")

    def __init__(self, keys: Keys, tokens: Tokens | None = None, tickets: Tickets | None = None) -> None:
        self._keys = keys
        self._tokens = tokens
        self._tickets = Tickets() if tickets is None else tickets

    @property
    def required(self) -> bool:
        """Whether callers have to show who they are at all."""
        return self._tokens is not None or self._keys.required

    async def authenticate(self, credential: str) -> Principal:
        """Return whose key or token this is. One that was seen of late is known without waiting.

        Raises:
            AccessDenied: ``unauthenticated``, ``invalid_token`` or ``token_expired``.
            TryAgainLater: ``auth_unavailable``: there is no knowing now.
        """
        if not self.required:
            return ANONYMOUS
        if not 0 < len(credential) <= LONGEST_CREDENTIAL:
            raise AccessDenied
        principal = self.known(credential)
        if principal is not None:
            return principal
        digest = self._keys.digest(credential)
        if self._tokens is None or credential.count(".") != TOKEN_DOTS:
            return await self._find(digest)
        return await self._tokens.verify(credential, digest)

    def known(self, credential: str) -> Principal | None:
        """Return whose key this is, or whose token that was seen of late; None where there is no knowing at once."""
        if len(credential) > LONGEST_CREDENTIAL:
            return None
        digest = self._keys.digest(credential)
        principal = self._keys.known(digest)
        return principal if principal is not None or self._tokens is None else self._tokens.known(digest)

    def issue_ticket(self, principal: Principal) -> tuple[str, float]:
        """Return a ticket for ``principal``, and when it ends in Unix seconds.

        Raises:
            Overloaded: too many are unused.
        """
        return self._tickets.issue(principal)

    def authenticate_ticket(self, ticket: str) -> Principal:
        """Return whose ticket it is, for the first and last time.

        Raises:
            AccessDenied: ``invalid_ticket``: it is not known, was used, or has ended.
        """
        return self._tickets.redeem(ticket)

    def withdraw(self, principal: Principal) -> None:
        """Let the tickets of ``principal`` open nothing: the key that they were had by does not either, any more."""
        self._tickets.withdraw(principal)

    async def close(self) -> None:
        """Give up what is under way."""
        if self._tokens is not None:
            await self._tokens.close()

    async def _find(self, digest: bytes) -> Principal:
        try:
            async with asyncio.timeout(FIND_TIMEOUT):
                principal = await self._keys.find(digest)
        except TidegateError:
            raise
        except Exception as error:
            _log.exception("auth_unavailable")
            raise TryAgainLater(code="auth_unavailable", retry_after=RETRY_AFTER) from error
        if principal is None:
            raise AccessDenied
        return principal


def credential(request: web.BaseRequest) -> str:
    """Return what a request brings by ``Authorization: Bearer`` or ``x-api-key``; empty for nothing."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and key:
        return key.strip()
    return request.headers.get("x-api-key", "").strip()
