"""Tickets: one-time credentials of a few seconds, for web pages, which can't set a header on a WebSocket."""

import secrets
import time
from collections.abc import Callable, Collection
from typing import Final

import msgspec

from protocol.errors import AccessDenied, Overloaded
from protocol.identity import Principal
from service.auth.keys import digest_of

TICKET_TTL: Final = 30.0  # seconds
MAX_TICKETS: Final = 10_000
TICKET_BYTES: Final = 32
TICKET_PREFIX: Final = "tk_"
LONGEST_TICKET: Final = 64  # characters; a longer one is refused without being hashed


class Tickets:
    """The unused tickets, held as digests.

    Args:
        limit: the most unused tickets.
        clock: Unix seconds.
    """

    def __init__(self, *, limit: int = MAX_TICKETS, clock: Callable[[], float] = time.time) -> None:
        self._limit = limit
        self._clock = clock
        self._held: dict[bytes, tuple[float, Principal]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def issue(self, principal: Principal) -> tuple[str, float]:
        """Return a new ticket for ``principal``, and its expiry in Unix seconds: no later than the principal's own.

        Raises:
            Overloaded: too many tickets are unused.
        """
        now = self._clock()
        self._drop_expired(now)
        if len(self._held) >= self._limit:
            raise Overloaded("too many tickets are unused", retry_after=TICKET_TTL)
        ticket = TICKET_PREFIX + secrets.token_urlsafe(TICKET_BYTES)
        expires = now + TICKET_TTL if principal.expires is None else min(now + TICKET_TTL, principal.expires)
        digest = digest_of(ticket)
        if principal.expires is not None and not principal.credential:
            principal = msgspec.structs.replace(principal, credential=digest)  # so that it ends in time
        self._held[digest] = (expires, principal)
        return ticket, expires

    def redeem(self, ticket: str) -> Principal:
        """Return the holder of a ticket, which is used up by this.

        Raises:
            AccessDenied: ``invalid_ticket``: the ticket is unknown, used or expired.
        """
        if len(ticket) <= LONGEST_TICKET:
            expires, principal = self._held.pop(digest_of(ticket), (0.0, None))
            if principal is not None and self._clock() < expires:
                return principal
        raise AccessDenied(code="invalid_ticket")

    def withdraw(self, principal: Principal) -> None:
        """Invalidate the tickets that were issued for the credential of ``principal``."""
        credential = principal.credential
        self._drop(lambda holder: holder.credential == credential)

    def withdraw_signed(self, signers: Collection[str]) -> None:
        """Invalidate the tickets that were issued for tokens of these signers."""
        self._drop(lambda holder: holder.signer in signers)

    def _drop(self, lost: Callable[[Principal], bool]) -> None:
        for digest, (_, holder) in tuple(self._held.items()):
            if lost(holder):
                del self._held[digest]

    def _drop_expired(self, now: float) -> None:
        """Drop expired tickets, which are the oldest ones: none lasts longer than ``TICKET_TTL``."""
        while self._held:
            digest, (expires, _) = next(iter(self._held.items()))
            if now < expires:
                return
            del self._held[digest]
