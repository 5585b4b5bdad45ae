"""How signed tokens are verified: values and their defaults."""

from collections.abc import Mapping
from typing import Annotated

import msgspec

from protocol.limits import CallerPlan, Plan
from service.auth.keys import plan_of


class TokenConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration of a token verifier. Without a secret and an address, no tokens are accepted.

    Attributes:
        secret: verifies HS256; empty for none.
        jwks_url: the address of the public keys that verify the other algorithms; empty for none.
        issuer: the ``iss`` that a token must have; empty for any.
        audience: the ``aud`` that a token must have; empty: only tokens without one.
        leeway: seconds by which the clocks of the issuer and of the service may differ.
        fetch_allowed: where the public keys may be, beside the internet, as in ``FetchConfig``.
    """

    secret: bytes = b""
    jwks_url: str = ""
    issuer: str = ""
    audience: str = ""
    leeway: float = 30.0
    fetch_allowed: tuple[str, ...] = ()

    @property
    def enabled(self) -> bool:
        """Whether tokens are accepted."""
        return bool(self.secret or self.jwks_url)


class TokenLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table ``[jwt]`` of the routes' file: how the holders of tokens are limited.

    Attributes:
        plan: the name of the plan of each holder whose token names no other one.
    """

    plan: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class TokenPlans(msgspec.Struct, frozen=True):
    """The limits of the holders of tokens.

    Attributes:
        default: of a token that names no plan; None for no limits.
        named: of a token whose claim ``plan`` has the name; a name that is not here counts as none.
    """

    default: CallerPlan | None = None
    named: Mapping[str, CallerPlan | None] = {}

    def of(self, claim: object) -> CallerPlan | None:
        """Return the limits of a token with this claim."""
        return self.named[claim] if isinstance(claim, str) and claim in self.named else self.default


def token_plans(limits: TokenLimits | None, plans: Mapping[str, Plan]) -> TokenPlans:
    """Return the limits of the holders of tokens; none where the file has no table for them.

    Raises:
        ConfigurationError: there is no such plan.
    """
    if limits is None:
        return TokenPlans()
    default = plan_of("jwt.plan", limits.plan, plans)
    return TokenPlans(default, {name: plan_of("", name, plans) for name in plans})
