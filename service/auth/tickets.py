"""Tickets: one-time credentials of a few seconds, for web pages, which can't set a header on a WebSocket."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Final

import msgspec

from actors.fair_shares import FairShares, Tenants
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

    The tenants share the bound, as ``FairShares`` says. At the bound a tenant that is further above its floor than
    another one gets no ticket; a tenant that is not takes the place of the oldest ticket of the one that is.

    Args:
        limit: the most unused tickets.
        tenants: share the bound; None for any tenants.
        clock: Unix seconds.
    """

    def __init__(
        self, *, limit: int = MAX_TICKETS, tenants: Tenants | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._shares = FairShares(limit, tenants or Tenants())
        self._clock = clock
        self._held: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()
        self._of: dict[str, OrderedDict[bytes, None]] = {}  # the digests by tenant, the oldest first

    def __len__(self) -> int:
        return len(self._held)

    def issue(self, principal: Principal) -> tuple[str, float]:
        """Return a new ticket for ``principal``, and its expiry in Unix seconds: no later than the principal's own.

        Raises:
            Overloaded: too many tickets of the tenant are unused.
        """
        now, tenant = self._clock(), principal.tenant
        self._drop_expired(now)
        while not self._shares.take(tenant):
            victim = self._shares.furthest_above(tenant)
            if victim is None or victim == tenant:
                raise Overloaded("too many tickets are unused", retry_after=TICKET_TTL)
            self._drop(next(iter(self._of[victim])))
        ticket = TICKET_PREFIX + secrets.token_urlsafe(TICKET_BYTES)
        expires = now + TICKET_TTL if principal.expires is None else min(now + TICKET_TTL, principal.expires)
        digest = digest_of(ticket)
        if principal.expires is not None and not principal.credential:
            principal = msgspec.structs.replace(principal, credential=digest)  # so that it ends in time
        self._held[digest] = (expires, principal)
        self._of.setdefault(tenant, OrderedDict())[digest] = None
        return ticket, expires

    def redeem(self, ticket: str) -> Principal:
        """Return the holder of a ticket, which is used up by this.

        Raises:
            AccessDenied: ``invalid_ticket``: the ticket is unknown, used or expired.
        """
        if len(ticket) <= LONGEST_TICKET:
            digest = digest_of(ticket)
            expires, principal = self._held.get(digest, (0.0, None))
            if principal is not None:
                self._drop(digest)
                if self._clock() < expires:
                    return principal
        raise AccessDenied(code="invalid_ticket")

    def withdraw(self, principal: Principal) -> None:
        """Invalidate the tickets that were issued for the credential of ``principal``."""
        credential = principal.credential
        self._withdraw(lambda holder: holder.credential == credential)

    def withdraw_signed(self, signers: Collection[str]) -> None:
        """Invalidate the tickets that were issued for tokens of these signers."""
        self._withdraw(lambda holder: holder.signer in signers)

    def _withdraw(self, lost: Callable[[Principal], bool]) -> None:
        for digest, (_, holder) in tuple(self._held.items()):
            if lost(holder):
                self._drop(digest)

    def _drop_expired(self, now: float) -> None:
        """Drop expired tickets, which are the oldest ones: none lasts longer than ``TICKET_TTL``."""
        while self._held:
            digest, (expires, _) = next(iter(self._held.items()))
            if now < expires:
                return
            self._drop(digest)

    def _drop(self, digest: bytes) -> None:
        _, holder = self._held.pop(digest)
        self._shares.give_back(holder.tenant)
        mine = self._of[holder.tenant]
        del mine[digest]
        if not mine:
            del self._of[holder.tenant]
