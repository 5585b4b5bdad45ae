"""One POST request: sends it, and checks the head of its answer."""

import time
from collections.abc import Mapping
from typing import Final, NoReturn

import msgspec
from yarl import URL

from actors.wire.connection import Connection
from actors.wire.encoding import Body, body_of
from actors.wire.failures import read_refusal_body, refusal, secrets_of
from actors.wire.pool import ConnectionPool
from actors.wire.url import UpstreamUrl
from protocol.errors import ProviderError
from protocol.upstream import Refusal
from protocol.upstream_error import UpstreamError

OK: Final = 200
MAX_KIND: Final = 100  # characters of a content type that are reported
READABLE: Final = frozenset(
    {
        "",
        "application/json",
        "application/jsonl",
        "application/octet-stream",
        "application/x-ndjson",
        "text/event-stream",
        "text/json",
        "text/plain",
    }
)  # content types whose bodies may be events or JSON, whatever was asked for


class PostRequest(msgspec.Struct, frozen=True, gc=False):
    """A POST request.

    Attributes:
        url: the upstream's URL.
        headers: further headers.
        body: JSON.
        connect_timeout: seconds for making a new connection.
    """

    url: UpstreamUrl
    headers: Mapping[str, str]
    body: bytes
    connect_timeout: float

    def conceal(self, error: ProviderError) -> None:
        """Remove the request's secrets from what the upstream has said in its answer."""
        if isinstance(error, UpstreamError):
            error.conceal(secrets_of(self.url.head(self.headers, 0)))

    async def send(self, pool: ConnectionPool, accepted: str) -> tuple[Connection, Body]:
        """Send the request, wait for the answer's head, and return the connection and the answer's body.

        The caller has to release or discard the connection; where this raises, that is done. It follows no redirect.

        Args:
            pool: gives the connection.
            accepted: the content type that the answer should have; one that says nothing of the body will do.

        Raises:
            Overloaded: this machine has no resources left for a connection.
            Refusal: the status is not 200.
            ProviderError: no connection or no answer, or an answer that can't be read.
        """
        url = self.url
        try:
            head = url.head(self.headers, len(self.body))
        except ValueError as error:
            raise ProviderError(code="provider_unavailable") from error
        origin = url.origin
        connection = pool.take(origin) or await pool.acquire(origin, self.connect_timeout)
        try:
            connection.send(head, self.body)
            await connection.wait_for_head()
            if connection.status != OK:
                await _refuse(connection, head)
            return connection, _body(connection, accepted)
        except Refusal:
            pool.release(connection)  # a new handshake for each would cost more than the refusals do
            raise
        except BaseException:
            pool.discard(connection)
            raise


def as_upstream_url(url: UpstreamUrl | URL | str, accept: str) -> UpstreamUrl:
    """Return ``url`` parsed.

    Raises:
        ProviderError: ``provider_unavailable``: the URL can't be used.
    """
    if isinstance(url, UpstreamUrl):
        return url
    try:
        return UpstreamUrl(url, accept=accept)
    except ValueError as error:
        raise ProviderError(code="provider_unavailable") from error


async def _refuse(connection: Connection, head: bytes) -> NoReturn:
    """Raise the refusal whose head ``connection`` has read; ``head`` is the request's."""
    body = await read_refusal_body(connection)
    raise refusal(connection.status, connection.headers, time.time(), body, secrets_of(head))


def _body(connection: Connection, accepted: str) -> Body:
    """Return the answer's body, or raise for another content type."""
    kind = media_type(connection.headers)
    if kind != accepted and kind not in READABLE and not kind.endswith("+json"):
        reason = f"the answer's content type is {kind[:MAX_KIND]!r}"
        raise UpstreamError(code="provider_bad_response", status=connection.status, reason=reason)
    return body_of(connection)


def media_type(headers: Mapping[str, str]) -> str:
    """Return the content type without its parameters, in lower case; empty for none.

    Of several ones the last counts, and what is no type is none, as browsers have it.
    """
    value = headers.get("content-type", "")
    kind = value.partition(";")[0].strip().lower()
    if kind in READABLE:
        return kind
    kinds = [one.partition(";")[0].strip().lower() for one in value.split(",")]
    return next((one for one in reversed(kinds) if "/" in one and "*" not in one), "")
