"""A client that stays with a request: it submits, follows, and comes back by itself where it had been cut off.

::

    async with Client("http://127.0.0.1:3000") as client:
        receipt = await client.submit(SubmitBody(messages=(ChatMessage(role="user", content="hello"),)))
        async for event in client.follow(receipt.request_id):
            ...                                        # Update, Update, …, Finished

What fails raises what the server said, as a ``TidegateError`` of the same code.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self, TypeVar
from urllib.parse import quote
from weakref import WeakSet

import aiohttp
import msgspec

from protocol import ids
from protocol.errors import ConfigurationError
from protocol.events import Position
from protocol.requests import RequestState, Status, SubmitBody
from service.backoff import Backoff, cause_of
from service.client_frames import failure_of_body
from service.following import Following, FollowingSocket

PATIENCE: Final = 60.0  # seconds without any progress after which following ends
CALL_PATIENCE: Final = 5.0  # seconds for which a call is tried, and the first connection of a follower
CALL_TIMEOUT: Final = aiohttp.ClientTimeout(total=30.0)  # seconds for one attempt
REFUSED: Final = 400
BEHIND_A_PROXY: Final = frozenset({502, 503, 504})  # statuses that a proxy sends while the service is away

T = TypeVar("T")


class Receipt(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The answer to a submission: ``position`` is where a reader who wants all of it begins."""

    request_id: str
    assistant_status: Status
    position: Position


class _State(RequestState, frozen=True):
    """The state as it is read: msgspec decodes no ``Raw | None``."""

    core_result: msgspec.Raw


class Client:
    """Talks to one service. Use it as an async context manager; leaving it leaves whatever it follows.

    Args:
        url: where the service is.
        key: the API key; empty for none.
        patience: seconds without any progress after which a follower gives up.
        call_patience: seconds for which a call is tried again, and a follower's first connection.
        base: the longest first wait before trying again, in seconds; it doubles up to 8 s.
        sleep: waits.
        notice: is told why, before each wait.

    Raises:
        ConfigurationError: ``url`` is no HTTP address.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str = "",
        patience: float = PATIENCE,
        call_patience: float = CALL_PATIENCE,
        base: float = 0.25,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError(f"the address of the service begins with http:// or https://, got {url[:80]!r}")
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._patience = patience
        self._call_patience = call_patience
        self._base = base
        self._sleep = sleep
        self._notice = notice
        self._session: aiohttp.ClientSession | None = None
        self._followings: WeakSet[Following] = WeakSet()

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers, timeout=aiohttp.ClientTimeout(total=None), ws_response_class=FollowingSocket
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for following in tuple(self._followings):
            await following.aclose()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def submit(self, body: SubmitBody, *, idempotency_key: str = "") -> Receipt:
        """Submit a request. Tried again where the connection fails: the key makes it one request all the same.

        Raises:
            TidegateError: what the server said; ``Unreachable`` where it did not answer.
        """
        headers = {"Idempotency-Key": idempotency_key or ids.ulid(), "Content-Type": "application/json"}
        answer = await self._call("POST", "/api/requests", body=msgspec.json.encode(body), headers=headers)
        return self._decode(answer, Receipt)

    def follow(self, request_id: str, *, after: Position | None = None) -> Following:
        """Return the request's answer, to iterate over: from its beginning, or from what comes after a position."""
        following = Following(
            self._open_session(),
            self._url,
            request_id,
            after=after,
            first=self._backoff(self._call_patience),
            later=self._backoff(self._patience),
        )
        self._followings.add(following)
        return following

    async def state(self, request_id: str) -> RequestState:
        """Return what is known of a request; raises as ``submit`` does."""
        return self._state(await self._call("GET", f"/api/requests/{quote(request_id, safe='')}"))

    async def cancel(self, request_id: str) -> RequestState:
        """Cancel a request, and return its state; raises as ``submit`` does."""
        path = f"/api/requests/{quote(request_id, safe='')}/cancel"
        return self._state(await self._call("POST", path))

    async def _call(
        self, method: str, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        session, backoff = self._open_session(), self._backoff(self._call_patience)
        while True:
            try:
                async with session.request(
                    method, self._url + path, data=body, headers=headers, timeout=CALL_TIMEOUT
                ) as response:
                    status, answer = response.status, await response.read()
            except aiohttp.InvalidURL:
                raise ConfigurationError(f"{self._url[:80]!r} is no address") from None
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                await backoff.wait(f"{self._url} does not answer ({cause_of(error)})")
                continue
            if status < REFUSED:
                return answer
            failure = failure_of_body(status, answer)
            if status not in BEHIND_A_PROXY or not failure.problem.temporary:
                raise failure
            await backoff.wait(f"{self._url}: {failure.detail}", failure.retry_after)

    def _state(self, answer: bytes) -> RequestState:
        state = self._decode(answer, _State)
        return msgspec.structs.replace(state, core_result=None) if state.assistant_status != "completed" else state

    def _decode(self, answer: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ConfigurationError(f"{self._url} answers, but not as this service does") from None

    def _backoff(self, patience: float) -> Backoff:
        return Backoff(patience, base=self._base, sleep=self._sleep, notice=self._notice)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("enter the client first: `async with Client(...) as client`")
        return self._session
