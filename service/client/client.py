"""A client that reconnects: it submits, follows, publishes and listens, and resumes after a lost connection.

::

    async with Client("http://127.0.0.1:3000") as client:
        receipt = await client.submit(SubmitBody(messages=(ChatMessage(role="user", content="hello"),)))
        async for event in client.follow(receipt.request_id):
            ...                                        # Update, Update, …, Finished
        async for event in client.listen("room:7"):
            ...                                        # Message, Presence, or Gap where some are missing

A failure raises the server's error as a ``TidegateError`` of the same code.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote, urlencode
from weakref import WeakSet

import msgspec

from protocol import ids
from protocol.errors import ConfigurationError, NotFound
from protocol.events import Position
from protocol.hub import Mode
from protocol.requests import RequestState, Status, SubmitBody
from service.client.admin import Admin
from service.client.backoff import Backoff
from service.client.endpoint import Endpoint, Key
from service.client.following import Following
from service.client.frames import Member
from service.client.history import History, Page
from service.client.listening import Listening
from service.client.subscription import Subscription

PATIENCE: Final = 60.0  # seconds without progress after which following fails
CALL_PATIENCE: Final = 5.0  # seconds for which a call is retried, and the first connection of a follower

T = TypeVar("T")


class Receipt(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The response to a submission; following from ``position`` gets the whole answer."""

    request_id: str
    assistant_status: Status
    position: Position


class State(RequestState, frozen=True):
    """The state of a request as a client receives it.

    Attributes:
        core_result: the JSON of a completed answer; otherwise None.
    """

    core_result: msgspec.Raw | None


class _State(State, frozen=True):
    """The state for decoding: msgspec can't decode ``Raw | None``."""

    core_result: msgspec.Raw


class Published(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a publication.

    Attributes:
        position: its position in the channel.
        subscribers: the sockets that followed the channel at that time; each of them gets it.
    """

    position: Position
    subscribers: int = 0


class _Members(msgspec.Struct, frozen=True):
    members: tuple[Member, ...]


class Client:
    """A client of one service. Use it as an async context manager; leaving it closes all its subscriptions.

    Args:
        url: the address of the service.
        key: an API key or a token; empty for none; or a function, sync or async, that returns one: called for each call
            and connection, so that an expired token is replaced. Its exceptions are raised.
        patience: seconds without progress after which a subscription fails.
        call_patience: seconds for which a call is retried, and a subscription's first connection.
        base: the longest first delay before a retry, in seconds; it doubles up to 8 s.
        sleep: waits.
        notice: is called with the reason, before each delay.

    Raises:
        ConfigurationError: ``url`` is not an HTTP address.
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
        """Submit a request. Retried where the connection fails; the idempotency key keeps it one request.

        Raises:
            TidegateError: the server's error; ``Unreachable`` where it did not answer.
        """
        headers = {"Idempotency-Key": idempotency_key or ids.ulid()}
        answer = await self._call("POST", "/api/requests", json=body, headers=headers)
        return self._decode(answer, Receipt)

    def follow(self, request_id: str, *, after: Position | None = None, mode: Mode | None = None) -> Following:
        """Return an iterator over the request's answer, from its beginning or after a position.

        ``mode`` is ``snapshot``, ``live`` or ``replay``; see ``Following``.
        """
        following = Following(
            self._open_endpoint(),
            request_id,
            after=after,
            mode=mode,
            first=self._backoff(self._call_patience),
            later=self._backoff(self._patience),
        )
        self._subscriptions.add(following)
        return following

    async def state(self, request_id: str) -> State:
        """Return the state of a request; raises as ``submit`` does."""
        return self._state(await self._call("GET", f"/api/requests/{quote(request_id, safe='')}"))

    async def state_fields(self, request_id: str) -> dict[str, Any]:
        """Return the state of a request with every field that the service sends; raises as ``submit`` does."""
        return self._decode(await self._call("GET", f"/api/requests/{quote(request_id, safe='')}"), dict[str, Any])

    async def cancel(self, request_id: str) -> State:
        """Cancel a request, and return its state; raises as ``submit`` does."""
        path = f"/api/requests/{quote(request_id, safe='')}/cancel"
        return self._state(await self._call("POST", path))

    async def delete(self, request_id: str) -> bool:
        """Cancel a request and forget it; return False where it was not there, or a first attempt had deleted it.

        Raises:
            TidegateError: as ``submit`` raises.
        """
        try:
            await self._call("DELETE", f"/api/requests/{quote(request_id, safe='')}")
        except NotFound:
            return False
        return True

    # -------------------------------------------------------------------------------------------------------- channels

    async def publish(self, channel: str, event: str, data: object = None, *, key: str = "") -> Published:
        """Publish JSON to a channel. Retried with the same key, so it stays one message.

        Raises:
            TidegateError: the service's error; ``Unreachable`` where it did not answer.
        """
        body = {"event": event, "data": data, "key": key or ids.ulid()}
        answer = await self._call("POST", f"/api/channels/{quote(channel, safe='')}/publish", json=body)
        return self._decode(answer, Published)

    def listen(
        self,
        channel: str,
        *,
        after: Position | None = None,
        presence: bool = False,
        member: object = None,
        client: str = "",
    ) -> Listening:
        """Return an iterator over a channel: what is published from now on, or after a position.

        With ``presence`` it also yields who joins and leaves; with ``member`` this client joins itself. See
        ``Listening``.
        """
        listening = Listening(
            self._open_endpoint(),
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
        """Return the members of a channel, in the order of their joins; raises as ``publish`` does."""
        answer = await self._call("GET", f"/api/channels/{quote(channel, safe='')}/presence")
        return self._decode(answer, _Members).members

    async def history(self, channel: str, *, after: Position | None = None, limit: int = 100) -> Page:
        """Return a page of a channel's history, from its start or after a position: up to ``limit`` messages.

        Raises:
            UnrecoverablePosition: some of the messages after ``after`` are not kept any more.
            TidegateError: as ``publish`` raises.
        """
        query = {"limit": str(limit)} | ({} if after is None else {"after": str(after)})
        answer = await self._call("GET", f"/api/channels/{quote(channel, safe='')}/history?{urlencode(query)}")
        return self._decode(answer, History).page()

    # -------------------------------------------------------------------------------------------------------- the rest

    @property
    def admin(self) -> Admin:
        """The calls of an administrator."""
        return Admin(self._call)

    async def _call(
        self, method: str, path: str, *, json: object = msgspec.UNSET, headers: dict[str, str] | None = None
    ) -> bytes:
        body = None if json is msgspec.UNSET else msgspec.json.encode(json)
        if body is not None:
            headers = {"Content-Type": "application/json", **(headers or {})}
        backoff = self._backoff(self._call_patience)
        return await self._open_endpoint().call(method, path, backoff, body=body, headers=headers)

    def _state(self, answer: bytes) -> State:
        state = self._decode(answer, _State)
        return msgspec.structs.replace(state, core_result=None) if state.assistant_status != "completed" else state

    def _decode(self, answer: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(answer, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ConfigurationError(f"{self._url} answers, but not as this service does") from None

    def _backoff(self, patience: float) -> Backoff:
        return Backoff(patience, base=self._base, sleep=self._sleep, notice=self._notice)

    def _open_endpoint(self) -> Endpoint:
        if self._endpoint is None:
            raise RuntimeError("enter the client first: `async with Client(...) as client`")
        return self._endpoint
