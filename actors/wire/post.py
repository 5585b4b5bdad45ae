"""One request, until its answer's head is there and is what we can read."""

import time
from collections.abc import Mapping
from typing import Final

import msgspec
from yarl import URL

from actors.wire.connection import Connection
from actors.wire.encoding import Body, body_of
from actors.wire.endpoint import Endpoint
from actors.wire.failures import refusal
from actors.wire.pool import Pool
from protocol.errors import ProviderError
from protocol.upstream import Refusal

OK: Final = 200


class Post(msgspec.Struct, frozen=True, gc=False):
    """A request.

    Attributes:
        endpoint: where it goes.
        headers: beside those of the endpoint.
        body: JSON.
        connect_timeout: seconds until a new connection stands.
    """

    endpoint: Endpoint
    headers: Mapping[str, str]
    body: bytes
    connect_timeout: float

    async def send(self, pool: Pool, accepted: str) -> tuple[Connection, Body]:
        """Send it, and return the answer's body with the connection that it comes on.

        The connection is to be released or discarded; where this raises, that was done. No redirect is followed.

        Args:
            pool: whose connection is used.
            accepted: the content type that the answer has to have.

        Raises:
            ProviderError: nobody could be reached or answered, this is a refusal, or it is nothing that we can read.
        """
        endpoint = self.endpoint
        try:
            head = endpoint.head(self.headers, len(self.body))
        except ValueError as error:
            raise ProviderError(code="provider_unavailable") from error
        origin = endpoint.origin
        connection = pool.take(origin) or await pool.acquire(origin, self.connect_timeout)
        try:
            connection.send(head, self.body)
            await connection.answered()
            return connection, _readable(connection, accepted)
        except Refusal:
            pool.release(connection)  # in a storm of them a handshake each would cost more than they do
            raise
        except BaseException:
            pool.discard(connection)
            raise


def reached(endpoint: Endpoint | URL | str, accept: str) -> Endpoint:
    """Return ``endpoint``, read where it is a URL.

    Raises:
        ProviderError: ``provider_unavailable``: no request can go there.
    """
    if isinstance(endpoint, Endpoint):
        return endpoint
    try:
        return Endpoint(endpoint, accept=accept)
    except ValueError as error:
        raise ProviderError(code="provider_unavailable") from error


def _readable(connection: Connection, accepted: str) -> Body:
    """Return the answer's body, where it is an answer to us."""
    headers = connection.headers
    if connection.status != OK:
        raise refusal(connection.status, headers, time.time())
    kind, _, _ = headers.get("content-type", "").partition(";")
    if kind.strip().lower() != accepted:
        raise ProviderError(code="provider_bad_response")
    return body_of(connection)
