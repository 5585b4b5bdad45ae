"""Identity of a caller, and its permissions."""

from fnmatch import fnmatchcase
from typing import Final, Literal

import msgspec

from protocol.budgets import Account
from protocol.limits import CallerPlan

ChannelRight = Literal["subscribe", "publish", "presence"]
Scope = Literal["inference", "channels", "admin"]

ALL_RIGHTS: Final[tuple[ChannelRight, ...]] = ("subscribe", "publish", "presence")
ALL_SCOPES: Final[tuple[Scope, ...]] = ("inference", "channels", "admin")


class ChannelGrant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rights in channels.

    Attributes:
        pattern: the channels' names; ``*`` matches any characters.
        rights: what is allowed in these channels.
    """

    pattern: str
    rights: tuple[ChannelRight, ...] = ALL_RIGHTS


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated caller. The defaults are those of the anonymous caller, where no keys are configured.

    Attributes:
        tenant: the tenant; tenants share no requests and no channels.
        subject: the user within the tenant: a key's name, or a token's ``sub``.
        scopes: the parts of the service that the caller may use; ``admin`` includes other users of the tenant.
        models: patterns of the model names that the caller may use.
        channels: rights in channels.
        default: the model that ``default`` stands for; empty for the service's default.
        pass_fields: the fields of the vendors' dialects that may go upstream, as in ``protocol.pass_fields``; None for
            what the route says.
        account: pays for calls; None for no account.
        plan: what the caller may do in a time; None for no limits.
        expires: when the caller has to authenticate again, in Unix seconds; None for never.
        credential: the digest of the key or the token; empty where there is none. What is open by it ends with it.
        signer: the public key that signed the token, by its thumbprint; empty where there is none.
    """

    tenant: str = ""
    subject: str = ""
    scopes: tuple[Scope, ...] = ALL_SCOPES
    models: tuple[str, ...] = ("*",)
    channels: tuple[ChannelGrant, ...] = (ChannelGrant("*"),)
    default: str = ""
    pass_fields: tuple[str, ...] | None = None
    account: Account | None = None
    plan: CallerPlan | None = None
    expires: float | None = None
    credential: bytes = b""
    signer: str = ""

    def may_ask(self, model: str) -> bool:
        """Whether the caller may use ``model``."""
        return "*" in self.models or any(fnmatchcase(model, pattern) for pattern in self.models)

    def may(self, right: ChannelRight, channel: str) -> bool:
        """Whether the caller has ``right`` in ``channel``."""
        return any(right in grant.rights and fnmatchcase(channel, grant.pattern) for grant in self.channels)


ANONYMOUS: Final = Principal()
