"""Tickets let somebody in once and within seconds, where no key can be sent: a web page puts no header on a socket."""

import secrets
import time
from collections.abc import Callable
from typing import Final

from protocol.errors import AccessDenied, Overloaded
from protocol.identity import Principal
from service.auth.keys import digest_of

TICKET_TTL: Final = 30.0  # seconds
MAX_TICKETS: Final = 10_000
TICKET_BYTES: Final = 32
TICKET_PREFIX: Final = "tk_"
LONGEST_TICKET: Final = 64  # characters; a longer one is refused without being hashed


class Tickets:
    """The tickets that nobody has used yet, bounded, each known by its digest only.

    Args:
        limit: how many there may be at once.
        clock: Unix seconds.
    """

    def __init__(self, *, limit: int = MAX_TICKETS, clock: Callable[[], float] = time.time) -> None:
        self._limit = limit
        self._clock = clock
        self._held: dict[bytes, tuple[float, Principal]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def issue(self, principal: Principal) -> tuple[str, float]:
        """Return a ticket for ``principal``, and when it ends in Unix seconds: no later than what it was had by.

        Raises:
            Overloaded: there are too many.
        """
        now = self._clock()
        self._forget(now)
        if len(self._held) >= self._limit:
            raise Overloaded("too many tickets are unused", retry_after=TICKET_TTL)
        ticket = TICKET_PREFIX + secrets.token_urlsafe(TICKET_BYTES)
        ends = now + TICKET_TTL if principal.expires is None else min(now + TICKET_TTL, principal.expires)
        self._held[digest_of(ticket)] = (ends, principal)
        return ticket, ends

    def redeem(self, ticket: str) -> Principal:
        """Return whose ticket it is, for the first and last time.

        Raises:
            AccessDenied: ``invalid_ticket``: it is not known, was used, or has ended.
        """
        if len(ticket) <= LONGEST_TICKET:
            ends, principal = self._held.pop(digest_of(ticket), (0.0, None))
            if principal is not None and self._clock() < ends:
                return principal
        raise AccessDenied(code="invalid_ticket")

    def withdraw(self, principal: Principal) -> None:
        """Let nobody in any more by what ``principal`` has had: the key behind it opens nothing now."""
        whose = (principal.tenant, principal.subject)
        for digest, (_, holder) in tuple(self._held.items()):
            if (holder.tenant, holder.subject) == whose:
                del self._held[digest]

    def _forget(self, now: float) -> None:
        """Drop those whose time is over: they were issued first, and none lasts longer than ``TICKET_TTL``."""
        while self._held:
            digest, (ends, _) = next(iter(self._held.items()))
            if now < ends:
                return
            del self._held[digest]
