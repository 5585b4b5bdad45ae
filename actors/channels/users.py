"""Connected users, their sockets, and the presence that was set for them."""

import time
from collections.abc import Callable
from typing import Final

import msgspec

from actors.channels.overrides import PresenceOverride, PresenceOverrides, UserKey
from actors.fair_shares import Tenants
from protocol.hub import Socket
from protocol.users import SetPresence, UserStatus

GRACE: Final = 5.0  # seconds for which a disconnected user is still online, so that a page reload is not seen


class _User:
    """A user's sockets and leases; it is online while it has any."""

    __slots__ = ("leases", "left", "since", "sockets")

    def __init__(self, since: float) -> None:
        self.since = since
        self.sockets: dict[Socket, None] = {}
        self.leases = 0
        self.left = 0.0


class Users:
    """The online users of every tenant. A user without a name is not counted.

    ::

        absent --opened, leased--> online --last socket closed, last lease released--> leaving --GRACE--> absent
                                     ^-------------------opened, leased------------------+

    A leaving user still has the status online. A status that was set counts instead of all of this, until it ends.

    Args:
        tenants: share the bound on what is set; None for any tenants.
        clock: Unix time in seconds, for the times of ``UserStatus``. All ``now`` arguments are of the channels' clock.
    """

    def __init__(self, tenants: Tenants | None = None, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._users: dict[UserKey, _User] = {}
        self._owners: dict[Socket, UserKey] = {}
        self._leaving: dict[UserKey, None] = {}
        self._overrides = PresenceOverrides(tenants or Tenants())

    def __len__(self) -> int:
        return len(self._users) + len(self._overrides)

    def opened(self, socket: Socket, key: UserKey, now: float) -> None:
        """Record that ``socket`` is this user's, and no longer another's."""
        if self._owners.get(socket) != key:
            self.closed(socket, now)
            if key[1]:
                self._owners[socket] = key
                self._user(key, now).sockets[socket] = None

    def closed(self, socket: Socket, now: float) -> None:
        """Remove a socket."""
        key = self._owners.pop(socket, None)
        if key is not None:
            del self._users[key].sockets[socket]
            self._check(key, now)

    def leased(self, key: UserKey, now: float) -> None:
        """Count a lease without a socket that holds the user online."""
        if key[1]:
            self._user(key, now).leases += 1

    def released(self, key: UserKey, now: float) -> None:
        """Count such a lease off."""
        if key[1]:
            self._users[key].leases -= 1
            self._check(key, now)

    def all_sockets(self) -> tuple[Socket, ...]:
        """Return the sockets of all users."""
        return tuple(self._owners)

    def sockets(self, key: UserKey) -> tuple[Socket, ...]:
        """Return a user's sockets."""
        user = self._users.get(key)
        return () if user is None else tuple(user.sockets)

    def set_presence(self, message: SetPresence, now: float) -> None:
        """Set a user's status for a time, or end what was set before.

        Raises:
            Overloaded: the status of too many users is set.
        """
        key = (message.tenant, message.user)
        if not message.ttl:
            self._overrides.remove(key)
            return
        before, at = self.status(key, now), self._clock()
        since = before.since if before.status == message.status else at
        override = PresenceOverride(message.status, bytes(message.metadata), since, at + message.ttl, now + message.ttl)
        self._overrides.put(key, override, now)

    def status(self, key: UserKey, now: float) -> UserStatus:
        """Return a user's status: the one that was set, else the one of the sockets and leases."""
        connected = self._connected(key, now)
        override = self._overrides.find(key, now)
        if override is None:
            return connected
        return UserStatus(
            user=key[1],
            status=override.status,
            sockets=connected.sockets,
            since=override.since,
            metadata=msgspec.Raw(override.metadata),
            until=override.until,
        )

    def _connected(self, key: UserKey, now: float) -> UserStatus:
        user = self._users.get(key)
        if user is None or (key in self._leaving and now - user.left >= GRACE):
            return UserStatus(user=key[1], status="offline", sockets=0)
        return UserStatus(user=key[1], status="online", sockets=len(user.sockets), since=user.since)

    def sweep(self, now: float) -> None:
        """Remove the users that have been leaving for ``GRACE`` seconds, and the statuses that have ended."""
        self._overrides.sweep(now)
        self._forget_left(now)

    def _forget_left(self, now: float) -> None:
        while self._leaving:
            key = next(iter(self._leaving))
            if now - self._users[key].left < GRACE:
                return
            del self._leaving[key], self._users[key]

    def _user(self, key: UserKey, now: float) -> _User:
        self._forget_left(now)
        self._leaving.pop(key, None)
        user = self._users.get(key)
        if user is None:
            user = self._users[key] = _User(self._clock())
        return user

    def _check(self, key: UserKey, now: float) -> None:
        user = self._users[key]
        if not user.sockets and not user.leases:
            user.left = now
            self._leaving[key] = None
