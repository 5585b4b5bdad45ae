"""Answers in JSON, each in one piece."""

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from service.context import CALL, SERVER_NAME, Call

_NONE: Final[Mapping[str, str]] = {}
_CONNECTION: Final = {True: "Connection: keep-alive\r\n", False: "Connection: close\r\n"}

_encode: Final = msgspec.json.Encoder().encode


class Answer(web.StreamResponse):
    """JSON that is there as a whole: its head is written here, and leaves with it.

    ``web.Response`` finds out each time that there is nothing to compress, no cookie, no text and no stream, and that
    the length is known, which costs several times as much as the answer itself. As every response of the service it has
    the ids of its call; ``on_response_prepare`` is not sent for it.

    Args:
        body: the JSON.
        status: 200, or any other that may have a body.
        headers: those of this answer alone; anything printable.
    """

    def __init__(
        self, body: bytes, *, status: int = web.HTTPOk.status_code, headers: Mapping[str, str] = _NONE
    ) -> None:
        if not "".join(headers.values()).isprintable():
            raise ValueError(f"headers must be printable, got {headers!r}")
        super().__init__(status=status)
        self._whole = body
        self._own = headers

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Put the head before the body; nothing is sent yet."""
        writer = request.writer
        if not self.prepared:
            self._payload_writer = writer
            head = self._head(request.version.minor, keep_alive=request.keep_alive, call=request[CALL])
            self._whole = head.encode() + (b"" if request.method == "HEAD" else self._whole)
        return writer

    async def write_eof(self, data: bytes = b"") -> None:  # noqa: ARG002 - there is no more than the whole
        """Send all of it."""
        await super().write_eof(self._whole)

    def _head(self, minor: int, *, keep_alive: bool, call: Call) -> str:
        if self._keep_alive is None:
            self._keep_alive = keep_alive
        connection = "" if self._keep_alive == bool(minor) else _CONNECTION[self._keep_alive]
        lines = "".join([f"{name}: {value}\r\n" for name, value in self._own.items()])
        return (
            f"HTTP/1.{minor} {self._status} {self._reason}\r\n{lines}{connection}Content-Type: application/json\r\n"
            f"Content-Length: {len(self._whole)}\r\nDate: {_date(int(time.time()))}\r\nServer: {SERVER_NAME}\r\n"
            f"x-request-id: {call.request_id}\r\nx-trace-id: {call.trace_id}\r\n\r\n"
        )


def json_answer(
    value: msgspec.Struct, *, status: int = web.HTTPOk.status_code, headers: Mapping[str, str] = _NONE
) -> Answer:
    """Return ``value`` as the body, which nobody on the way may keep; money is a text in it, exact."""
    return Answer(_encode(value), status=status, headers={"Cache-Control": "no-store", **headers})


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
