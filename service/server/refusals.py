"""Answers to bytes that are no request: what aiohttp's parser refuses is answered in the service's form, and logged.

aiohttp would answer as text, with its own banner and the client's bytes, and log a traceback.
"""

import asyncio
import re
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import structlog
from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import (
    BadHttpMessage,
    BadHttpMethod,
    BadStatusLine,
    ContentEncodingError,
    HttpProcessingError,
    LineTooLong,
)
from aiohttp.http_parser import RawRequestMessage

from protocol.errors import InternalError, InvalidRequest, TidegateError
from service.context import CallContext
from service.middleware.calls import stamp
from service.middleware.context import open_call
from service.middleware.errors import ANTHROPIC, COMPATIBLE, error_response, failure_of

LINGER: Final = 1.0  # seconds for which the rest of a refused client's bytes is dropped, so that it reads the answer
LINES: Final = 20  # that may be logged at once; further ones at LINES_PER_SECOND
LINES_PER_SECOND: Final = 1.0
PEEKED: Final = 4096  # bytes of a request's beginning in which its address is looked for

_TARGET: Final = re.compile(rb"\s*[A-Z]{1,20} +(?:https?://[^/\s]*)?(/[^\s?]*)")
_REASON: Final = re.compile(
    r"(?:Bad status line:\s+)?([A-Z][A-Za-z `'/-]{4,60}):\n\n|((?:Missing|Duplicate) '[A-Za-z-]{1,30}' header)"
)
_TOO_MANY: Final = "Too many headers"
_TLS: Final = b"\x16\x03"
_HTTP2: Final = b"PRI * HTTP/2"
_CLIENTS: Final = (web.RequestPayloadError, HttpProcessingError, ConnectionError)

_log = structlog.get_logger("service.http")


class RefusalLog:
    """Logs refused connections: a burst of lines, then one a second; a line counts those that were left out before.

    Args:
        time: the time in seconds.
    """

    def __init__(self, time: Callable[[], float] = time.monotonic) -> None:
        self._time = time
        self._allowance = float(LINES)
        self._counted_at = time()
        self._left_out = 0

    def take(self) -> int | None:
        """Return how many lines were left out before this one; None where it is left out itself."""
        now = self._time()
        self._allowance = min(LINES, self._allowance + (now - self._counted_at) * LINES_PER_SECOND)
        self._counted_at = now
        if self._allowance < 1.0:
            self._left_out += 1
            return None
        self._allowance -= 1.0
        left_out, self._left_out = self._left_out, 0
        return left_out

    def write(self, call: CallContext, status: int, error: TidegateError, peer: str) -> None:
        """Log a refusal, unless there were too many."""
        left_out = self.take()
        if left_out is None:
            return
        more = {"left_out": left_out} if left_out else {}
        said = {"code": error.code, "reason": error.detail, "peer": peer, "request_id": call.request_id}
        _log.info("http_refused", status=status, **said, **more)


class RefusingHandler(web.RequestHandler):
    """A connection that answers what is no request as the service answers any failure, and then closes."""

    __slots__ = ("_beginning", "_refusals")

    def __init__(self, manager: web.Server, refusals: RefusalLog, **options: Any) -> None:  # noqa: ANN401 - aiohttp's
        super().__init__(manager, **options)
        self._beginning = b""
        self._refusals = refusals

    def data_received(self, data: bytes) -> None:
        """Parse received bytes."""
        super().data_received(data)
        messages = self._messages
        if messages:
            if not isinstance(messages[-1][0], RawRequestMessage):
                self._refuse(data)
        elif self._current_request is None and _TARGET.match(data, 0, PEEKED):
            self._beginning = data[:PEEKED]

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002 - the error has one
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it has the client's bytes
    ) -> web.StreamResponse:
        """Return the answer to bytes that are no request, or to one that was refused before the middleware.

        Raises:
            ConnectionError: an answer has been begun; the connection is closed.
        """
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has been begun")
        cause = exc if isinstance(exc, Exception) else InternalError()
        asked: Any = request
        if isinstance(cause, HttpProcessingError):
            asked = request.clone(rel_url=_family(self._beginning))
            failure: TidegateError = refusal_of(cause, self._beginning)
        else:
            failure = failure_of(cause, asked)
        request._version = HttpVersion11  # noqa: SLF001 - that of the answer: aiohttp takes 1.0 for bytes without any
        call = open_call(asked)
        response = error_response(asked, call, failure, cause)
        stamp(response, call)
        response.force_close()
        self._refusals.write(call, response.status, failure, request.remote or "")
        return response

    def log_exception(self, *args: Any, **options: Any) -> None:  # noqa: ANN401, ARG002 - aiohttp's
        """Log a failure outside of the middleware; one that the client has caused has been answered."""
        failure = options.get("exc_info")
        if not isinstance(failure, _CLIENTS):
            _log.error("connection_failed", exc_info=failure)

    def _refuse(self, data: bytes) -> None:
        """Let the request whose body is not readable fail, or else queue an answer; parse nothing more."""
        messages: deque[Any] = self._messages
        refused, _ = messages.pop()
        rest: Any = _Rest(self.transport)
        self._parser = rest
        current: Any = self._current_request
        message, payload = (None, None) if current is None else (current._message, current.content)  # noqa: SLF001 - see below
        if messages:
            message, payload = messages[-1]
        if payload is None or payload.is_eof() or not isinstance(message, RawRequestMessage):
            if _TARGET.match(data, 0, PEEKED) or not self._beginning:
                self._beginning = data[:PEEKED]
            messages.append((refused, rest))
            return
        payload.set_exception(web.RequestPayloadError("the rest of the body is no HTTP"))
        closing = message._replace(should_close=True)
        if messages:
            messages[-1] = (closing, payload)
        else:
            current._message = closing  # noqa: SLF001 - the answer has to say that the connection ends
        self.close()


class _Rest:
    """What a refused client still sends: dropped, for a moment after the answer. It stands for a parser and a body."""

    def __init__(self, transport: asyncio.Transport | None) -> None:
        self._transport = transport
        self._ended = False

    def feed_data(self, _: bytes) -> tuple[tuple[()], bool, bytes]:
        """Drop bytes."""
        return (), False, b""

    def pause_reading(self) -> None:
        """Do nothing: no bytes are kept."""

    def message_consumed(self) -> None:
        """Do nothing: no request is counted."""

    def set_upgraded(self, _: bool) -> None:  # noqa: FBT001 - as the parser has it
        """Do nothing: nothing is parsed."""

    def is_eof(self) -> bool:
        """Whether the moment is over."""
        return self._ended

    async def readany(self) -> bytes:
        """End the answer's direction, so that the client sees its end, and wait for a moment."""
        self._ended = True
        transport = self._transport
        if transport is not None and not transport.is_closing() and transport.can_write_eof():
            transport.write_eof()
        await asyncio.sleep(LINGER)
        return b""

    def set_exception(self, _: BaseException, cause: BaseException | None = None) -> None:
        """Do nothing: nobody reads."""


def refusal_of(error: HttpProcessingError, beginning: bytes) -> InvalidRequest:
    """Return the failure for what the parser says of a request that begins with ``beginning``; it repeats no input."""
    if beginning.startswith(_TLS):
        return InvalidRequest("This port speaks plain HTTP, not TLS", code="malformed_request")
    if beginning.startswith(_HTTP2):
        return InvalidRequest("This port speaks HTTP/1.1, not HTTP/2", code="http_version_not_supported")
    if isinstance(error, LineTooLong):
        line = isinstance(error.args[0], bytearray)  # the parser's buffer of the request's line
        return InvalidRequest(code="uri_too_long" if line else "headers_too_large")
    if isinstance(error, ContentEncodingError):
        return InvalidRequest("The service does not read this `Content-Encoding`", code="unsupported_media_type")
    if type(error) is BadHttpMessage and error.message.startswith(_TOO_MANY):
        return InvalidRequest(code="headers_too_large")
    return InvalidRequest(_reason(error), code="malformed_request")


def _reason(error: HttpProcessingError) -> str:
    """Return the parser's own words; empty where they may hold the client's."""
    if type(error) not in {BadHttpMessage, BadHttpMethod, BadStatusLine}:
        return ""
    found = _REASON.match(error.message)
    return (found[1] or found[2]) if found else ""


def _family(beginning: bytes) -> str:
    """Return an address of the same family as that of the request: its answer has the same form."""
    found = _TARGET.match(beginning)
    path = found[1].decode("ascii", "replace") if found else ""
    return next((family for family in (ANTHROPIC, COMPATIBLE) if path.startswith(family)), "/")
