"""Admission of a socket's messages: authentication, its end, and what an unauthenticated client may send."""

import time
from collections import deque
from typing import Final

from protocol.errors import PROBLEMS, AccessDenied
from protocol.identity import Principal
from service.auth.authenticator import Authenticator
from service.websocket.reader import TOO_BIG
from service.websocket.transport import Later, SocketTransport

AUTHENTICATE_TIMEOUT: Final = 10.0  # seconds in which a client without credentials has to authenticate
UNAUTHENTICATED_BYTES: Final = 16 * 1024  # of a message before authentication: a token fits
BAD_FRAMES: Final = 20  # in BAD_FRAMES_WINDOW; then the socket is closed
BAD_FRAMES_WINDOW: Final = 60.0  # seconds
_AUTHENTICATION_TIMEOUT: Final = "authentication_timeout"
_EXPIRED: Final = "token_expired"


class Admission:
    """Authenticates a socket, closes it when its credential expires, and limits what else it may send.

    Args:
        auth: verifies keys and tokens.
        socket: the socket that is closed.
        principal: the caller, where the upgrade had a credential; None where the client has yet to authenticate.
        later: calls a function after so many seconds; the loop's ``call_later``.
    """

    __slots__ = ("_auth", "_bad", "_later", "_principal", "_socket", "_timer")

    def __init__(self, auth: Authenticator, socket: SocketTransport, principal: Principal | None, later: Later) -> None:
        self._auth = auth
        self._socket = socket
        self._principal = principal
        self._later = later
        self._bad: deque[float] | None = None  # most clients never need it, and it is larger than all the rest
        self._timer = None if principal is not None else later(AUTHENTICATE_TIMEOUT, self._authentication_timed_out)
        if principal is not None:
            self._close_on_expiry(principal)

    @property
    def authenticated(self) -> bool:
        """Whether the client has authenticated."""
        return self._principal is not None

    @property
    def principal(self) -> Principal:
        """The caller.

        Raises:
            AccessDenied: the client has not authenticated yet.
        """
        if self._principal is None:
            raise AccessDenied("Send an `authenticate` frame first")
        return self._principal

    async def authenticate(self, token: str) -> Principal:
        """Verify ``token``. Once the socket has a caller, only a token of the same caller is accepted.

        A later token replaces the expiry.

        Raises:
            AccessDenied: the token is not valid, or is another caller's.
            TryAgainLater: it can't be verified now.
        """
        principal = await self._auth.authenticate(token)
        known = self._principal
        if known is not None and (known.tenant, known.subject) != (principal.tenant, principal.subject):
            raise AccessDenied("This socket is somebody else's: open another one", code="forbidden")
        self._principal = principal
        self._close_on_expiry(principal)
        return principal

    def admits(self, size: int) -> bool:
        """Return whether a message of ``size`` bytes may be read; if not, the socket is closed."""
        if self._principal is None and size > UNAUTHENTICATED_BYTES:
            self._socket.close(TOO_BIG, "authenticate first")
            return False
        return True

    def count_bad_frame(self, now: float) -> None:
        """Count a frame that is malformed or came before authentication; closes the socket at ``BAD_FRAMES``."""
        bad = self._bad
        if bad is None:
            bad = self._bad = deque(maxlen=BAD_FRAMES)
        bad.append(now)
        if len(bad) == BAD_FRAMES and now - bad[0] < BAD_FRAMES_WINDOW:
            self._socket.close(PROBLEMS["invalid_request"].close, "bad request")

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _close_on_expiry(self, principal: Principal) -> None:
        self.stop()
        if principal.expires is not None:
            self._timer = self._later(max(0.0, principal.expires - time.time()), self._expired)

    def _authentication_timed_out(self) -> None:
        self._socket.close(PROBLEMS[_AUTHENTICATION_TIMEOUT].close, _AUTHENTICATION_TIMEOUT)

    def _expired(self) -> None:
        self._socket.close(PROBLEMS[_EXPIRED].close, _EXPIRED)
