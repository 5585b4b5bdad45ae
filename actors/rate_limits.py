"""Rate limits of callers, as a service or a program enforces them.

::

    limits = RateLimits(MemoryRateLimiter())
    caller = Principal(tenant="acme", subject="ann", plan=caller_plan(PLANS["basic"]))
    hold = await limits.enforce(caller, "chat")       # raises RateLimited
"""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import msgspec

from actors.tenant_table import TenantTable
from protocol.errors import InvalidRequest, RateLimited, TryAgainLater
from protocol.limits import GENERAL, LEASE, UNLIMITED, CallerPlan, LimitDecision, LimitHold, Owner, Quota, RateLimiter
from protocol.log_fields import OutsideTexts

LOGGER: Final = "tidegate.limits"
MAX_VIOLATIONS: Final = 1000  # rows
MAX_REFUSED: Final = 1000  # callers that are refused before their call is read
LOG_INTERVAL: Final = 60.0  # seconds between two lines of one row, and between two of a failing engine
RETRY_UNAVAILABLE: Final = 1.0  # seconds

OUTSIDE: Final = OutsideTexts(("tenant", "user"))

_log = logging.getLogger(LOGGER)
_log.addHandler(logging.NullHandler())  # a program that has set up no logging gets no lines on its stderr


class LimitedCaller(Protocol):
    """Who is limited: a ``Principal``, or a program's own."""

    @property
    def tenant(self) -> str:
        """The tenant."""

    @property
    def subject(self) -> str:
        """The caller within the tenant."""

    @property
    def plan(self) -> CallerPlan | None:
        """The limits; None for none."""


class Violation(msgspec.Struct, kw_only=True, rename="camel"):
    """The refusals of one caller by one quota.

    Attributes:
        user: the caller within the tenant.
        endpoint: the endpoint, or the pattern of endpoints, that the quota limits.
        unit: ``requests``, ``tokens`` or ``calls``.
        per: the window.
        limit: the most in a window, or at once.
        shadow: whether the calls were let through, because the plan only counts.
        count: the number of refusals.
        first: when the first one was, in Unix seconds.
        last: when the last one was.
    """

    user: str
    endpoint: str
    unit: str
    per: str
    limit: int
    shadow: bool
    count: int = 0
    first: float = 0.0
    last: float = 0.0


class _Row(msgspec.Struct):
    violation: Violation
    logged: float = float("-inf")
    said: int = 0


class ViolationLog:
    """The refusals, a row for each caller and quota.

    Where there is no room for another row, an old one is dropped, as ``TenantTable`` says.

    Args:
        now: the time, in Unix seconds.
        most: the most rows.
    """

    def __init__(self, now: Callable[[], float] = time.time, *, most: int = MAX_VIOLATIONS) -> None:
        self._now = now
        self._rows: TenantTable[_Row] = TenantTable(most)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, owner: Owner, quota: Quota, *, shadow: bool) -> None:
        """Count a refusal, and log it unless the row was logged within ``LOG_INTERVAL``."""
        tenant, now = owner[0], self._now()
        name = f"{owner[1]} {quota.key}"
        row = self._rows.get(tenant, name)
        if row is None:
            violation = Violation(
                user=owner[1],
                endpoint=quota.endpoint,
                unit=quota.unit,
                per=quota.per,
                limit=quota.limit,
                shadow=shadow,
                first=now,
            )
            row = self._rows.add(tenant, name, _Row(violation), lambda _: False)
        violation = row.violation
        violation.count += 1
        violation.last, violation.limit, violation.shadow = now, quota.limit, shadow
        if now - row.logged >= LOG_INTERVAL:
            _write(owner, violation, violation.count - row.said)
            row.logged, row.said = now, violation.count

    def of(self, tenant: str) -> Iterator[Violation]:
        """Return the rows of a tenant, the latest first."""
        return (row.violation for row in self._rows.latest(tenant))


class RateLimits:
    """Decides whether a caller may go on, by its plan.

    Args:
        limiter: counts.
        open_on_failure: whether calls go on, uncounted, where the counters can't be reached.
        violations: records refusals; None for a new log.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        limiter: RateLimiter,
        *,
        open_on_failure: bool = True,
        violations: ViolationLog | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limiter = limiter
        self._open = open_on_failure
        self._clock = clock
        self._said = float("-inf")
        self._refused: set[Owner] = set()  # callers whose last call was refused
        self.violations = ViolationLog() if violations is None else violations

    async def enforce(
        self, caller: LimitedCaller, endpoint: str = GENERAL, *, path: str = "", tokens: int = 0, lease: float = LEASE
    ) -> LimitHold | None:
        """Take a call from the caller's limits. The hold has to be settled when the call has ended.

        Args:
            caller: who calls.
            endpoint: the name of what is called.
            path: its route, for limits by path.
            tokens: how many the call is expected to use at most.
            lease: seconds after which the call counts as ended.

        Raises:
            RateLimited: a limit has no room.
            InvalidRequest: the call needs more tokens than a whole window has.
            TryAgainLater: ``limits_unavailable``.
        """
        decision = await self.decide(caller, endpoint, path=path, estimate=lambda: tokens, lease=lease)
        if decision.refused is not None:
            raise refusal(decision)
        return decision.hold

    async def decide(
        self,
        caller: LimitedCaller,
        endpoint: str = GENERAL,
        *,
        path: str = "",
        requests: int = 1,
        estimate: Callable[[], int] | None = None,
        lease: float = LEASE,
    ) -> LimitDecision:
        """Decide as ``enforce`` does, and return a refusal. With ``requests=0`` nothing is taken or refused.

        Args:
            caller: who calls.
            endpoint: the name of what is called.
            path: its route, for limits by path.
            requests: 1, or 0.
            estimate: returns the most tokens that the call is expected to use; called where tokens are limited.
            lease: seconds after which the call counts as ended.

        Raises:
            InvalidRequest: the call needs more tokens than a whole window has.
            TryAgainLater: ``limits_unavailable``.
        """
        plan = caller.plan
        quotas = () if plan is None else plan.quotas(endpoint, path)
        if plan is None or not quotas:
            return UNLIMITED
        owner = (caller.tenant, caller.subject)
        tokens = 0
        if estimate is not None:
            for quota in quotas:
                if quota.unit == "tokens":
                    tokens = tokens or estimate()
                    if tokens > quota.limit:
                        return self._never(owner, plan, quota, tokens)
        try:
            decision = await self._limiter.take(owner, quotas, requests=requests, tokens=tokens, lease=lease)
        except Exception as error:  # noqa: BLE001 - whatever an engine raises, it says that the engine has failed
            self._failed(error)
            return UNLIMITED
        if decision.refused is not None or plan.shadow:
            return self._judged(owner, plan, decision)
        if self._refused:
            self._refused.discard(owner)
        return decision

    def known(self, caller: LimitedCaller, endpoint: str = GENERAL, *, path: str = "") -> LimitDecision:
        """Return the refusal of one more call of a caller that was refused just now; else ``UNLIMITED``."""
        plan, owner = caller.plan, (caller.tenant, caller.subject)
        if plan is None or owner not in self._refused:
            return UNLIMITED
        return self._judged(owner, plan, self._limiter.known(owner, plan.quotas(endpoint, path)))

    async def check(self, caller: LimitedCaller, endpoint: str = GENERAL, *, path: str = "") -> LimitDecision:
        """Return what is left of the caller's limits, and which of them has nothing left. Takes nothing."""
        plan = caller.plan
        quotas = () if plan is None else plan.quotas(endpoint, path)
        if not quotas:
            return UNLIMITED
        decision = await self.decide(caller, endpoint, path=path, requests=0)
        full = [one for one in decision.standings if not one.remaining]
        if not full:
            return decision
        last = max(full, key=lambda one: one.reset)
        return LimitDecision(decision.standings, last.quota, last.reset)

    async def reset(self, tenant: str, user: str) -> bool:
        """Forget what was counted for a caller; returns whether there was anything.

        Raises:
            TryAgainLater: ``limits_unavailable``.
        """
        try:
            return await self._limiter.reset((tenant, user))
        except Exception as error:
            raise TryAgainLater(code="limits_unavailable", retry_after=RETRY_UNAVAILABLE) from error

    def _judged(self, owner: Owner, plan: CallerPlan, decision: LimitDecision) -> LimitDecision:
        if decision.refused is not None:
            self.violations.add(owner, decision.refused, shadow=plan.shadow)
        if plan.shadow:
            return LimitDecision(hold=decision.hold)
        if decision.refused is not None:
            if len(self._refused) >= MAX_REFUSED:
                self._refused.clear()
            self._refused.add(owner)
        return decision

    def _never(self, owner: Owner, plan: CallerPlan, quota: Quota, tokens: int) -> LimitDecision:
        """Let a call that needs more than a whole window go on in a shadow plan, and refuse it in any other."""
        self.violations.add(owner, quota, shadow=plan.shadow)
        if plan.shadow:
            return UNLIMITED
        raise InvalidRequest(
            f"This call may use {tokens:,} tokens (its input by an estimate, and the most of its answer), and the "
            f"limit is {quota}: it can never pass. Shorten the input, or ask for fewer tokens"
        )

    def _failed(self, error: Exception) -> None:
        """Log that the counters can't be reached, at most once in ``LOG_INTERVAL``.

        Raises:
            TryAgainLater: ``limits_unavailable``, where such calls do not go on.
        """
        now = self._clock()
        if now - self._said >= LOG_INTERVAL:
            self._said = now
            _log.error("limits_unavailable", extra={"fields": {"open": self._open}}, exc_info=error)
        if not self._open:
            raise TryAgainLater(code="limits_unavailable", retry_after=RETRY_UNAVAILABLE) from error


def refusal(decision: LimitDecision) -> RateLimited:
    """Return the error of a decision that refuses a call."""
    return RateLimited(f"The limit of {decision.refused} is reached", retry_after=decision.retry_after)


def _write(owner: Owner, violation: Violation, count: int) -> None:
    fields = {
        "tenant": owner[0],
        "user": owner[1],
        "endpoint": violation.endpoint,
        "unit": violation.unit,
        "per": violation.per,
        "limit": violation.limit,
        "count": count,
        "shadow": violation.shadow,
    }
    _log.warning("limit_reached", extra={"fields": fields, "outside": OUTSIDE})
