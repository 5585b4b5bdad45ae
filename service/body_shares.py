"""The bytes of the bodies of running calls, which the tenants share."""

from typing import Protocol

from actors.fair_shares import FairShares, Tenants
from protocol.errors import Overloaded


class BodyHolder(Protocol):
    """A call that has a body.

    Attributes:
        tenant: whose call it is.
        body_bytes: of its body that are counted.
    """

    body_bytes: int

    @property
    def tenant(self) -> str: ...  # noqa: D102 - the attribute is above


class BodyShares:
    """Counts the bytes of the bodies of running calls; the tenants share them.

    Args:
        bound: of all bodies together.
        tenants: share it.
    """

    def __init__(self, bound: int, tenants: Tenants) -> None:
        self._shares = FairShares(bound, tenants, rule="reserve")

    def take(self, call: BodyHolder, size: int) -> None:
        """Count bytes of a call's body until the call ends.

        Raises:
            Overloaded: the tenant has its share, and there is no room beyond.
        """
        if not self._shares.take(call.tenant, size):
            held = self._shares.held(call.tenant)
            raise Overloaded(f"bodies of {held} bytes are at work, which is the most at once", retry_after=1.0)
        call.body_bytes += size

    def give_back(self, call: BodyHolder) -> None:
        """Count the body of a call that has ended no longer."""
        size, call.body_bytes = call.body_bytes, 0
        self._shares.give_back(call.tenant, size)
