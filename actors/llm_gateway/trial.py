"""A target, and what one request knows of it."""

from actors.llm_gateway.routing import Leg
from actors.llm_gateway.upstream import Health
from actors.runtime import Clock
from protocol.llm import ChatRequest
from protocol.tokens import estimate_tokens


class Size:
    """About how many tokens a call sends; they are counted when somebody asks for the first time.

    Args:
        request: what is sent.
    """

    __slots__ = ("_request", "_tokens")

    def __init__(self, request: ChatRequest) -> None:
        self.replace(request)

    def replace(self, request: ChatRequest) -> None:
        """From now on this is sent."""
        self._request = request
        self._tokens = 0

    def __call__(self) -> int:
        """Return how many."""
        self._tokens = self._tokens or estimate_tokens(self._request)
        return self._tokens


class Trial:
    """A target, and what one request knows of it.

    Args:
        leg: the target.
        clock: the time.
        size: of a call to it.

    Attributes:
        health: how it has done lately.
        calls: how often the request has asked it.
        due: when the request may ask it again.
    """

    __slots__ = ("_size", "calls", "due", "health", "leg")

    def __init__(self, leg: Leg, clock: Clock, size: Size) -> None:
        self._size = size
        self.leg = leg
        self.health: Health = leg.upstream.health(leg.model, clock)
        self.calls = 0
        self.due = 0.0

    @property
    def open(self) -> bool:
        """Whether its breaker lets a call through."""
        return self.health.breaker.wait == 0

    def rank(self, now: float) -> tuple[bool, bool, float, int, float]:
        """Return what sorts it among others: ready, not to be spared, room soonest, not yet asked, waiting least."""
        window = self.health.window
        limited = 0.0 if window.unlimited else window.wait_for(self._size())
        spared = limited > 0 or self.health.cools_until > now
        return self.due > now, spared, limited, self.calls, self.due

    def ready(self, now: float) -> bool:
        """Whether a call would be made at once, and is welcome."""
        return self.open and self.leg.upstream.lane.free and not any(self.rank(now)[:2])
