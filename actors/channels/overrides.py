"""Presence that was set: it counts instead of a user's sockets and memberships, for a time."""

from typing import Final, NamedTuple

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
    """The statuses that were set, by user; each one ends by itself."""

    def __init__(self) -> None:
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
            Overloaded: the status of ``MAX_OVERRIDES`` other users is set.
        """
        if key not in self._overrides and len(self._overrides) >= MAX_OVERRIDES:
            self.sweep(now)
            if len(self._overrides) >= MAX_OVERRIDES:
                detail = f"the presence of {MAX_OVERRIDES} users is set, which is the most that is kept"
                raise Overloaded(detail, retry_after=1.0)
        self._overrides[key] = override

    def remove(self, key: UserKey) -> None:
        """Forget what was set for a user."""
        self._overrides.pop(key, None)

    def sweep(self, now: float) -> None:
        """Forget what has ended."""
        for key in [key for key, override in self._overrides.items() if override.expires <= now]:
            del self._overrides[key]
