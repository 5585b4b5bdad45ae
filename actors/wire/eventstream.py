"""AWS event streams (Bedrock): splits the bytes of a stream into messages, and checks both checksums of each."""

import struct
import zlib
from collections.abc import Mapping
from typing import Final

import msgspec

from protocol.errors import ProviderError

CONTENT_TYPE: Final = "application/vnd.amazon.eventstream"
MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024
MAX_HEADER_BYTES: Final = 128 * 1024  # of one message, as AWS has it

_PRELUDE: Final = struct.Struct(">III")  # the message's length, its headers' length, the checksum of these two
_CHECKED: Final = 8  # bytes of the prelude that its checksum covers
_CHECKSUM: Final = struct.Struct(">I")
_LENGTH: Final = struct.Struct(">H")
_BYTES: Final = 6
_TEXT: Final = 7
_SIZES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # bytes of a header's value, by its type


class EventMessage(msgspec.Struct, frozen=True):
    """A message.

    Attributes:
        headers: the headers whose values are strings.
        payload: the body.
    """

    headers: Mapping[str, str]
    payload: bytes


class MessageSplitter:
    """Splits a stream into messages. A message that is not complete is not returned.

    Args:
        limit: the most bytes of one message.
    """

    __slots__ = ("_buffer", "_failure", "_limit")

    def __init__(self, limit: int = MAX_MESSAGE_BYTES) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._failure: ProviderError | None = None

    def feed(self, chunk: bytes) -> list[EventMessage]:
        """Return every message that ``chunk`` completes, in order. Messages before a failure are returned first.

        Raises:
            ProviderError: ``response_too_large``: a message is larger than the limit; ``provider_bad_response``: the
                bytes are not an event stream.
        """
        self._buffer += chunk
        messages: list[EventMessage] = []
        try:
            while self._failure is None and (message := self._next()) is not None:
                messages.append(message)
        except ProviderError as error:
            self._failure = error
        if self._failure is not None and not messages:
            failure, self._failure = self._failure, None
            try:
                raise failure
            finally:
                del failure
        return messages

    def end(self) -> None:
        """Read the end of the stream.

        Raises:
            ProviderError: ``provider_stream_broken``: a message is not complete.
        """
        if self._buffer:
            raise ProviderError(code="provider_stream_broken")

    def _next(self) -> EventMessage | None:
        buffer = self._buffer
        if len(buffer) < _PRELUDE.size:
            return None
        total, headers, checksum = _PRELUDE.unpack_from(buffer)
        body = _PRELUDE.size + headers
        end = total - _CHECKSUM.size
        if zlib.crc32(buffer[:_CHECKED]) != checksum or body > end:
            raise ProviderError(code="provider_bad_response")
        if total > self._limit or headers > MAX_HEADER_BYTES:
            raise ProviderError(code="response_too_large")
        if len(buffer) < total:
            return None
        message = bytes(buffer[:end])
        if zlib.crc32(message) != _CHECKSUM.unpack_from(buffer, end)[0]:
            raise ProviderError(code="provider_bad_response")
        del buffer[:total]
        return EventMessage(_string_headers(message[_PRELUDE.size : body]), message[body:])


def _string_headers(block: bytes) -> dict[str, str]:
    """Return the headers whose values are strings."""
    headers: dict[str, str] = {}
    at = 0
    try:
        while at < len(block):
            start = at + 1 + block[at]
            name, kind = block[at + 1 : start].decode(), block[start]
            start += 1
            if kind in (_BYTES, _TEXT):
                size = _LENGTH.unpack_from(block, start)[0]
                start += _LENGTH.size
            else:
                size = _SIZES[kind]
            at = start + size
            if kind == _TEXT:
                headers[name] = block[start:at].decode()
    except (IndexError, KeyError, UnicodeDecodeError, struct.error) as error:
        raise ProviderError(code="provider_bad_response") from error
    return headers
