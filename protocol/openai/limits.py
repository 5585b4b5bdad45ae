"""What an upstream of OpenAI's dialect takes at most."""

from typing import Final
from urllib.parse import urlsplit

import msgspec


class ChatLimits(msgspec.Struct, frozen=True):
    """Limits of an upstream; beyond them it refuses a request.

    Attributes:
        id_length: the most characters of a tool call's id.
        stops: the most texts to stop at; None for any number.
    """

    id_length: int
    stops: int | None = None


VENDORS_OWN: Final = ChatLimits(id_length=40, stops=4)  # OpenAI, and Azure
OF_OTHERS: Final = ChatLimits(id_length=64)  # the least of those that others have

_VENDORS_HOSTS: Final = (
    ".api.openai.com",
    ".openai.azure.com",
    ".services.ai.azure.com",
    ".cognitiveservices.azure.com",
)


def limits_at(base_url: str) -> ChatLimits:
    """Return the limits of the upstream at an address."""
    host = urlsplit(base_url).hostname or ""
    return VENDORS_OWN if f".{host}".endswith(_VENDORS_HOSTS) else OF_OTHERS
