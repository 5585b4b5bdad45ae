"""Tool names that an upstream does not take, shortened in its requests and mapped back in its answers."""

import hashlib
import re
from collections.abc import Iterator
from typing import Final, TypeVar

import msgspec

from protocol.llm import ChatMessage, ChatRequest, Tool, ToolCall, ToolCallPart
from protocol.vendor_extras import vendor_of

OPENAI_LENGTH: Final = 64
ANTHROPIC_LENGTH: Final = 128
DIGEST: Final = 8  # hexadecimal digits at the end of a shortened name

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")
_ODD: Final = re.compile(r"[^A-Za-z0-9_-]")

CallT = TypeVar("CallT", ToolCall, ToolCallPart)


class ToolNames:
    """The names of one request's tools that its upstream does not take, and what they are called there.

    A shortened name depends on the name alone, so that it is the same in every turn of a conversation.

    Args:
        names: the names that have to be changed.
        length: the most characters of a name.
        taken: names that are sent as they are.
    """

    __slots__ = ("_own", "_sent")

    def __init__(self, names: list[str], length: int, taken: set[str]) -> None:
        self._sent: dict[str, str] = {}
        self._own: dict[str, str] = {}
        for name in names:
            short = _shortened(name, length, 0)
            repeats = 0
            while short in taken or short in self._own:
                repeats += 1
                short = _shortened(name, length, repeats)
            self._sent[name] = short
            self._own[short] = name

    def own(self, name: str) -> str:
        """Return the request's name of a tool that the upstream calls ``name``."""
        return self._own.get(name, name)

    def applied(self, request: ChatRequest) -> ChatRequest:
        """Return ``request`` with the names that its upstream takes."""
        sent = self._sent
        return msgspec.structs.replace(
            request,
            messages=tuple(self._message(message) for message in request.messages),
            tools=tuple(_renamed(tool, sent.get(tool.name, tool.name)) for tool in request.tools),
            tool_choice=sent.get(request.tool_choice, request.tool_choice),
        )

    def _message(self, message: ChatMessage) -> ChatMessage:
        if not any(call.name in self._sent for call in _calls(message)):
            return message
        content = message.content
        if not isinstance(content, str):
            content = tuple(self._call(part) if isinstance(part, ToolCallPart) else part for part in content)
        return msgspec.structs.replace(message, content=content, tool_calls=tuple(map(self._call, message.tool_calls)))

    def _call(self, call: CallT) -> CallT:
        return msgspec.structs.replace(call, name=self._sent.get(call.name, call.name))


def tool_names(request: ChatRequest, length: int) -> ToolNames | None:
    """Return the names of ``request`` that an upstream with names of ``length`` does not take; None for none."""
    odd: dict[str, None] = {}
    taken: set[str] = set()
    for name in _names(request):
        if len(name) > length or not _PLAIN.fullmatch(name):
            odd[name] = None
        else:
            taken.add(name)
    return ToolNames([*odd], length, taken) if odd else None


def _names(request: ChatRequest) -> Iterator[str]:
    for tool in request.tools:
        if vendor_of(tool) is None:
            yield tool.name
    for message in request.messages:
        if message.role == "assistant" and (message.tool_calls or not isinstance(message.content, str)):
            for call in _calls(message):
                yield call.name


def _calls(message: ChatMessage) -> Iterator[ToolCall | ToolCallPart]:
    if not isinstance(message.content, str):
        for part in message.content:
            if isinstance(part, ToolCallPart):
                yield part
    yield from message.tool_calls


def _renamed(tool: Tool, name: str) -> Tool:
    return tool if name == tool.name or vendor_of(tool) is not None else msgspec.structs.replace(tool, name=name)


def _shortened(name: str, length: int, repeats: int) -> str:
    digest = hashlib.blake2b(f"{repeats or ''}{name}".encode("utf-8", "surrogatepass")).hexdigest()[:DIGEST]
    return f"{_ODD.sub('_', name)[: length - DIGEST - 1]}_{digest}"
