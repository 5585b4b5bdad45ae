"""Provider of Anthropic's models on Amazon Bedrock, by AWS credentials or a key, through package ``anthropic``."""

from typing import ClassVar, Final

import msgspec

from actors.llm_gateway.providers.claude import CloudClaude
from actors.llm_gateway.providers.sdk import NO_RETRIES, Connected
from actors.wire.eventstream import CONTENT_TYPE, EventMessage, MessageSplitter
from actors.wire.json_body import check_values
from actors.wire.sse import Splitter
from protocol.errors import ProviderError

CHUNK: Final = "chunk"
MAX_IDLE_BYTES: Final = 1024 * 1024  # between two messages that are events
MAX_NO_EVENT: Final = 64 * 1024  # bytes of a message that is no event

_ERRORS: Final = {
    "modeltimeoutexception": "timeout_error",
    "serviceunavailableexception": "overloaded_error",
    "throttlingexception": "rate_limit_error",
    "validationexception": "invalid_request_error",
}


class _Chunk(msgspec.Struct):
    bytes: bytes | None


class _Exception(msgspec.Struct):
    message: str = ""


_chunk = msgspec.json.Decoder(_Chunk).decode
_exception = msgspec.json.Decoder(_Exception).decode


class BedrockSplitter:
    """Turns AWS's event stream into the data of Anthropic's events; an exception becomes an error event.

    Args:
        limit: the most bytes of one message.
    """

    __slots__ = ("_idle", "_messages", "whole")
    content_type: ClassVar[str] = CONTENT_TYPE

    def __init__(self, limit: int) -> None:
        self._messages = MessageSplitter(limit)
        self._idle = 0  # bytes since the last event, of messages of other kinds
        self.whole = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of every event that ``chunk`` completes, in order. Events of other kinds are dropped.

        Raises:
            ProviderError: as ``MessageSplitter``; ``response_too_large``: too much comes that is no event.
        """
        messages = self._messages.feed(chunk)
        events = [_data(message) for message in messages if message.headers.get(":event-type", CHUNK) == CHUNK]
        self._idle = 0 if events or not messages else self._idle + len(chunk)
        if self._idle > MAX_IDLE_BYTES:
            raise ProviderError(code="response_too_large")
        return events

    def complete(self) -> list[bytes]:
        """Return nothing: these streams are never one whole answer."""
        return []

    def end(self) -> list[bytes]:
        """Return nothing.

        Raises:
            ProviderError: ``provider_stream_broken``: a message is not complete.
        """
        self._messages.end()
        return []


def _data(message: EventMessage) -> bytes:
    headers = message.headers
    failed = ":exception-type" in headers or ":error-code" in headers
    if not failed and headers.get(":message-type", "event") == "event":
        try:
            event = _chunk(message.payload).bytes or b""
        except msgspec.DecodeError:
            return message.payload[:MAX_NO_EVENT]  # no event: the reader of the answer raises
        check_values(event)
        return event
    name = headers.get(":exception-type") or headers.get(":error-code", "")
    error = {"type": _ERRORS.get(name.lower(), "api_error"), "message": _message(message)}
    return msgspec.json.encode({"type": "error", "error": error})


def _message(message: EventMessage) -> str:
    try:
        return _exception(message.payload).message
    except (msgspec.DecodeError, UnicodeDecodeError):
        return message.headers.get(":error-message", "")


class BedrockProvider(CloudClaude):
    """Messages of Anthropic's models on Bedrock: a ``Provider``. A model is a model's id, or an inference profile's.

    It uses the spec's ``region``, ``profile``, and ``base_url``, which replaces the region's address. Without a key it
    signs with AWS's default credentials: the environment, the profile, a container's or an instance's role.
    """

    version: ClassVar[str] = "bedrock-2023-05-31"
    priced_as: ClassVar[str] = "aws"
    framing: ClassVar[type[Splitter]] = BedrockSplitter

    def _connect(self) -> Connected:
        from anthropic import AsyncAnthropicBedrock  # noqa: PLC0415 - two seconds

        from actors.llm_gateway.providers.unsent import Response, UnsentClient  # noqa: PLC0415 - the same

        spec = self._spec
        client = AsyncAnthropicBedrock(
            aws_region=spec.region,
            aws_profile=spec.profile or None,
            api_key=self._api_key or None,
            base_url=spec.base_url or f"https://bedrock-runtime.{spec.region}.amazonaws.com",
            max_retries=NO_RETRIES,
            http_client=UnsentClient(),
            open_telemetry=False,
        )
        if self._api_key:
            return Connected(client, Response)
        from botocore.exceptions import HTTPClientError  # noqa: PLC0415 - an extra

        return Connected(client, Response, (HTTPClientError,))
