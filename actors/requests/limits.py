"""How many requests are kept, how long, and how large: values and their defaults."""

import msgspec

from actors.log.event_log import RING_BYTES
from protocol.errors import FieldError, InvalidRequest
from protocol.requests import MIN_TTL_MS


class RequestLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a request router.

    Attributes:
        ttl: seconds for which an ended request is kept.
        max_requests: the most requests that are kept, running ones included.
        max_bytes: the most bytes that ended requests hold together, their input included.
        max_input_bytes: the most bytes that the input of running requests holds together.
        max_keys: the most idempotency keys that are remembered.
        key_ttl: seconds for which an idempotency key is remembered, from its submission.
        ring_bytes: each log's budget of unpacked entries, in bytes.
        abandon_grace: seconds without a follower before ``onAbandon: cancel`` takes effect.
    """

    ttl: float = 300.0
    max_requests: int = 20_000
    max_bytes: int = 512 * 1024 * 1024
    max_input_bytes: int = 256 * 1024 * 1024
    max_keys: int = 500_000
    key_ttl: float = 86_400.0
    ring_bytes: int = RING_BYTES
    abandon_grace: float = 10.0

    def check_ttl(self, ttl: float | None) -> None:
        """Check the ``ttl`` of a submission, in seconds; None is the limits' own.

        Raises:
            InvalidRequest: it is longer than the limits' own.
        """
        if ttl is not None and not 0 < ttl <= self.ttl:
            reason = f"must be within {MIN_TTL_MS}..{self.ttl * 1000:.0f}, for which this service keeps a request"
            raise InvalidRequest(f"`ttlMs` {reason}", errors=(FieldError("$.options.ttlMs", reason),))
