"""Who calls: whose requests they are, and what they may do."""

from fnmatch import fnmatchcase
from typing import Final, Literal

import msgspec

from protocol.budgets import Account

ChannelRight = Literal["subscribe", "publish", "presence"]
Scope = Literal["inference", "channels", "admin"]

ALL_RIGHTS: Final[tuple[ChannelRight, ...]] = ("subscribe", "publish", "presence")
ALL_SCOPES: Final[tuple[Scope, ...]] = ("inference", "channels", "admin")


class ChannelGrant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be done in channels.

    Attributes:
        pattern: which channels, by name; ``*`` stands for any characters.
        rights: what may be done there.
    """

    pattern: str
    rights: tuple[ChannelRight, ...] = ALL_RIGHTS


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who calls. Without any arguments: everybody, where no keys are configured.

    Attributes:
        tenant: whose requests and channels they see; nothing is shared between tenants.
        subject: who they are within the tenant: a key's name, a token's ``sub``.
        scopes: the parts of the service that they may use; ``admin`` also that of others in the tenant.
        models: patterns of the models that they may ask for, under the names by which they ask.
        channels: what they may do in which channels.
        default: what the model ``default`` means for them; empty: what it means for everybody.
        account: who pays; None for nobody.
        expires: when they have to show who they are again, in Unix seconds; None for never.
    """

    tenant: str = ""
    subject: str = ""
    scopes: tuple[Scope, ...] = ALL_SCOPES
    models: tuple[str, ...] = ("*",)
    channels: tuple[ChannelGrant, ...] = (ChannelGrant("*"),)
    default: str = ""
    account: Account | None = None
    expires: float | None = None

    def may_ask(self, model: str) -> bool:
        """Whether they may ask for ``model``."""
        return "*" in self.models or any(fnmatchcase(model, pattern) for pattern in self.models)

    def may(self, right: ChannelRight, channel: str) -> bool:
        """Whether they have ``right`` in ``channel``."""
        return any(right in grant.rights and fnmatchcase(channel, grant.pattern) for grant in self.channels)


ANONYMOUS: Final = Principal()
