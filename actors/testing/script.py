"""The steps of a scripted reply, and their encoding in each dialect."""

import asyncio
import base64
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from actors.testing.eventstream import event_message
from protocol.llm import FinishReason, Usage

CREATED: Final = 1_700_000_000
RESPONSE_ID: Final = "scripted-1"
STREAM: Final = "text/event-stream"
USAGE: Final = Usage(input_tokens=7, output_tokens=3)


class Say(msgspec.Struct, frozen=True):
    """Sends one chunk of text; ``logprobs``, an entry a token, only in OpenAI's dialect."""

    text: str
    logprobs: tuple[Mapping[str, Any], ...] = ()


class Think(msgspec.Struct, frozen=True):
    """Sends one chunk of reasoning. A signature ends the thought; a redacted thought has only its signature."""

    text: str = ""
    signature: str = ""
    redacted: bool = False


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Sends one piece of a tool call."""

    index: int = 0
    id: str = ""
    name: str = ""
    arguments: str = ""


class End(msgspec.Struct, frozen=True, kw_only=True):
    """Ends the answer: its finish reason, its usage (None for none), and with ``marker`` the stream's end marker.

    Only Anthropic's dialect has a ``stop_sequence``. ``word`` is sent in the place of the dialect's own finish reason.
    """

    finish_reason: FinishReason = "stop"
    word: str = ""
    stop_sequence: str = ""
    usage: Usage | None = USAGE
    marker: bool = True


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Sends an in-band error of this kind. Its message is passed on for refusals of the request only."""

    kind: str = "server_error"
    message: str = "a secret of the upstream's"


class Data(msgspec.Struct, frozen=True):
    """Sends one event of the stream with this data, valid or not."""

    data: bytes


class Ping(msgspec.Struct, frozen=True):
    """Sends a keep-alive without content."""


class Send(msgspec.Struct, frozen=True):
    """Sends these bytes unchanged, in one write."""

    data: bytes


class Wait(msgspec.Struct, frozen=True):
    """Waits until ``event`` is set."""

    event: asyncio.Event


class Stall(msgspec.Struct, frozen=True):
    """Waits until the client closes the connection."""


class Cut(msgspec.Struct, frozen=True):
    """Closes the connection, at whatever point the answer is."""


class Reset(msgspec.Struct, frozen=True):
    """Resets the connection: the client's next read or write fails."""


Step = Say | Think | Call | End | Fault | Data | Ping | Send | Wait | Stall | Cut | Reset


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one request. A stream without an ``End`` ends without a finish reason and a marker.

    Attributes:
        steps: run in order, after the response's headers.
        status: the HTTP status; any other than 200 sends ``body`` and runs no steps.
        headers: further headers of the response.
        content_type: of a streamed response; empty for the dialect's own.
        body: of a response whose status is not 200.
        before: steps that run before the headers; bytes sent there take the place of the headers.
        split: the most bytes of one write; 0 for one write a step.
        whole: whether the answer is whole JSON, also where the request asks for a stream.
    """

    steps: tuple[Step, ...] = (Say("Hello"), Say(" world"), End())
    status: int = 200
    headers: Mapping[str, str] = {}
    content_type: str = ""
    body: bytes = b'{"error": {"message": "a secret of the upstream\'s"}}'
    before: tuple[Send | Wait | Stall | Cut | Reset, ...] = ()
    split: int = 0
    whole: bool = False


def say(*texts: str, usage: Usage | None = USAGE) -> Reply:
    """Return a complete answer with these chunks of text."""
    return Reply(steps=(*map(Say, texts), End(usage=usage)))


def refuse(status: int, **headers: str) -> Reply:
    """Return a refusal with this status. The keyword ``retry_after="1"`` is the header ``retry-after: 1``."""
    return Reply(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})


class OpenAIReplyEncoder:
    """Encodes steps as OpenAI's chat completions."""

    def __init__(self, model: str) -> None:
        self._head = {"id": RESPONSE_ID, "object": "chat.completion.chunk", "created": CREATED, "model": model}
        self._begun = False

    def encode(self, step: Step) -> bytes:
        """Return the bytes of one step."""
        match step:
            case Say():
                encoded = self._delta({"content": step.text}, logprobs=step.logprobs)
            case Think():
                encoded = self._delta({"reasoning_content": step.text})
            case Call():
                function = {"name": step.name or None, "arguments": step.arguments}
                encoded = self._delta(
                    {"tool_calls": [{"index": step.index, "id": step.id or None, "function": function}]}
                )
            case End():
                encoded = self._end(step)
            case Fault():
                encoded = _data({"error": {"message": step.message, "type": step.kind, "code": None}})
            case Data():
                encoded = b"data: %b\n\n" % step.data
            case Ping():
                encoded = b": ping\n\n"
            case _:
                encoded = step.data if isinstance(step, Send) else b""
        return encoded

    def whole(self, steps: tuple[Step, ...]) -> bytes:
        """Return the body of an answer that is not streamed."""
        text, end = _merged(steps)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": end.word or end.finish_reason}
        body = {**self._head, "object": "chat.completion", "choices": [choice], "usage": _openai_usage(end.usage)}
        return msgspec.json.encode(body)

    def _delta(
        self, delta: dict[str, Any], finish: str | None = None, logprobs: tuple[Mapping[str, Any], ...] = ()
    ) -> bytes:
        if not self._begun:
            self._begun = True
            delta = {"role": "assistant", **delta}
        choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": finish}
        if logprobs:
            choice["logprobs"] = {"content": logprobs, "refusal": None}
        return _data({**self._head, "choices": [choice]})

    def _end(self, step: End) -> bytes:
        encoded = self._delta({}, step.word or step.finish_reason)
        if step.usage is not None:
            encoded += _data({**self._head, "choices": [], "usage": _openai_usage(step.usage)})
        return encoded + b"data: [DONE]\n\n" if step.marker else encoded


class AnthropicReplyEncoder:
    """Encodes steps as Anthropic's messages."""

    REASONS: Final[dict[str, str]] = {
        "stop": "end_turn",
        "length": "max_tokens",
        "tool_calls": "tool_use",
        "content_filter": "refusal",
    }

    def __init__(self, model: str) -> None:
        self._model = model
        self._blocks: list[object] = []
        self._thoughts = 0
        self._begun = False

    def encode(self, step: Step) -> bytes:
        """Return the bytes of one step."""
        if isinstance(step, Say | Think | Call | End | Fault):
            return (b"" if self._begun else self._start()) + self._content(step)
        if isinstance(step, Ping):
            return self._event({"type": "ping"})
        if isinstance(step, Data):
            return self._framed("nonsense", step.data)
        return step.data if isinstance(step, Send) else b""

    def _content(self, step: Say | Think | Call | End | Fault) -> bytes:
        if isinstance(step, Think):
            return self._think(step)
        if isinstance(step, Say):
            return self._block("text", {"type": "text", "text": ""}, {"type": "text_delta", "text": step.text})
        if isinstance(step, Call):
            block = {"type": "tool_use", "id": step.id, "name": step.name, "input": {}}
            return self._block(step.index, block, {"type": "input_json_delta", "partial_json": step.arguments})
        if isinstance(step, Fault):
            return self._event({"type": "error", "error": {"type": step.kind, "message": step.message}})
        return self._end(step)

    def whole(self, steps: tuple[Step, ...]) -> bytes:
        """Return the body of an answer that is not streamed."""
        text, end = _merged(steps)
        usage = end.usage or Usage()
        body = {
            "id": RESPONSE_ID,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [{"type": "text", "text": text}],
            "stop_reason": end.word or self.REASONS[end.finish_reason],
            "stop_sequence": None,
            "usage": {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens},
        }
        return msgspec.json.encode(body)

    def _event(self, body: dict[str, Any]) -> bytes:
        return self._framed(body["type"], msgspec.json.encode(body))

    def _framed(self, kind: str, data: bytes) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)

    def _start(self) -> bytes:
        self._begun = True
        message: dict[str, Any] = {
            "id": RESPONSE_ID,
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }
        return self._event({"type": "message_start", "message": message})

    def _think(self, step: Think) -> bytes:
        key = ("thought", self._thoughts)
        if step.redacted:
            self._thoughts += 1
            return self._block(key, {"type": "redacted_thinking", "data": step.signature}, None)
        block = {"type": "thinking", "thinking": "", "signature": ""}
        encoded = self._block(key, block, {"type": "thinking_delta", "thinking": step.text})
        if step.signature:
            self._thoughts += 1
            encoded += self._block(key, block, {"type": "signature_delta", "signature": step.signature})
        return encoded

    def _block(self, key: object, block: dict[str, Any], delta: dict[str, Any] | None) -> bytes:
        start = b""
        if key not in self._blocks:
            self._blocks.append(key)
            index = len(self._blocks) - 1
            start = self._event({"type": "content_block_start", "index": index, "content_block": block})
        if delta is None:
            return start
        index = self._blocks.index(key)
        return start + self._event({"type": "content_block_delta", "index": index, "delta": delta})

    def _end(self, step: End) -> bytes:
        reason = step.word or self.REASONS[step.finish_reason]
        delta: dict[str, str | None] = {"stop_reason": reason, "stop_sequence": None}
        if step.stop_sequence:
            delta = {"stop_reason": "stop_sequence", "stop_sequence": step.stop_sequence}
        event: dict[str, Any] = {"type": "message_delta", "delta": delta}
        if step.usage is not None:
            cached, written = step.usage.cached_input_tokens, step.usage.cache_write_input_tokens
            event["usage"] = {
                "input_tokens": step.usage.input_tokens - cached - written,
                "cache_creation_input_tokens": written,
                "cache_read_input_tokens": cached,
                "output_tokens": step.usage.output_tokens,
            }
        encoded = self._event(event)
        return encoded + self._event({"type": "message_stop"}) if step.marker else encoded


class BedrockReplyEncoder(AnthropicReplyEncoder):
    """Encodes steps as Anthropic's messages in an AWS event stream."""

    EXCEPTIONS: Final[dict[str, str]] = {
        "invalid_request_error": "validationException",
        "overloaded_error": "serviceUnavailableException",
        "rate_limit_error": "throttlingException",
        "timeout_error": "modelTimeoutException",
    }

    def _event(self, body: dict[str, Any]) -> bytes:
        if body["type"] != "error":
            return super()._event(body)
        headers = {
            ":exception-type": self.EXCEPTIONS.get(body["error"]["type"], "internalServerException"),
            ":content-type": "application/json",
            ":message-type": "exception",
        }
        return event_message(headers, msgspec.json.encode({"message": body["error"]["message"]}))

    def _framed(self, _kind: str, data: bytes) -> bytes:
        headers = {":event-type": "chunk", ":content-type": "application/json", ":message-type": "event"}
        return event_message(headers, msgspec.json.encode({"bytes": base64.b64encode(data).decode(), "p": "abc"}))


def _data(body: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % msgspec.json.encode(body)


def _merged(steps: tuple[Step, ...]) -> tuple[str, End]:
    text = "".join(step.text for step in steps if isinstance(step, Say))
    return text, next((step for step in steps if isinstance(step, End)), End())


def _openai_usage(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_input_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
