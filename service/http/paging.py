"""Pages of lists: ``limit``, and ``after`` with the cursor of the page before."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final

import msgspec
from aiohttp import web

from protocol.channels import MAX_PAGE
from protocol.checks import MAX_NAME, refused
from service.http.operations import Parameter

PAGE: Final = 100  # items by default
LIMIT: Final = Parameter(
    name="limit",
    place="query",
    text="The most items of a page.",
    schema={"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": PAGE},
)
CURSOR: Final = Parameter(
    name="after",
    place="query",
    text="The `next` of the page before.",
    schema={"type": "string", "pattern": "^[A-Za-z0-9_-]+$"},
)
_LONGEST: Final = 16 * MAX_NAME  # characters of a cursor

_names: Final = msgspec.json.Decoder(tuple[str, ...])


def limit_of(request: web.Request) -> int:
    """Return the number of items that a page may have.

    Raises:
        InvalidRequest: ``limit`` is not a number within the bounds.
    """
    text = request.query.get("limit")
    if text is None:
        return PAGE
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= MAX_PAGE:
        raise refused("limit", f"must be within 1..{MAX_PAGE}")
    return int(text)


def cursor(*names: str) -> str:
    """Return the cursor after the item of these names."""
    return urlsafe_b64encode(msgspec.json.encode(names)).decode().rstrip("=")


def names_after(request: web.Request, count: int) -> tuple[str, ...]:
    """Return the names in the cursor that the caller sends as ``after``; empty for the first page.

    Raises:
        InvalidRequest: it is no cursor of this list.
    """
    text = request.query.get("after")
    if text is None:
        return ()
    try:
        names = _names.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4))) if len(text) <= _LONGEST else ()
    except (ValueError, binascii.Error, msgspec.MsgspecError, RecursionError):
        names = ()
    if len(names) != count:
        raise refused("after", "must be the `next` of a page of this list")
    return names
