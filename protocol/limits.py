"""Rate limits: plans, and the port that counts. ``actors.rate_limiter`` is the in-process adapter.

A plan has limits; each limits the calls to some endpoints. A call takes from all of its quotas, or from none.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal, Protocol

import msgspec

Per = Literal["second", "minute", "hour", "day"]
Unit = Literal["requests", "tokens", "calls"]
Owner = tuple[str, str]
"""Who is counted: a tenant, and the caller within it."""

SECONDS: Final[Mapping[Per, int]] = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400}
GENERAL: Final = "general"
MAX_LIMITS: Final = 16  # of a plan, and as many again of a key
MAX_AMOUNT: Final = 10**12
MAX_CACHED: Final = 256  # endpoints whose quotas a plan remembers
ENDPOINT_PATTERN: Final = r"^[!#-\[\]-~]{1,128}$"
LEASE: Final = 3660.0  # seconds after which a call counts as ended, whatever has become of it

_Amount = Annotated[int, msgspec.Meta(ge=1, le=MAX_AMOUNT)]
_Endpoint = Annotated[str, msgspec.Meta(pattern=ENDPOINT_PATTERN)]


class Limit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A limit for some endpoints.

    Attributes:
        endpoint: the endpoints' name, a pattern of names (``*`` for any characters), or a pattern of paths, which
            begins with ``/``. ``general`` is each call that no other limit of the same plan names, except by ``*``.
        per: the window of ``requests`` and ``tokens``.
        requests: the most calls in a window; None for no limit.
        tokens: the most tokens in a window, of input and output together; None for no limit.
        calls: the most calls at once; None for no limit.

    Raises:
        ValueError: it limits nothing.
    """

    endpoint: _Endpoint = GENERAL
    per: Per = "minute"
    requests: _Amount | None = None
    tokens: _Amount | None = None
    calls: _Amount | None = None

    def __post_init__(self) -> None:
        if self.requests is None and self.tokens is None and self.calls is None:
            raise ValueError("it needs `requests`, `tokens` or `calls`")

    def applies(self, endpoint: str, path: str) -> bool:
        """Whether it limits the calls to ``endpoint``, at the route ``path``."""
        return fnmatchcase(path if self.endpoint.startswith("/") else endpoint, self.endpoint)


Limits = Annotated[tuple[Limit, ...], msgspec.Meta(max_length=MAX_LIMITS)]


class Plan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What callers may do in a time.

    Attributes:
        limits: all of them hold; none for an unlimited plan.
        shadow: whether calls are counted, and none is refused.
    """

    limits: Limits = ()
    shadow: bool = False


def _shipped(chat: int, uploads: int, quizzes: int, general: int) -> Plan:
    return Plan(
        limits=(
            Limit(endpoint="chat", requests=chat),
            Limit(endpoint="video.upload", requests=uploads, per="hour"),
            Limit(endpoint="quiz", requests=quizzes, per="hour"),
            Limit(endpoint=GENERAL, requests=general),
        )
    )


PLANS: Final[Mapping[str, Plan]] = {
    "basic": _shipped(10, 5, 3, 100),
    "pro": _shipped(50, 20, 15, 500),
    "enterprise": Plan(),
}
"""The plans that exist without a table of their own."""


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """One number of a limit, as it is counted.

    Attributes:
        key: the counter's name among those of an owner.
        endpoint: of the limit.
        per: of the limit.
        unit: what is counted.
        limit: the most in a window, or at once.
        window: its length in seconds; 0 for calls at once.
        name: of the policy in the header ``RateLimit``, quoted.
        policy: the policy in the header ``RateLimit-Policy``.
        text: the limit as a text.
    """

    key: str
    endpoint: str
    per: Per
    unit: Unit
    limit: int
    window: int
    name: str
    policy: str
    text: str

    def __str__(self) -> str:
        if self.unit == "calls":
            return f"{self.limit:,} calls at once to `{self.endpoint}`"
        return f"{self.limit:,} {self.unit} a {self.per} to `{self.endpoint}`"


class CallerPlan:
    """The limits of a caller: those of its plan, and those by which its key narrows the plan.

    Args:
        plan: the plan.
        own: the key's own limits; they hold beside the plan's.

    Attributes:
        shadow: whether calls are counted, and none is refused.
    """

    __slots__ = ("_layers", "_quotas", "shadow")

    def __init__(self, plan: Plan, own: tuple[Limit, ...] = ()) -> None:
        self.shadow = plan.shadow
        self._layers = (plan.limits, own)
        self._quotas: dict[tuple[str, str], tuple[Quota, ...]] = {}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CallerPlan):
            return NotImplemented
        return self._layers == other._layers and self.shadow == other.shadow

    def __hash__(self) -> int:
        return hash((self._layers, self.shadow))

    def quotas(self, endpoint: str, path: str = "") -> tuple[Quota, ...]:
        """Return the quotas of a call to ``endpoint``, at the route ``path``."""
        found = self._quotas.get((endpoint, path))
        if found is None:
            if len(self._quotas) >= MAX_CACHED:
                self._quotas.clear()
            found = self._quotas[endpoint, path] = _merged(
                limit for limits in self._layers for limit in _applicable(limits, endpoint, path)
            )
        return found


def caller_plan(plan: Plan | None, own: tuple[Limit, ...] = ()) -> CallerPlan | None:
    """Return the limits of a caller; None where nothing is limited."""
    plan = plan or Plan()
    return CallerPlan(plan, own) if plan.limits or own else None


class QuotaStanding(msgspec.Struct, frozen=True):
    """A quota, and what is left of it.

    Attributes:
        quota: the quota.
        remaining: what is left now.
        reset: seconds until all of it is there again, where nothing is used meanwhile; 0 for calls at once.
    """

    quota: Quota
    remaining: int
    reset: float


class LimitHold(Protocol):
    """What a call has taken. Whoever has it settles it when the call has ended, however it has ended.

    Neither method waits or fails: an adapter whose counters are elsewhere sends the change later.
    """

    def count(self, tokens: int) -> None:
        """Count ``tokens`` in place of the estimate, or of an earlier count; a negative number is 0."""

    def release(self) -> None:
        """End the lease of the call; a second time does nothing."""

    def undo(self) -> None:
        """Give back all that was taken: the service has not served the call."""


class LimitDecision(msgspec.Struct, frozen=True):
    """The decision on a call.

    Attributes:
        standings: of the call's quotas, in their order, after the decision; none for an unlimited call.
        refused: the quota that has no room for the longest time; None where the call may go on.
        retry_after: seconds until all quotas have room, as far as that is known.
        hold: what was taken; None for nothing.
    """

    standings: tuple[QuotaStanding, ...] = ()
    refused: Quota | None = None
    retry_after: float = 0.0
    hold: LimitHold | None = None


UNLIMITED: Final = LimitDecision()


class RateLimiter(Protocol):
    """Counts calls, tokens, and calls at once, in windows that are the same for all nodes.

    A window's count is weighed by time: in the present window all of it counts, and of the window before it the share
    that a window which ends now would still cover. Any exception means that the counters can't be reached.
    """

    async def take(
        self, owner: Owner, quotas: Sequence[Quota], *, requests: int = 1, tokens: int = 0, lease: float = LEASE
    ) -> LimitDecision:
        """Take from every quota or from none, in one step.

        Args:
            owner: whose counters.
            quotas: the call's, as ``CallerPlan.quotas`` returns them.
            requests: 1, or 0 for a call that counts nothing: it is never refused.
            tokens: the estimate.
            lease: seconds after which a place among the calls at once is free again by itself.
        """

    def known(self, owner: Owner, quotas: Sequence[Quota]) -> LimitDecision:
        """Return the refusal of one more request, where it is known without waiting; else ``UNLIMITED``.

        Takes nothing. It saves reading the call of an owner that was refused just before.
        """

    async def reset(self, owner: Owner) -> bool:
        """Forget what was counted for an owner, calls at once included; returns whether there was anything."""


def _applicable(limits: tuple[Limit, ...], endpoint: str, path: str) -> list[Limit]:
    found = [limit for limit in limits if limit.endpoint != GENERAL and limit.applies(endpoint, path)]
    if all(limit.endpoint == "*" for limit in found):
        found += [limit for limit in limits if limit.endpoint == GENERAL]
    return found


def _merged(limits: Iterable[Limit]) -> tuple[Quota, ...]:
    """Return the quotas of limits; of several for the same counter the smallest holds."""
    quotas: dict[str, Quota] = {}
    for limit in limits:
        for quota in _quotas_of(limit):
            known = quotas.get(quota.key)
            if known is None or quota.limit < known.limit:
                quotas[quota.key] = quota
    return tuple(quotas.values())


def _quotas_of(limit: Limit) -> list[Quota]:
    amounts: tuple[tuple[Unit, int | None], ...] = (
        ("requests", limit.requests),
        ("tokens", limit.tokens),
        ("calls", limit.calls),
    )
    return [_quota(limit, unit, amount) for unit, amount in amounts if amount is not None]


def _quota(limit: Limit, unit: Unit, amount: int) -> Quota:
    if unit == "calls":
        window, key, more = 0, f"{limit.endpoint} calls", ';qu="concurrent-requests"'
    else:
        window, key = SECONDS[limit.per], f"{limit.endpoint} {unit}/{limit.per}"
        more = f";w={window}" + (';qu="tokens"' if unit == "tokens" else "")
    return Quota(
        key=key,
        endpoint=limit.endpoint,
        per=limit.per,
        unit=unit,
        limit=amount,
        window=window,
        name=f'"{key}"',
        policy=f'"{key}";q={amount}{more}',
        text=str(amount),
    )
