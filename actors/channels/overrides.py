"""Presence that was set: it counts instead of a user's sockets and memberships, for a time."""

from typing import Final, NamedTuple

from actors.fair_shares import FairShares, Tenants
from protocol.errors import Overloaded
from protocol.users import Online

MAX_OVERRIDES: Final = 10_000  # users of all tenants; each has up to 1 KiB of metadata

UserKey = tuple[str, str]  # tenant and user


class PresenceOverride(NamedTuple):
    """A status that was set.

    Attributes:
        status: the status.
        metadata: JSON.
        since: when the status began, in Unix seconds; None where it is unknown.
        until: when it ends, in Unix seconds.
        expires: the same as a time of the channels' clock.
    """

    status: Online
    metadata: bytes
    since: float | None
    until: float
    expires: float


class PresenceOverrides:
    """The statuses that were set, by user; each one ends by itself.

    Args:
        tenants: share the bound; a tenant that sets more than its floor leaves free what others have left of theirs.
    """

    def __init__(self, tenants: Tenants) -> None:
        self._shares = FairShares(MAX_OVERRIDES, tenants, rule="reserve")
        self._overrides: dict[UserKey, PresenceOverride] = {}

    def __len__(self) -> int:
        return len(self._overrides)

    def find(self, key: UserKey, now: float) -> PresenceOverride | None:
        """Return what was set for a user; None where nothing was, or it has ended."""
        override = self._overrides.get(key)
        return None if override is None or override.expires <= now else override

    def put(self, key: UserKey, override: PresenceOverride, now: float) -> None:
        """Set a user's status.

        Raises:
            Overloaded: the status of too many other users of the tenant is set.
        """
        if key not in self._overrides and not self._shares.take(key[0]):
            self.sweep(now)
            if not self._shares.take(key[0]):
                detail = f"the presence of {self._shares.held(key[0])} users is set, which is the most that is kept"
                raise Overloaded(detail, retry_after=1.0)
        self._overrides[key] = override

    def remove(self, key: UserKey) -> None:
        """Forget what was set for a user."""
        if self._overrides.pop(key, None) is not None:
            self._shares.give_back(key[0])

    def sweep(self, now: float) -> None:
        """Forget what has ended."""
        for key in [key for key, override in self._overrides.items() if override.expires <= now]:
            self.remove(key)
