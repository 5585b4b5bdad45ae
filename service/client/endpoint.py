"""Where the service is and how a client gets in: calls over HTTP and sockets, with a key that may be replaced."""

from collections.abc import Awaitable, Callable
from inspect import isawaitable
from io import BytesIO
from typing import Any, Final, cast

import aiohttp

from protocol.errors import ConfigurationError
from service.client.backoff import Backoff, cause_of
from service.client.frames import failure_of_body, failure_of_status

Key = str | Callable[[], str | Awaitable[str]]

HEARTBEAT: Final = 8.0  # seconds of silence before a ping, below the 10 s in which the service wants to hear of us
PONG_TIMEOUT: Final = 10.0  # seconds of silence after a ping; then the service is gone
CALL_TIMEOUT: Final = aiohttp.ClientTimeout(total=30.0)  # seconds for one attempt
CLOSE_TIMEOUT: Final = aiohttp.ClientWSTimeout(ws_close=1.0)  # seconds for the other side's farewell
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024
LARGE_BYTES: Final = 1024 * 1024  # of a body, which from here on is sent piece by piece
REFUSED: Final = 400
UNAUTHENTICATED: Final = 401
BEHIND_A_PROXY: Final = frozenset({502, 503, 504})  # statuses that a proxy sends while the service is away


class LostError(Exception):
    """The connection is of no more use; ``delay`` is what the server asks to wait, in seconds."""

    def __init__(self, reason: str, delay: float | None = None) -> None:
        self.delay = delay
        super().__init__(reason)


class ClientSocket(aiohttp.ClientWebSocketResponse):
    """A socket that gives its connection back also when the other side has reset it.

    The service's pings are answered while it is read from; in between its own pings show that we are here.
    """

    def __init__(self, *options: Any, **named: Any) -> None:  # noqa: ANN401 - as aiohttp makes them
        super().__init__(*options, **named)
        self._pong_heartbeat = PONG_TIMEOUT

    async def close(self, *, code: int = aiohttp.WSCloseCode.OK, message: bytes = b"") -> bool:
        """Say goodbye where somebody is left to hear it, and let go."""
        try:
            return await super().close(code=code, message=message)
        finally:
            self._response.close()

    def abort(self) -> None:
        """Let go without a word, and without waiting."""
        self._set_closed()
        self._response.close()


class Endpoint:
    """One service, and who we are there. Closing it cuts whatever is still open.

    Args:
        url: where it is.
        key: an API key or a token; empty for none; or what returns one, which is asked before each attempt. Where the
            service refuses one that was returned (401), it is asked once more: the first may just have expired.
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
        """Let go of every connection."""
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
        """Return the answer to a call, which is tried again while the service does not answer.

        Raises:
            TidegateError: what the service said; ``Unreachable`` when the patience is at its end.
        """
        replaceable = callable(self._key)
        while True:
            try:
                status, answer = await self._send(method, path, body, headers or {})
            except aiohttp.InvalidURL:
                raise self._no_address() from None
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                await backoff.wait(f"{self.url} does not answer ({cause_of(error)})")
                continue
            if status < REFUSED:
                return answer
            if status == UNAUTHENTICATED and replaceable:
                replaceable = False
                continue
            failure = failure_of_body(status, answer)
            if status not in BEHIND_A_PROXY or not failure.problem.temporary:
                raise failure
            await backoff.wait(f"{self.url}: {failure.detail}", failure.retry_after)

    async def connect(self) -> ClientSocket:
        """Open a socket.

        Raises:
            TidegateError: it is refused.
            LostError: it may be had later.
            aiohttp.ClientError: nobody answers; so do ``OSError`` and ``TimeoutError`` say.
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
                raise self._no_address() from None
            except aiohttp.WSServerHandshakeError as error:
                status = error.status
            if status == UNAUTHENTICATED and replaceable:
                replaceable = False
                continue
            failure = failure_of_status(status)
            if failure.problem.temporary:
                raise LostError(failure.detail)
            raise failure

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

    def _no_address(self) -> ConfigurationError:
        return ConfigurationError(f"{self.url[:80]!r} is no address")
