"""A client that stays: it submits, follows, publishes, listens, and comes back by itself where it had been cut off.

::

    async with Client("http://127.0.0.1:3000") as client:
        receipt = await client.submit(SubmitBody(messages=(ChatMessage(role="user", content="hello"),)))
        async for event in client.follow(receipt.request_id):
            ...                                        # Update, Update, …, Finished
        async for heard in client.listen("room:7"):
            ...                                        # Message, Presence, or Gap where some are missing

What fails raises what the server said, as a ``TidegateError`` of the same code.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, urlencode
from weakref import WeakSet

import msgspec

from protocol import ids
from protocol.errors import ConfigurationError
from protocol.events import Position
from protocol.hub import Mode
from protocol.requests import RequestState, Status, SubmitBody
from service.client.backoff import Backoff
from service.client.endpoint import Endpoint, Key
from service.client.following import Following
from service.client.frames import Member
from service.client.history import History, Page
from service.client.listening import Listening
from service.client.subscription import Subscription

PATIENCE: Final = 60.0  # seconds without any progress after which following ends
CALL_PATIENCE: Final = 5.0  # seconds for which a call is tried, and the first connection of a follower

T = TypeVar("T")


class Receipt(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The answer to a submission: ``position`` is where a reader who wants all of it begins."""

    request_id: str
    assistant_status: Status
    position: Position


class _State(RequestState, frozen=True):
    """The state as it is read: msgspec decodes no ``Raw | None``."""

    core_result: msgspec.Raw


class _Published(msgspec.Struct, frozen=True):
    position: Position


class _Members(msgspec.Struct, frozen=True):
    members: tuple[Member, ...]


class Client:
    """Talks to one service. Use it as an async context manager; leaving it leaves whatever it follows.

    Args:
        url: where the service is.
        key: an API key or a token; empty for none; or a function, sync or async, that returns one. It is asked at each
            call and connection, so that a token that has expired is replaced, and what it raises is raised.
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
        key: Key = "",
        patience: float = PATIENCE,
        call_patience: float = CALL_PATIENCE,
        base: float = 0.25,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        notice: Callable[[str], None] | None = None,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError(f"the address of the service begins with http:// or https://, got {url[:80]!r}")
        self._url = url.rstrip("/")
        self._key = key
        self._patience = patience
        self._call_patience = call_patience
        self._base = base
        self._sleep = sleep
        self._notice = notice
        self._endpoint: Endpoint | None = None
        self._subscriptions: WeakSet[Subscription[Any]] = WeakSet()

    async def __aenter__(self) -> Self:
        self._endpoint = Endpoint(self._url, self._key)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for subscription in tuple(self._subscriptions):
            await subscription.aclose()
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await endpoint.close()

    # -------------------------------------------------------------------------------------------------------- requests

    async def submit(self, body: SubmitBody, *, idempotency_key: str = "") -> Receipt:
        """Submit a request. Tried again where the connection fails: the key makes it one request all the same.

        Raises:
            TidegateError: what the server said; ``Unreachable`` where it did not answer.
        """
        headers = {"Idempotency-Key": idempotency_key or ids.ulid(), "Content-Type": "application/json"}
        answer = await self._call("POST", "/api/requests", body=msgspec.json.encode(body), headers=headers)
        return self._decode(answer, Receipt)

    def follow(self, request_id: str, *, after: Position | None = None, mode: Mode | None = None) -> Following:
        """Return the request's answer, to iterate over: from its beginning, or from what comes after a position.

        ``mode`` says how it begins: ``snapshot``, ``live`` or ``replay``, as ``Following`` has them.
        """
        following = Following(
            self._entered(),
            request_id,
            after=after,
            mode=mode,
            first=self._backoff(self._call_patience),
            later=self._backoff(self._patience),
        )
        self._subscriptions.add(following)
        return following

    async def state(self, request_id: str) -> RequestState:
        """Return what is known of a request; raises as ``submit`` does."""
        return self._state(await self._call("GET", f"/api/requests/{quote(request_id, safe='')}"))

    async def cancel(self, request_id: str) -> RequestState:
        """Cancel a request, and return its state; raises as ``submit`` does."""
        path = f"/api/requests/{quote(request_id, safe='')}/cancel"
        return self._state(await self._call("POST", path))

    # -------------------------------------------------------------------------------------------------------- channels

    async def publish(self, channel: str, event: str, data: object = None, *, key: str = "") -> Position:
        """Publish JSON to a channel, and return where it is. Tried again with the same key, so it is one message.

        Raises:
            TidegateError: what the service said; ``Unreachable`` where it did not answer.
        """
        body = msgspec.json.encode({"event": event, "data": data, "key": key or ids.ulid()})
        path = f"/api/channels/{quote(channel, safe='')}/publish"
        answer = await self._call("POST", path, body=body, headers={"Content-Type": "application/json"})
        return self._decode(answer, _Published).position

    def listen(
        self,
        channel: str,
        *,
        after: Position | None = None,
        presence: bool = False,
        member: object = None,
        client: str = "",
    ) -> Listening:
        """Return a channel, to iterate over: what is published from now on, or after a position.

        With ``presence`` it also says who is there; with ``member``, what the others see of us, we are too. See
        ``Listening``.
        """
        listening = Listening(
            self._entered(),
            channel,
            after=after,
            presence=presence,
            member=member,
            client=client,
            first=self._backoff(self._call_patience),
            later=self._backoff(self._patience),
        )
        self._subscriptions.add(listening)
        return listening

    async def presence(self, channel: str) -> tuple[Member, ...]:
        """Return who is in a channel, in the order in which they came; raises as ``publish`` does."""
        answer = await self._call("GET", f"/api/channels/{quote(channel, safe='')}/presence")
        return self._decode(answer, _Members).members

    async def history(self, channel: str, *, after: Position | None = None, limit: int = 100) -> Page:
        """Return what a channel holds, or what it holds after a position: up to ``limit`` messages.

        Raises:
            UnrecoverablePosition: not all that follows ``after`` is held.
            TidegateError: as ``publish`` raises.
        """
        query = {"limit": str(limit)} | ({} if after is None else {"after": str(after)})
        answer = await self._call("GET", f"/api/channels/{quote(channel, safe='')}/history?{urlencode(query)}")
        return self._decode(answer, History).page()

    # -------------------------------------------------------------------------------------------------------- the rest

    async def _call(
        self, method: str, path: str, *, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> bytes:
        backoff = self._backoff(self._call_patience)
        return await self._entered().call(method, path, backoff, body=body, headers=headers)

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

    def _entered(self) -> Endpoint:
        if self._endpoint is None:
            raise RuntimeError("enter the client first: `async with Client(...) as client`")
        return self._endpoint
