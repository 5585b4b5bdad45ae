"""A bound of the service, as a row of ``docs/limits.md``."""

from typing import Final

import msgspec

EVICTED: Final = "each tenant's; borrowed room is taken back"
RESERVED: Final = "each tenant's; room is kept for the others' floors"
SPLIT: Final = "the tenants that exist, evenly"
EVERYBODY: Final = "everybody's"
STRANGERS: Final = "all strangers'"
ADDRESS: Final = "one address's"
CONNECTION: Final = "one connection's"
PROVIDER: Final = "each provider's; waiting tenants in turn"
REQUEST: Final = "one request's"
SOCKET: Final = "one socket's"
CHANNEL: Final = "one channel's"
CALL: Final = "one call's"


class Bound(msgspec.Struct, frozen=True):
    """A row of the table.

    Attributes:
        name: what is bounded.
        default: from the struct or the constant that is in force.
        share: whose it is.
        at: what happens at it.
        code: of the failure; empty where nothing fails.
        setting: the field of ``Settings`` that changes it; empty for none.
        unit: of the default; empty for a number of things.
    """

    name: str
    default: float
    share: str
    at: str
    code: str = ""
    setting: str = ""
    unit: str = ""
