"""Maps an upstream's refusal, its status, headers and body, to an error with a code."""

import asyncio
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

from actors.wire.connection import Connection
from actors.wire.encoding import body_of
from actors.wire.limits import allowances
from protocol.error_text import read_error
from protocol.errors import ProviderError
from protocol.refusals import refusal_of
from protocol.upstream import Refusal

MAX_DATE: Final = 64  # characters of a date
MAX_RETRY_AFTER: Final = 3600.0  # seconds
MAX_BODY_BYTES: Final = 64 * 1024  # of a refusal's body; the rest is not read
BODY_SECONDS: Final = 1.0  # for the body of a refusal, whose status has been read

_SENSITIVE: Final = re.compile(r"auth|key|token|secret|cookie|credential|password|signature", re.IGNORECASE)
_PARTS: Final = re.compile(r"[\s,;]+")
_KINDS: Final = ("x-amzn-errortype", "x-ms-error-code")  # headers with an error's code


async def read_refusal_body(connection: Connection) -> bytes:
    """Return the body of a refusal, as far as it comes in time, can be read, and is within ``MAX_BODY_BYTES``.

    The connection of a body that goes on is closed.
    """
    whole = b""
    try:
        body = body_of(connection)
        async with asyncio.timeout(BODY_SECONDS):
            while len(whole) < MAX_BODY_BYTES and (chunk := await body.read()):
                whole += chunk[: MAX_BODY_BYTES - len(whole)]
    except (ProviderError, TimeoutError):
        pass
    if len(whole) >= MAX_BODY_BYTES and not connection.ended:
        connection.close()
    return whole


def refusal(
    status: int, headers: Mapping[str, str], now: float, body: bytes = b"", secrets: tuple[str, ...] = ()
) -> Refusal:
    """Return the error for an HTTP status other than 200.

    Args:
        status: the HTTP status.
        headers: the answer's, by lower-case name.
        now: Unix time, for dates in the headers.
        body: of the answer.
        secrets: are never in the error.
    """
    error = refusal_of(status, read_error(body), kind=_kind_of(headers), secrets=secrets)
    return Refusal(
        code=error.code,
        status=status,
        reason=error.reason,
        retry_after=retry_after(headers, now),
        limits=allowances(headers, now),
    )


def secrets_of(head: bytes) -> tuple[str, ...]:
    """Return the secrets in a request's head: the values of its sensitive headers and query parameters, and parts."""
    line, _, fields = head.decode("latin-1").partition("\r\n")
    found: list[str] = []
    for field in fields.split("\r\n"):
        name, _, value = field.partition(":")
        if _SENSITIVE.search(name):
            value = value.strip()
            scheme, *parts = _PARTS.split(value)
            found += (value, *parts) if parts else (scheme,)
    query = line.partition("?")[2].partition(" ")[0]
    for parameter in query.split("&"):
        name, _, value = parameter.partition("=")
        if _SENSITIVE.search(name):
            found.append(value)
    return tuple(dict.fromkeys(found))


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds of ``retry-after-ms`` or ``retry-after``; None where neither has a valid value."""
    seconds = _number(headers.get("retry-after-ms"))
    if seconds is not None:
        seconds /= 1000
    else:
        value = headers.get("retry-after")
        seconds = _number(value)
        if seconds is None and value:
            seconds = _date(value, now)
    return None if seconds is None else min(max(seconds, 0.0), MAX_RETRY_AFTER)


def _kind_of(headers: Mapping[str, str]) -> str:
    """Return the error's code that a cloud says in a header; empty for none."""
    said = next((headers[name] for name in _KINDS if name in headers), "")
    return said.partition(":")[0].rpartition("#")[2].strip()


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _date(text: str, now: float) -> float | None:
    try:
        return parsedate_to_datetime(text[:MAX_DATE]).timestamp() - now
    except (ValueError, OverflowError):
        return None
