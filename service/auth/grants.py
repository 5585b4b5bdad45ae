"""Grants: what is open by each key and each token, so that it ends with them."""

import asyncio
import heapq
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from typing import Final, Protocol

import structlog

from protocol.errors import AccessDenied
from protocol.identity import Principal

BATCH: Final = 256  # holders that are told in one turn of the loop
LOOK: Final = 30.0  # seconds after which the clock is read again, however far the next expiry: it may be set
SLACK: Final = 64  # expiries of tokens by which nothing is open; with more of them the heap is made anew
REVOKED: Final = "key_revoked"
EXPIRED: Final = "token_expired"

_log = structlog.get_logger("service")


class Holder(Protocol):
    """Something that is open by a credential: a call that is being answered, or a socket."""

    @property
    def principal(self) -> Principal:
        """The caller, with its rights of now."""

    def rights_ended(self, error: AccessDenied) -> None:
        """End at once, for this reason. Never waits."""

    def rights_changed(self, principal: Principal) -> None:
        """Go on with the rights of ``principal``, or end what they do not cover. Never waits."""


class Grants:
    """The open holders of each credential.

    Only what is open is held, so the table has the bounds of calls and sockets. A revocation costs one step for each
    holder of the credential, in batches between which the loop does other work. All tokens share one timer.

    ::

        absent --enter--> held --change--> held
                           +---leave, end, the token's expiry--> absent

    Args:
        clock: Unix seconds.

    Attributes:
        revision: changes with every revocation and every change of rights. Whoever looks a caller up, and waits for
            that, looks again where it has changed.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.revision = 0
        self._clock = clock
        self._open: dict[bytes, dict[Holder, None]] = {}
        self._expiries: list[tuple[float, bytes]] = []  # a heap
        self._expiring: set[bytes] = set()  # the credentials in the heap
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: deque[tuple[bytes, Holder, AccessDenied | Principal]] = deque()

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    def enter(self, principal: Principal, holder: Holder) -> None:
        """Record that ``holder`` is open by the credential of ``principal``; one without a credential is not held."""
        credential = principal.credential
        held = self._open.get(credential)
        if held is not None:
            held[holder] = None
        elif credential:
            self._open[credential] = {holder: None}
        if principal.expires is not None and credential not in self._expiring:
            self._expect(principal.expires, credential)

    def leave(self, principal: Principal, holder: Holder) -> None:
        """Record that ``holder`` is closed, or open by another credential. An unknown one is ignored."""
        held = self._open.get(principal.credential)
        if held is not None and held.pop(holder, holder) is None and not held:
            del self._open[principal.credential]

    def end(self, credential: bytes, code: str = REVOKED) -> int:
        """End all that is open by a credential; return how much that is."""
        self.revision += 1
        held = self._open.pop(credential, {})
        error = AccessDenied(code=code)
        self._tell((credential, holder, error) for holder in held)
        return len(held)

    def end_signed(self, signers: Collection[str]) -> int:
        """End all that is open by tokens of these signers; return how much that is."""
        self.revision += 1
        lost = [credential for credential, held in self._open.items() if next(iter(held)).principal.signer in signers]
        return sum(map(self.end, lost))

    def change(self, principal: Principal) -> int:
        """Give all that is open by the credential of ``principal`` its rights; return how much that is."""
        self.revision += 1
        held = self._open.get(principal.credential, {})
        self._tell((principal.credential, holder, principal) for holder in held)
        return len(held)

    def expire(self) -> None:
        """End what is open by tokens that have expired; the timer's call."""
        now, heap = self._clock(), self._expiries
        while heap and heap[0][0] <= now:
            _, credential = heapq.heappop(heap)
            self._expiring.discard(credential)
            self.end(credential, EXPIRED)
        self._set_timer()

    def close(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expect(self, expires: float, credential: bytes) -> None:
        if not credential:
            return
        if len(self._expiries) > 2 * len(self._open) + SLACK:
            self._expiries = [due for due in self._expiries if due[1] in self._open]
            heapq.heapify(self._expiries)
            self._expiring = {due[1] for due in self._expiries}
        heapq.heappush(self._expiries, (expires, credential))
        self._expiring.add(credential)
        if self._expiries[0][1] == credential:
            self._set_timer()

    def _set_timer(self) -> None:
        self.close()
        if self._expiries:
            wait = max(0.0, self._expiries[0][0] - self._clock())
            self._timer = asyncio.get_running_loop().call_later(min(wait, LOOK), self.expire)

    def _tell(self, news: Iterable[tuple[bytes, Holder, AccessDenied | Principal]]) -> None:
        idle = not self._waiting
        self._waiting.extend(news)
        if idle and self._waiting:
            self._next_batch()

    def _next_batch(self) -> None:
        for _ in range(min(BATCH, len(self._waiting))):
            credential, holder, news = self._waiting.popleft()
            if holder.principal.credential == credential:
                _tell_one(holder, news)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next_batch)


def _tell_one(holder: Holder, news: AccessDenied | Principal) -> None:
    """Tell a holder. One that fails is logged, and does not keep the others open."""
    try:
        if isinstance(news, Principal):
            holder.rights_changed(news)
        else:
            holder.rights_ended(news)
    except Exception:  # noqa: BLE001 - a bug of one of them must not keep the others open
        _log.exception("rights_not_ended", holder=type(holder).__name__)
