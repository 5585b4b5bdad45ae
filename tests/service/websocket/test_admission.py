"""Admission of a socket: authentication, expiry, and what an unauthenticated client may send."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from protocol.errors import PROBLEMS, AccessDenied
from protocol.identity import Principal
from service.auth.grants import Grants
from service.websocket.admission import (
    AUTHENTICATE_TIMEOUT,
    BAD_FRAMES,
    UNAUTHENTICATED_BYTES,
    Admission,
)

ALICE = Principal(tenant="t", subject="alice")
BOB = Principal(tenant="t", subject="bob")


class Desk:
    """An authenticator with fixed tokens."""

    def __init__(self, **authenticated: Principal) -> None:
        self._principal = authenticated
        self.grants = Grants()

    async def authenticate(self, token: str) -> Principal:
        """Return the token's holder."""
        if token not in self._principal:
            raise AccessDenied
        return self._principal[token]


class Line:
    """A socket that records its close code."""

    def __init__(self) -> None:
        self.closed: list[tuple[int, str]] = []
        self.sent = b""

    @property
    def closing(self) -> bool:
        """Whether it was closed."""
        return bool(self.closed)

    def send(self, frames: bytes) -> None:
        """Record frames."""
        self.sent += frames

    def close(self, code: int, reason: str) -> None:
        """Record the close."""
        self.closed.append((code, reason))


class Kept:
    """What the socket has in the hub."""

    def __init__(self) -> None:
        self.calls: list[object] = []

    def end(self) -> None:
        """Record the end."""
        self.calls.append("end")

    def change(self, before: Principal, after: Principal) -> None:
        """Record a change."""
        self.calls.append((before, after))

    async def limit(self, before: Principal, after: Principal) -> None:
        """Record a change that is waited for."""
        self.calls.append((before, after))


class Timers:
    """The timers that are set, with their delays."""

    def __init__(self) -> None:
        self.set: dict[asyncio.TimerHandle, tuple[float, Callable[[], None]]] = {}

    def __call__(self, after: float, call: Callable[[], None]) -> asyncio.TimerHandle:
        """Set a timer."""
        timers = self

        class Timer:
            def cancel(self) -> None:
                timers.set.pop(handle, None)

        handle = cast("asyncio.TimerHandle", Timer())
        self.set[handle] = (after, call)
        return handle

    def fire(self) -> float:
        """Fire the only timer, and return its delay."""
        ((after, call),) = self.set.values()
        call()
        return after


def admission_of(principal: Principal | None, timers: Timers, **authenticated: Principal) -> tuple[Admission, Line]:
    """Return an admission and its socket."""
    line: Any = Line()
    desk: Any = Desk(**authenticated)
    kept: Any = Kept()
    return Admission(desk, line, principal, timers, kept), line


async def test_a_stranger_has_ten_seconds() -> None:
    """A client that does not authenticate in time is closed with 4502, and does not reconnect."""
    timers = Timers()
    admission, line = admission_of(None, timers)
    assert not admission.authenticated
    with pytest.raises(AccessDenied):
        _ = admission.principal
    assert timers.fire() == AUTHENTICATE_TIMEOUT
    assert line.closed == [(4502, "authentication_timeout")]


async def test_a_token_lets_in_and_stops_the_clock() -> None:
    """After authentication the timeout is cancelled."""
    timers = Timers()
    admission, _ = admission_of(None, timers, a=ALICE)
    assert await admission.authenticate("a") == ALICE
    assert admission.principal == ALICE
    assert not timers.set


async def test_a_socket_stays_with_whom_it_is() -> None:
    """Another caller's token is refused, and nothing changes."""
    admission, line = admission_of(ALICE, Timers(), b=BOB)
    with pytest.raises(AccessDenied) as raised:
        await admission.authenticate("b")
    assert raised.value.code == "forbidden"
    assert admission.principal == ALICE
    assert not line.closed


async def test_whoever_s_token_ends_is_seen_out() -> None:
    """An expired token closes with 4005, which lets a client reconnect; a new token in time replaces the expiry."""
    soon = Principal(tenant="t", subject="alice", expires=0.0, credential=b"soon")
    admission, line = admission_of(soon, Timers(), a=ALICE)
    await admission.authenticate("a")
    admission._auth.grants.expire()
    assert not line.closed
    admission.stop()
    admission, line = admission_of(soon, Timers())
    admission._auth.grants.expire()
    assert line.closed == [(4005, "token_expired")]


async def test_a_revoked_key_is_the_end() -> None:
    """The client gets the reason before the close frame, and what the socket has in the hub is dropped at once."""
    alice = Principal(tenant="t", subject="alice", credential=b"a")
    admission, line = admission_of(alice, Timers())
    admission._auth.grants.end(b"a")
    assert b'"reason":"key_revoked","reconnect":false' in line.sent
    assert line.closed == [(4507, "key_revoked")]
    assert cast("Kept", admission._rights).calls == ["end"]
    with pytest.raises(AccessDenied):
        admission.check("inference")


async def test_leaving_leaves_no_timer() -> None:
    """A closed socket has no timer."""
    timers = Timers()
    admission, _ = admission_of(None, timers)
    admission.stop()
    assert not timers.set


async def test_a_stranger_s_messages_are_small() -> None:
    """Messages before authentication are limited to a token's size; later ones are not."""
    admission, line = admission_of(None, Timers())
    assert admission.admits(UNAUTHENTICATED_BYTES)
    assert not admission.admits(UNAUTHENTICATED_BYTES + 1)
    assert line.closed == [(1009, "authenticate first")]
    authenticated, line = admission_of(ALICE, Timers())
    assert authenticated.admits(UNAUTHENTICATED_BYTES + 1)
    assert not line.closed


async def test_bad_frames_are_forgiven_slowly() -> None:
    """Twenty bad frames in a minute close the socket; in a longer time they don't."""
    admission, line = admission_of(ALICE, Timers())
    for count in range(BAD_FRAMES):
        admission.count_bad_frame(now=100.0 + 4 * count)
    assert not line.closed
    for count in range(BAD_FRAMES):
        admission.count_bad_frame(now=200.0 + count)
    assert line.closed[0] == (PROBLEMS["invalid_request"].close, "bad request")
