"""Who is at a socket, until when, and how much they may say."""

import time
from collections import deque
from typing import Final

from protocol.errors import PROBLEMS, AccessDenied
from protocol.identity import Principal
from service.auth.authenticator import Authenticator
from service.websocket.transport import Later, SocketTransport

AUTHENTICATE_TIMEOUT: Final = 10.0  # seconds in which somebody who came without a key has to show one
STRANGER_BYTES: Final = 16 * 1024  # of a message, before it is known who sends it: a token fits
FRAMES_PER_SECOND: Final = 100.0
BURST: Final = 200.0  # frames
BAD_FRAMES: Final = 20  # in BAD_FRAMES_WINDOW; then the socket is closed
BAD_FRAMES_WINDOW: Final = 60.0  # seconds
TOO_BIG: Final = 1009
_LATE: Final = "authentication_timeout"
_OVER: Final = "token_expired"


class Guard:
    """Lets in who shows a valid key, sees them out when it ends, and stops a flood.

    Args:
        auth: who knows the keys.
        socket: what is closed.
        principal: who the upgrade has shown to be there; None for a stranger, who has to authenticate.
        later: calls something after so many seconds; the loop's ``call_later``.
    """

    __slots__ = ("_auth", "_bad", "_known", "_later", "_left", "_seen", "_socket", "_timer")

    def __init__(self, auth: Authenticator, socket: SocketTransport, principal: Principal | None, later: Later) -> None:
        self._auth = auth
        self._socket = socket
        self._known = principal
        self._later = later
        self._left = BURST
        self._seen = 0.0
        self._bad: deque[float] | None = None  # most clients never need it, and it is larger than all the rest
        self._timer = None if principal is not None else later(AUTHENTICATE_TIMEOUT, self._out_of_time)
        if principal is not None:
            self._watch(principal)

    @property
    def known(self) -> bool:
        """Whether it is known who is there."""
        return self._known is not None

    @property
    def principal(self) -> Principal:
        """Who is there.

        Raises:
            AccessDenied: nobody has said yet.
        """
        if self._known is None:
            raise AccessDenied("Send an `authenticate` frame first")
        return self._known

    async def authenticate(self, token: str) -> Principal:
        """Find out whose ``token`` it is. Once somebody is known, it can only be theirs, and lets them stay.

        Raises:
            AccessDenied: it is nobody's, or somebody else's.
            TryAgainLater: there is no knowing now.
        """
        principal = await self._auth.authenticate(token)
        known = self._known
        if known is not None and (known.tenant, known.subject) != (principal.tenant, principal.subject):
            raise AccessDenied("This socket is somebody else's: open another one", code="forbidden")
        self._known = principal
        self._watch(principal)
        return principal

    def admits(self, size: int, now: float) -> bool:
        """Count a message of so many bytes, and say whether it is to be read; otherwise the socket is closed."""
        if self._known is None and size > STRANGER_BYTES:
            self._socket.close(TOO_BIG, "authenticate first")
            return False
        self._left = min(BURST, self._left + (now - self._seen) * FRAMES_PER_SECOND) - 1.0
        self._seen = now
        if self._left >= 0.0:
            return True
        self._socket.close(PROBLEMS["rate_limited"].close, "rate_limited")
        return False

    def misheard(self, now: float) -> None:
        """Count a frame that could not be read, or not be sent yet; one too many in a while closes the socket."""
        bad = self._bad
        if bad is None:
            bad = self._bad = deque(maxlen=BAD_FRAMES)
        bad.append(now)
        if len(bad) == BAD_FRAMES and now - bad[0] < BAD_FRAMES_WINDOW:
            self._socket.close(PROBLEMS["invalid_request"].close, "bad request")

    def leave(self) -> None:
        """Watch no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self, principal: Principal) -> None:
        self.leave()
        if principal.expires is not None:
            self._timer = self._later(max(0.0, principal.expires - time.time()), self._expired)

    def _out_of_time(self) -> None:
        self._socket.close(PROBLEMS[_LATE].close, _LATE)

    def _expired(self) -> None:
        self._socket.close(PROBLEMS[_OVER].close, _OVER)
