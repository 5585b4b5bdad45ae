"""The bytes of the bodies of running calls, which the tenants share."""

from actors.fair_shares import FairShares, Tenants
from protocol.errors import Overloaded
from service.context import CallContext


class BodyShares:
    """Counts the bytes of the bodies of running calls; the tenants share them.

    Args:
        bound: of all bodies together.
        tenants: share it.
    """

    def __init__(self, bound: int, tenants: Tenants) -> None:
        self._shares = FairShares(bound, tenants, rule="reserve")

    def take(self, call: CallContext, size: int) -> None:
        """Count bytes of a call's body until the call ends.

        Raises:
            Overloaded: the tenant has its share, and there is no room beyond.
        """
        if not self._shares.take(call.tenant, size):
            held = self._shares.held(call.tenant)
            raise Overloaded(f"bodies of {held} bytes are at work, which is the most at once", retry_after=1.0)
        call.body_bytes += size

    def give_back(self, call: CallContext) -> None:
        """Count the body of a call that has ended no longer."""
        size, call.body_bytes = call.body_bytes, 0
        self._shares.give_back(call.tenant, size)
