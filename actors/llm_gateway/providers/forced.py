"""Structured output for upstreams that have none of their own: the answer is asked for as the arguments of a tool."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import msgspec

from actors.llm_gateway.provider import AnswerStream, Provider
from protocol.events import Delta, ToolCallDelta
from protocol.gateway import ProviderState
from protocol.llm import ChatRequest, FinishReason, Tool, Usage
from protocol.upstream import AnswerReader, Deltas

ANSWER: Final = "answer"  # the tool's name, unless the caller has one that is called so
DESCRIPTION: Final = "Gives the answer. Call it with the whole answer as its arguments, and say nothing else."
ASIDE: Final = (
    2048  # characters of text that may come before the tool is called; with more of it the text is the answer
)


def forced(request: ChatRequest) -> tuple[ChatRequest, str] | None:
    """Return ``request`` with a tool in the place of its schema, and the tool's name; None where nothing is to be done.

    With tools of the caller's own the model has to call one of them, or this one. Where the caller forces one of them,
    it is that which is called, and there is no other: its name is empty. A tool's arguments are an object, so an answer
    of another type can't be asked for.
    """
    schema = request.schema
    if schema is None or (schema.get("type") != "object" and "properties" not in schema):
        return None
    extra = {key: value for key, value in request.extra.items() if key != "response_format"}
    own = () if request.tool_choice == "none" else request.tools
    if own and request.tool_choice not in ("", "auto", "required"):
        return msgspec.structs.replace(request, schema=None, extra=extra), ""
    name = ANSWER
    while any(tool.name == name for tool in own):
        name += "_"
    tool = Tool(name=name, description=DESCRIPTION, parameters=schema)
    choice = "required" if own else name
    return msgspec.structs.replace(request, schema=None, tools=(*own, tool), tool_choice=choice, extra=extra), name


class ForcedAnswer:
    """An answer in which the arguments of one tool are the text: an ``AnswerReader`` over another.

    What a model says before it calls the tool is an aside, and left out; where it calls none, that is the answer.

    Args:
        reader: reads the answer as it is.
        name: the tool's.
    """

    __slots__ = ("_aside", "_called", "_held", "_name", "_others", "_reader")

    def __init__(self, reader: AnswerReader, name: str) -> None:
        self._reader = reader
        self._name = name
        self._called: int | None = None
        self._others = False
        self._aside: list[Delta] | None = []
        self._held = 0

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the model stopped: to have called the tool is to have answered."""
        reason = self._reader.finish_reason
        return "stop" if reason == "tool_calls" and self._called is not None and not self._others else reason

    @property
    def stop_sequence(self) -> str:
        """The text at which it stopped."""
        return self._reader.stop_sequence

    @property
    def usage(self) -> Usage | None:
        """Tokens, once they are reported."""
        return self._reader.usage

    @property
    def model(self) -> str:
        """The upstream's own name of the model."""
        return self._reader.model

    @property
    def response_id(self) -> str:
        """The upstream's id of the answer."""
        return self._reader.response_id

    @property
    def ended(self) -> bool:
        """Whether the stream's end marker has come."""
        return self._reader.ended

    @property
    def whole(self) -> bool:
        """Whether nothing of the answer is missing, should the stream stop here."""
        return self._reader.whole

    def feed(self, data: bytes, into: Deltas) -> None:
        """Read the data of one event and append its content to ``into``, as the reader itself would."""
        pieces: Deltas = []
        self._reader.feed(data, pieces)
        into += self.said(pieces)

    def said(self, pieces: Deltas) -> Deltas:
        """Return what the pieces of a read say of the answer."""
        said: Deltas = []
        for piece in pieces:
            if isinstance(piece, Delta):
                self._say(piece, said)
            elif isinstance(piece, ToolCallDelta):
                self._call(piece, said)
            else:
                said.append(piece)
        return said + self.rest() if self.ended else said

    def rest(self) -> Deltas:
        """Return what was held back, at the end."""
        held, self._aside = self._aside, None
        return [*held] if held else []

    def _say(self, piece: Delta, said: Deltas) -> None:
        if self._called is not None:
            return
        if self._aside is None:
            said.append(piece)
            return
        self._aside.append(piece)
        self._held += len(piece.text)
        if self._held > ASIDE:
            said += self.rest()

    def _call(self, piece: ToolCallDelta, said: Deltas) -> None:
        if piece.name == self._name and self._called is None:
            self._called, self._aside = piece.index, None
        if piece.index == self._called:
            if piece.arguments:
                said.append(Delta(text=piece.arguments))
            return
        self._others = True
        said += self.rest()
        said.append(piece)


class ForcedStream:
    """A provider's stream, read as such an answer: an ``AnswerStream``.

    Args:
        stream: as the provider gives it.
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
            return self._answer.said(await anext(self._stream))
        except StopAsyncIteration:
            rest = self._answer.rest()
            if rest:
                return rest
            raise


class ForcedProvider:
    """Another provider, asked for structured output by a tool: a ``Provider``.

    Args:
        provider: whom it asks.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self.name = provider.name
        self.models = provider.models
        self.deadlines = provider.deadlines
        self.price_id = provider.price_id

    async def open(self) -> None:
        """Open it."""
        await self._provider.open()

    async def close(self) -> None:
        """Close it."""
        await self._provider.close()

    def accepts(self, model: str) -> bool:
        """Whether it serves ``model``."""
        return self._provider.accepts(model)

    def status(self) -> tuple[ProviderState, str]:
        """Return how it is."""
        return self._provider.status()

    def stream(
        self, request: ChatRequest, model: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[AnswerStream]:
        """Send the request, with a tool in the place of its schema."""
        asked = forced(request)
        if asked is None:
            return self._provider.stream(request, model, headers)
        context = self._provider.stream(asked[0], model, headers)
        return _read(context, asked[1]) if asked[1] else context


@asynccontextmanager
async def _read(context: AbstractAsyncContextManager[AnswerStream], name: str) -> AsyncIterator[AnswerStream]:
    async with context as stream:
        yield ForcedStream(stream, name)
