"""JSON responses that are sent in one write."""

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import Final

import msgspec
from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from service.context import CALL, SERVER_NAME, CallContext
from service.middleware.limit_headers import limit_lines
from service.security_headers import RESPONSE, lines_of

_NONE: Final[Mapping[str, str]] = {}
_CONNECTION: Final = {True: "Connection: keep-alive\r\n", False: "Connection: close\r\n"}

_SECURITY: Final = lines_of({name: value for name, value in RESPONSE.items() if name != hdrs.CACHE_CONTROL})
_UNCACHED: Final = lines_of(RESPONSE)
_encode: Final = msgspec.json.Encoder().encode


class JsonResponse(web.StreamResponse):
    """A JSON body whose head is formatted here and sent in the same write.

    ``web.Response`` checks each time for compression, cookies, text and streams, which costs several times as much as
    the response itself. Like every response of the service it has the ids of its call, and what is left of its caller's
    limits; ``on_response_prepare`` is not sent for it.

    Without a ``Cache-Control`` of its own it is not to be cached.

    Args:
        body: the JSON.
        status: 200, or any other that may have a body.
        headers: further headers; they must be printable.
    """

    def __init__(
        self, body: bytes, *, status: int = web.HTTPOk.status_code, headers: Mapping[str, str] = _NONE
    ) -> None:
        if not "".join(headers.values()).isprintable():
            raise ValueError(f"headers must be printable, got {headers!r}")
        super().__init__(status=status)
        self._content = body
        self._extra = headers

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Format the head before the body; nothing is sent yet."""
        writer = request.writer
        if not self.prepared:
            self._payload_writer = writer
            head = self._head(request.version.minor, keep_alive=request.keep_alive, call=request[CALL])
            self._content = head.encode() + (b"" if request.method == "HEAD" else self._content)
        return writer

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002 - the body is complete already
        """Send head and body."""
        await super().write_eof(self._content)

    def _head(self, minor: int, *, keep_alive: bool, call: CallContext) -> str:
        if self._keep_alive is None:
            self._keep_alive = keep_alive
        connection = "" if self._keep_alive == bool(minor) else _CONNECTION[self._keep_alive]
        lines = "\r\n".join(map(": ".join, self._extra.items()))
        extra = f"{lines}\r\n" if lines else ""
        extra += _SECURITY if hdrs.CACHE_CONTROL in self._extra else _UNCACHED
        if call.cors:
            extra += "".join([f"{name}: {value}\r\n" for name, value in call.cors.items()])
        if call.limits:
            extra += limit_lines(call.limits, time.time())
        return (
            f"HTTP/1.{minor} {self._status} {self._reason}\r\n{extra}{connection}Content-Type: application/json\r\n"
            f"Content-Length: {len(self._content)}\r\nDate: {_date(int(time.time()))}\r\nServer: {SERVER_NAME}\r\n"
            f"x-request-id: {call.request_id}\r\nx-trace-id: {call.trace_id}\r\n\r\n"
        )


def json_response(
    value: msgspec.Struct, *, status: int = web.HTTPOk.status_code, headers: Mapping[str, str] = _NONE
) -> JsonResponse:
    """Return a response with ``value`` as JSON; decimals are encoded as strings, exactly."""
    return JsonResponse(_encode(value), status=status, headers=headers)


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
