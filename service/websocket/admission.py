"""Admission of a socket's messages: authentication, its end, and what an unauthenticated client may send."""

from collections import deque
from typing import Final

from protocol.errors import PROBLEMS, AccessDenied
from protocol.identity import Principal, Scope
from protocol.websocket.out import disconnect_json
from service.auth.authenticator import Authenticator
from service.auth.grants import EXPIRED
from service.auth.permissions import check_scope
from service.frames import text_frame
from service.websocket.reader import TOO_BIG
from service.websocket.rights import SocketRights
from service.websocket.transport import Later, SocketTransport

AUTHENTICATE_TIMEOUT: Final = 10.0  # seconds in which a client without credentials has to authenticate
UNAUTHENTICATED_BYTES: Final = 16 * 1024  # of a message before authentication: a token fits
BAD_FRAMES: Final = 20  # in BAD_FRAMES_WINDOW; then the socket is closed
BAD_FRAMES_WINDOW: Final = 60.0  # seconds
_AUTHENTICATION_TIMEOUT: Final = "authentication_timeout"


class Admission:
    """Authenticates a socket, ends it with its rights, and limits what else it may send.

    It is the holder of the socket's credential in ``Grants``: it closes the socket where the credential is revoked or
    expires, and has the hub end what changed rights do not cover.

    Args:
        auth: verifies keys and tokens, and knows what is open by them.
        socket: the socket that is closed.
        principal: the caller, where the upgrade had a credential; None where the client has yet to authenticate.
        later: calls a function after so many seconds; the loop's ``call_later``.
        rights: ends what the socket has in the hub.
    """

    __slots__ = ("_auth", "_bad", "_later", "_principal", "_rights", "_socket", "_timer")

    def __init__(
        self,
        auth: Authenticator,
        socket: SocketTransport,
        principal: Principal | None,
        later: Later,
        rights: SocketRights,
    ) -> None:
        self._auth = auth
        self._socket = socket
        self._principal = principal
        self._later = later
        self._rights = rights
        self._bad: deque[float] | None = None  # most clients never need it, and it is larger than all the rest
        self._timer = None if principal is not None else later(AUTHENTICATE_TIMEOUT, self._authentication_timed_out)
        if principal is not None:
            auth.grants.enter(principal, self)

    @property
    def authenticated(self) -> bool:
        """Whether the client has authenticated."""
        return self._principal is not None

    @property
    def principal(self) -> Principal:
        """The caller, with its rights of now.

        Raises:
            AccessDenied: the client has not authenticated yet.
        """
        if self._principal is None:
            raise AccessDenied("Send an `authenticate` frame first")
        return self._principal

    def check(self, scope: Scope) -> Principal:
        """Return the caller, after a wait too: the socket is open, and the caller has ``scope`` still.

        Raises:
            AccessDenied: the client has not authenticated yet, the socket is closing, or ``forbidden``.
        """
        principal = self.principal
        if self._socket.closing:
            raise AccessDenied(code="key_revoked")
        check_scope(principal, scope)
        return principal

    async def authenticate(self, token: str) -> Principal:
        """Verify ``token``. Once the socket has a caller, only a token of the same caller is accepted.

        A later token replaces the expiry and the rights. What the socket has by rights that it has no more is ended by
        the return of this. A token of another tenant closes the socket: nobody gets what the caller before had.

        Raises:
            AccessDenied: the token is not valid, or is another caller's.
            TryAgainLater: it can't be verified now.
        """
        principal = await self._auth.authenticate(token)
        if self._socket.closing:
            raise AccessDenied(code="key_revoked")
        before = self._principal
        if before is not None and before.tenant != principal.tenant:
            self.rights_ended(AccessDenied(code="forbidden"))
            raise AccessDenied("This socket is another tenant's: open another one", code="forbidden")
        if before is not None and before.subject != principal.subject:
            raise AccessDenied("This socket is somebody else's: open another one", code="forbidden")
        self.stop()
        self._principal = principal
        self._auth.grants.enter(principal, self)
        if before is not None:
            await self._rights.limit(before, principal)
        return principal

    def rights_ended(self, error: AccessDenied) -> None:
        """Close the socket: its credential was revoked or has expired."""
        if not self._socket.closing:
            if error.code != EXPIRED:
                last = disconnect_json(error.code, 0.0, code=error.problem.close, reconnect=False)
                self._socket.send(text_frame(last))
            self._socket.close(error.problem.close, error.code)
            self._rights.end()

    def rights_changed(self, principal: Principal) -> None:
        """Go on with the rights of ``principal``; the hub ends what they do not cover."""
        before, self._principal = self._principal, principal
        if before is not None and not self._socket.closing:
            self._rights.change(before, principal)

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
        """Cancel the timer, and give the credential up."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._principal is not None:
            self._auth.grants.leave(self._principal, self)

    def _authentication_timed_out(self) -> None:
        self._socket.close(PROBLEMS[_AUTHENTICATION_TIMEOUT].close, _AUTHENTICATION_TIMEOUT)
