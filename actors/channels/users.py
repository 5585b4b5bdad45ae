"""Which users are there, and over which sockets."""

import time
from collections.abc import Callable
from typing import Final

from protocol.channels import UserStatus
from protocol.hub import Socket

GRACE: Final = 5.0  # seconds for which a user that has gone is still online: a page that is loaded again is no news

Name = tuple[str, str]


class _User:
    """What holds a user online."""

    __slots__ = ("gone", "leases", "since", "sockets")

    def __init__(self, since: float) -> None:
        self.since = since
        self.sockets: dict[Socket, None] = {}
        self.leases = 0
        self.gone = 0.0


class Users:
    """The users of every tenant that are online, by tenant and name. Nameless ones are not counted.

    Args:
        clock: Unix time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._users: dict[Name, _User] = {}
        self._of: dict[Socket, Name] = {}
        self._gone: dict[Name, None] = {}

    def __len__(self) -> int:
        return len(self._users)

    def opened(self, socket: Socket, name: Name, now: float) -> None:
        """Let ``socket`` be this user's, whoever's it was before."""
        if self._of.get(socket) != name:
            self.closed(socket, now)
            if name[1]:
                self._of[socket] = name
                self._user(name, now).sockets[socket] = None

    def closed(self, socket: Socket, now: float) -> None:
        """Forget a socket."""
        name = self._of.pop(socket, None)
        if name is not None:
            del self._users[name].sockets[socket]
            self._look(name, now)

    def leased(self, name: Name, now: float) -> None:
        """Note that something else holds the user online."""
        if name[1]:
            self._user(name, now).leases += 1

    def released(self, name: Name, now: float) -> None:
        """Note that it does no more."""
        if name[1]:
            self._users[name].leases -= 1
            self._look(name, now)

    def everybody(self) -> tuple[Socket, ...]:
        """Return the sockets of all users."""
        return tuple(self._of)

    def sockets(self, name: Name) -> tuple[Socket, ...]:
        """Return a user's sockets."""
        user = self._users.get(name)
        return () if user is None else tuple(user.sockets)

    def status(self, name: Name, now: float) -> UserStatus:
        """Return whether a user is there."""
        user = self._users.get(name)
        if user is None or (name in self._gone and now - user.gone >= GRACE):
            return UserStatus(user=name[1], status="offline", sockets=0)
        return UserStatus(user=name[1], status="online", sockets=len(user.sockets), since=user.since)

    def sweep(self, now: float) -> None:
        """Forget who has been gone for long enough."""
        while self._gone:
            name = next(iter(self._gone))
            if now - self._users[name].gone < GRACE:
                return
            del self._gone[name], self._users[name]

    def _user(self, name: Name, now: float) -> _User:
        self.sweep(now)
        self._gone.pop(name, None)
        user = self._users.get(name)
        if user is None:
            user = self._users[name] = _User(self._clock())
        return user

    def _look(self, name: Name, now: float) -> None:
        user = self._users[name]
        if not user.sockets and not user.leases:
            user.gone = now
            self._gone[name] = None
