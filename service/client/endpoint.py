"""The endpoint of a service: HTTP calls and sockets, with a key that may be replaced."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from io import BytesIO
from typing import Any, Final, cast

import aiohttp

from protocol.errors import ConfigurationError, TidegateError
from service.client.backoff import Backoff, cause_of
from service.client.frames import failure_of_body, failure_of_status

Key = str | Callable[[], str | Awaitable[str]]

HEARTBEAT: Final = 8.0  # seconds of silence before a ping, below the service's pong timeout of 10
PONG_TIMEOUT: Final = 10.0  # seconds of silence after a ping; then the connection counts as lost
CALL_TIMEOUT: Final = aiohttp.ClientTimeout(total=30.0)  # seconds for one attempt
REASON_TIMEOUT: Final = aiohttp.ClientTimeout(total=5.0)  # seconds for the reason of a refused upgrade
LONGEST_REASON: Final = 64 * 1024  # bytes
CLOSE_TIMEOUT: Final = aiohttp.ClientWSTimeout(ws_close=1.0)  # seconds for the other side's close frame
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
LARGE_BYTES: Final = 1024 * 1024  # of a body; larger ones are sent in chunks
REFUSED: Final = 400
UNAUTHENTICATED: Final = 401
PROXY_STATUSES: Final = frozenset({502, 503, 504})  # statuses of a proxy whose service is down


class ConnectionLost(Exception):
    """The connection is lost; ``delay`` is the reconnect delay that the server sent, in seconds; None for none."""

    def __init__(self, reason: str, delay: float | None = None) -> None:
        self.delay = delay
        super().__init__(reason)


class ClientSocket(aiohttp.ClientWebSocketResponse):
    """A socket that releases its connection also after the other side has reset it.

    The service's pings are answered while the socket is read; at other times its own pings keep it alive.
    """

    def __init__(self, *options: Any, **named: Any) -> None:  # noqa: ANN401 - as aiohttp makes them
        super().__init__(*options, **named)
        self._pong_heartbeat = PONG_TIMEOUT

    async def close(self, *, code: int = aiohttp.WSCloseCode.OK, message: bytes = b"") -> bool:
        """Send a close frame where the connection is open, and release it."""
        try:
            return await super().close(code=code, message=message)
        finally:
            self._response.close()

    def abort(self) -> None:
        """Release the connection without a close frame and without waiting."""
        self._set_closed()
        self._response.close()


class Endpoint:
    """The address of a service, with the client's key. Closing it aborts whatever is still open.

    Args:
        url: the address.
        key: an API key or a token; empty for none; or a function that returns one, called before each attempt. It is
            called once more where the service refuses its result (401), which may just have expired.
    """

    def __init__(self, url: str, key: Key) -> None:
        self.url = url
        self._key = key
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            ws_response_class=ClientSocket,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def call(
        self,
        method: str,
        path: str,
        backoff: Backoff,
        *,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        """Return the body of a call's response; retried while the service does not answer.

        Raises:
            TidegateError: the service's error; ``Unreachable`` when the patience is over.
        """
        replaceable = callable(self._key)
        while True:
            try:
                status, answer = await self._send(method, path, body, headers or {})
            except aiohttp.InvalidURL:
                raise self._invalid_url() from None
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                await backoff.wait(f"{self.url} does not answer ({cause_of(error)})")
                continue
            if status < REFUSED:
                return answer
            if status == UNAUTHENTICATED and replaceable:
                replaceable = False
                continue
            failure = failure_of_body(status, answer)
            if status not in PROXY_STATUSES or not failure.problem.temporary:
                raise failure
            await backoff.wait(f"{self.url}: {failure.detail}", failure.retry_after)

    async def connect(self) -> ClientSocket:
        """Open a socket.

        Raises:
            TidegateError: the service refuses it.
            ConnectionLost: the service refuses it for now.
            aiohttp.ClientError: the service does not answer; also ``OSError`` and ``TimeoutError``.
        """
        replaceable = callable(self._key)
        while True:
            headers = await self._authorization()
            try:
                socket = await self._session.ws_connect(
                    self.url + "/ws",
                    headers=headers,
                    heartbeat=HEARTBEAT,
                    max_msg_size=MAX_FRAME_BYTES,
                    timeout=CLOSE_TIMEOUT,
                )
                return cast("ClientSocket", socket)
            except aiohttp.InvalidURL:
                raise self._invalid_url() from None
            except aiohttp.WSServerHandshakeError as error:
                status = error.status
            if status == UNAUTHENTICATED and replaceable:
                replaceable = False
                continue
            failure = await self._reason(status, headers)
            if failure.problem.temporary:
                raise ConnectionLost(failure.detail, failure.retry_after)
            raise failure

    async def _reason(self, status: int, headers: dict[str, str]) -> TidegateError:
        """Return why an upgrade was refused with ``status``: a plain call of the same address is answered with that."""
        failure = failure_of_status(status)
        if failure.problem.temporary:
            return failure
        try:
            async with self._session.get(self.url + "/ws", headers=headers, timeout=REASON_TIMEOUT) as response:
                body = b""
                while len(body) < LONGEST_REASON and (piece := await response.content.readany()):
                    body += piece
        except (aiohttp.ClientError, TimeoutError, OSError):
            return failure
        return failure if response.status < REFUSED else failure_of_body(status, body)

    async def _send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        headers = headers | await self._authorization()
        data = body if body is None or len(body) < LARGE_BYTES else BytesIO(body)
        async with self._session.request(
            method, self.url + path, data=data, headers=headers, timeout=CALL_TIMEOUT
        ) as response:
            return response.status, await response.read()

    async def _authorization(self) -> dict[str, str]:
        key = self._key
        if callable(key):
            given = key()
            key = await given if isawaitable(given) else given
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _invalid_url(self) -> ConfigurationError:
        return ConfigurationError(f"{self.url[:80]!r} is no address")
