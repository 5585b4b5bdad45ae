"""Structured output for upstreams without it: the model answers with the arguments of a forced tool."""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import msgspec

from actors.llm_gateway.provider import AnswerStream, Provider
from actors.llm_gateway.providers.delegated import DelegatedAnswer
from protocol.events import Delta, ToolCallDelta
from protocol.gateway import ProviderState
from protocol.llm import ChatRequest, FinishReason, Tool
from protocol.upstream import AnswerReader, Deltas

ANSWER: Final = "answer"  # the tool's name, unless the caller has a tool of that name
DESCRIPTION: Final = "Gives the answer. Call it with the whole answer as its arguments, and say nothing else."
_NAMESPACE: Final = re.compile(r"^(?:functions|tools|default_api|namespace|multi_tool_use)[.:/]+", re.IGNORECASE)
ASIDE: Final = 2048  # characters of text before the call of the tool that are dropped; longer text is the answer


def forced(request: ChatRequest) -> tuple[ChatRequest, str] | None:
    """Return ``request`` with a tool in place of its schema, and the tool's name; None for a request left unchanged.

    With tools of the caller's own, the model has to call one of them or this one. Where the caller forces one of its
    own, no tool is added, and the name is empty. A tool's arguments are an object, so a schema of another type is left
    unchanged.
    """
    schema = request.schema
    if schema is None or (schema.get("type") != "object" and "properties" not in schema):
        return None
    extra = {key: value for key, value in request.extra.items() if key != "response_format"}
    own = () if request.tool_choice == "none" else request.tools
    if own and request.tool_choice not in ("", "auto", "required"):
        return msgspec.structs.replace(request, schema=None, extra=extra), ""
    name = ANSWER
    while any(_plain(tool.name) == name for tool in own):
        name += "_"
    tool = Tool(name=name, description=DESCRIPTION, parameters=schema)
    choice = "required" if own else name
    return msgspec.structs.replace(request, schema=None, tools=(*own, tool), tool_choice=choice, extra=extra), name


def _plain(name: str) -> str:
    """Return a tool's name without a namespace before it, such as that of ``functions.answer``, in lower case."""
    return _NAMESPACE.sub("", name).lower()


class ForcedAnswer(DelegatedAnswer):
    """Turns the arguments of one tool into the text of the answer: an ``AnswerReader`` over another.

    ::

        aside ──the tool is called──► called: its arguments are the text
          └──longer than ASIDE, another tool, or the end──► plain: the text is the answer

    Text before the tool is called is an aside, and dropped; where the model calls no tool, it is the answer. Of several
    calls of the tool the first is the answer, and the others are dropped.

    Args:
        reader: reads the upstream's answer.
        name: the tool's.
    """

    __slots__ = ("_aside", "_called", "_held", "_name", "_others", "_parts", "_repeated")

    def __init__(self, reader: AnswerReader, name: str) -> None:
        super().__init__(reader)
        self._name = name
        self._called: int | None = None
        self._others = False
        self._aside: list[Delta] | None = []
        self._held = 0
        self._repeated: set[int] = set()  # the indexes of further calls of the tool
        self._parts: dict[int, int] = {}  # the parts that are given on: theirs to ours

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the model stopped: a call of the tool alone is ``stop``."""
        reason = self._reader.finish_reason
        return "stop" if reason == "tool_calls" and self._called is not None and not self._others else reason

    def feed(self, data: bytes, into: Deltas) -> None:
        """Read the data of one event, and append its content to ``into``."""
        pieces: Deltas = []
        self._reader.feed(data, pieces)
        into += self.translate(pieces)

    def close(self, into: Deltas, *, proper: bool) -> None:
        """Read the end of the stream, and append the content that waited for it to ``into``."""
        pieces: Deltas = []
        self._reader.close(pieces, proper=proper)
        into += self.translate(pieces)
        into += self.rest()

    def translate(self, pieces: Deltas) -> Deltas:
        """Return the content of the answer in the pieces of one read."""
        content: Deltas = []
        for piece in pieces:
            if isinstance(piece, Delta):
                self._add_text(piece, content)
            elif isinstance(piece, ToolCallDelta):
                self._add_call(piece, content)
            else:
                content.append(piece)
        if self.ended:
            content += self._taken()
        return self._numbered(content)

    def rest(self) -> Deltas:
        """Return the text that was held back, at the end."""
        return self._numbered(self._taken())

    def _taken(self) -> Deltas:
        held, self._aside = self._aside, None
        return [*held] if held else []

    def _numbered(self, content: Deltas) -> Deltas:
        """Return the pieces with the numbers of the parts that are given on."""
        parts = self._parts
        for at, piece in enumerate(content):
            part = parts.setdefault(piece.part, len(parts))
            if part != piece.part:
                content[at] = msgspec.structs.replace(piece, part=part)
        return content

    def _add_text(self, piece: Delta, content: Deltas) -> None:
        if self._called is not None:
            return
        if self._aside is None:
            content.append(piece)
            return
        self._aside.append(piece)
        self._held += len(piece.text)
        if self._held > ASIDE:
            content += self._taken()

    def _add_call(self, piece: ToolCallDelta, content: Deltas) -> None:
        if piece.name and _plain(piece.name) == self._name:
            if self._called is None:
                self._called, self._aside = piece.index, None
            elif piece.index != self._called:
                self._repeated.add(piece.index)
        if piece.index in self._repeated:
            return
        if piece.index == self._called:
            if piece.arguments:
                content.append(Delta(text=piece.arguments, part=piece.part))
            return
        self._others = True
        content += self._taken()
        content.append(piece)


class ForcedStream:
    """A provider's stream, read by a ``ForcedAnswer``: an ``AnswerStream``.

    Args:
        stream: the provider's.
        name: the tool's.
    """

    def __init__(self, stream: AnswerStream, name: str) -> None:
        self._stream = aiter(stream)
        self._answer = ForcedAnswer(stream.answer, name)
        self.answer: AnswerReader = self._answer
        self.limits = stream.limits

    def __aiter__(self) -> AsyncIterator[Deltas]:
        return self

    async def __anext__(self) -> Deltas:
        try:
            return self._answer.translate(await anext(self._stream))
        except StopAsyncIteration:
            rest = self._answer.rest()
            if rest:
                return rest
            raise


class ForcedProvider:
    """Adds structured output by a tool to another provider: a ``Provider``.

    Args:
        provider: the other one.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.name = provider.name
        self.models = provider.models
        self.deadlines = provider.deadlines
        self.price_id = provider.price_id
        self.base_url = provider.base_url
        self.seeds = provider.seeds

    async def open(self) -> None:
        """Open the other provider."""
        await self._provider.open()

    async def close(self) -> None:
        """Close the other provider."""
        await self._provider.close()

    def accepts(self, model: str) -> bool:
        """Whether it serves ``model``."""
        return self._provider.accepts(model)

    def status(self) -> tuple[ProviderState, str]:
        """Return the other provider's state."""
        return self._provider.status()

    def stream(
        self, request: ChatRequest, model: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[AnswerStream]:
        """Send the request, with a tool in place of its schema."""
        changed = forced(request)
        if changed is None:
            return self._provider.stream(request, model, headers)
        context = self._provider.stream(changed[0], model, headers)
        return _read(context, changed[1]) if changed[1] else context


@asynccontextmanager
async def _read(context: AbstractAsyncContextManager[AnswerStream], name: str) -> AsyncIterator[AnswerStream]:
    async with context as stream:
        yield ForcedStream(stream, name)
