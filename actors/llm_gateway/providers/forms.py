"""Forms of a request: how an upstream is held to a schema, and what it gets in place of what it does not take.

A schema is asked for by the dialect's own feature, by a tool that the model must call with the answer, or by a prompt.
The answer is validated in every case.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Final

import msgspec

from actors.llm_gateway.provider import AnswerStream
from actors.llm_gateway.providers.delegated import DelegatedAnswer
from actors.llm_gateway.providers.forced import ForcedStream, forced
from protocol.errors import PROBLEMS, FieldError, ProviderError, SchemaMismatch
from protocol.events import Delta, ToolCallDelta
from protocol.llm import ChatMessage, ChatRequest, Vendor
from protocol.tool_names import ToolNames, tool_names
from protocol.upstream import AnswerReader, Deltas, Refusal
from protocol.upstream_error import UpstreamError

Wrap = Callable[[AnswerStream], AnswerStream]
Send = Callable[[ChatRequest], AbstractAsyncContextManager[AnswerStream]]

FORMAT: Final = "response_format"
ONE_OBJECT: Final = "Answer with one JSON object, and with nothing before or after it."
ONE_VALUE: Final = "Answer with one JSON value that matches this JSON Schema, and with nothing before or after it:\n"
EFFORT: Final = (
    "reasoning_effort",
    "thinking",
    "output_config",
)  # extra fields for which the other dialect has its own

_REFUSED: Final = frozenset({"provider_rejected", "bad_tool_schema", "schema_too_complex"})
_WORDS: Final = (
    "schema",
    "format",
    "output_config",
    "json",
    "strict",
    "grammar",
    "structured output",
    "requested parameters",
    "tool",
    "effort",
    "reasoning",
    "thinking",
)
_FAILED: Final = frozenset({"provider_error", "provider_unavailable"})
_COMPILED: Final = re.compile(
    r"grammar|(?:json|response|output|invalid|unsupported).?schema|schema.{0,40}(?:invalid|unsupported|not supported)"
    r"|response_?format|structured.?output|guided.?(?:json|decoding)",
    re.IGNORECASE,
)
"""Reasons of engines that fail, with a status of the server's, at what they make of a schema."""


class Form(msgspec.Struct, frozen=True):
    """One way to send a request.

    Attributes:
        request: is sent.
        wrap: makes the request's answer of the upstream's; None where they are the same.
    """

    request: ChatRequest
    wrap: Wrap | None = None


def is_plain(request: ChatRequest) -> bool:
    """Whether a request is texts alone: then every upstream takes it as it is."""
    if request.schema is not None or request.tools or request.extra:
        return False
    return not [None for message in request.messages if message.tool_calls or not isinstance(message.content, str)]


def send_in_forms(
    request: ChatRequest,
    send: Send,
    dialect: Vendor,
    *,
    name_length: int,
    takes_schema: Callable[[dict[str, Any]], bool],
) -> AbstractAsyncContextManager[AnswerStream]:
    """Send a request in its first form, and where the upstream refuses that before any content, in its second one.

    Args:
        request: is sent.
        send: makes the provider's call.
        dialect: the provider's.
        name_length: the most characters of a tool's name.
        takes_schema: whether the dialect's own feature can hold a model to this schema.

    Raises:
        ProviderError: on entering, as the call.
    """
    names = tool_names(request, name_length)
    own = request.dialect == dialect
    translated = not own and bool(request.extra) and any(name in request.extra for name in EFFORT)
    as_object = not own and _asks_for_object(request)
    if request.schema is None and names is None and not translated and not as_object:
        return send(request)
    forms = _forms(request, takes_schema, as_object=as_object)
    return in_forms(_with_less(forms) if translated else forms, send, names)


@asynccontextmanager
async def in_forms(forms: Iterator[Form], send: Send, names: ToolNames | None = None) -> AsyncIterator[AnswerStream]:
    """Send the first form, and where the upstream refuses it for what another form has not, the second one.

    The refusal may also stand within the answer, before its first content.

    Args:
        forms: in their order.
        send: makes the provider's call.
        names: the tool names that the upstream does not take.

    Raises:
        ProviderError: as the call.
    """
    form = next(forms)
    async with AsyncExitStack() as stack:

        async def opened(form: Form) -> AnswerStream:
            sent = form.request if names is None else names.applied(form.request)
            stream = await stack.enter_async_context(send(sent))
            named = stream if names is None else RenamedStream(stream, names)
            return named if form.wrap is None else form.wrap(named)

        async def second(error: UpstreamError) -> AnswerStream | None:
            following = next(forms, None) if form_refused(error) else None
            if following is None:
                return None
            await stack.aclose()
            return await opened(following)

        try:
            stream = await opened(form)
        except Refusal as error:
            following = await second(error)
            if following is None:
                raise
            yield following
        else:
            yield FormStream(stream, second)


def form_refused(error: ProviderError) -> bool:
    """Whether a refusal may be one of the form: the reason is not known, or names something of the form."""
    if error.code in _FAILED:
        return isinstance(error, UpstreamError) and _COMPILED.search(error.reason) is not None
    if error.code not in _REFUSED:
        return False
    reason = error.detail.lower()
    problem = PROBLEMS.get(error.code)
    return (problem is not None and reason == problem.title.lower()) or any(word in reason for word in _WORDS)


def by_tool(request: ChatRequest) -> Form | None:
    """Return the form with a tool in place of the schema; None where a tool can't have it."""
    changed = forced(request)
    if changed is None:
        return None
    sent, name = changed
    return Form(sent, (lambda stream: ForcedStream(stream, name)) if name else None)


def by_prompt(request: ChatRequest) -> Form:
    """Return the form with a prompt in place of the schema or of OpenAI's JSON object, behind the system prompt."""
    schema, messages = request.schema, request.messages
    text = ONE_OBJECT if schema is None else ONE_VALUE + msgspec.json.encode(schema).decode()
    end = next((index for index, message in enumerate(messages) if message.role != "system"), len(messages))
    sent = msgspec.structs.replace(
        request,
        schema=None,
        extra={name: value for name, value in request.extra.items() if name != FORMAT},
        messages=(*messages[:end], ChatMessage(role="system", content=text), *messages[end:]),
    )
    return Form(sent, ObjectStream if schema is None else None)


def _forms(request: ChatRequest, takes_schema: Callable[[dict[str, Any]], bool], *, as_object: bool) -> Iterator[Form]:
    schema = request.schema
    if schema is None:
        yield by_prompt(request) if as_object else Form(request)
        return
    if takes_schema(schema):
        yield Form(request)
    tool = None if _thinks(request) else by_tool(request)
    if tool is not None:
        yield tool
    yield by_prompt(request)


def _with_less(forms: Iterator[Form]) -> Iterator[Form]:
    """Yield the forms, the second one without the reasoning effort, which not every model takes."""
    first = next(forms)
    yield first
    form = next(forms, first)
    extra = {name: value for name, value in form.request.extra.items() if name not in EFFORT}
    yield msgspec.structs.replace(form, request=msgspec.structs.replace(form.request, extra=extra))


def _asks_for_object(request: ChatRequest) -> bool:
    given = request.extra.get(FORMAT) if request.schema is None and request.extra else None
    return isinstance(given, dict) and given.get("type") == "json_object"


def _thinks(request: ChatRequest) -> bool:
    """Whether the model is to think in Anthropic's way: then it can't be made to call a tool."""
    thinking = request.extra.get("thinking")
    return isinstance(thinking, dict) and thinking.get("type") != "disabled"


class FormAnswer(DelegatedAnswer):
    """Reader of the answer to whichever form is answered: an ``AnswerReader``."""

    __slots__ = ()

    def replace(self, reader: AnswerReader) -> None:
        """Say from now on what ``reader`` says."""
        self._reader = reader


class FormStream:
    """A provider's stream that another one replaces, should it fail before its first content: an ``AnswerStream``.

    Args:
        stream: the provider's.
        second: returns the other one; None where the failure is not one of the form.
    """

    def __init__(self, stream: AnswerStream, second: Callable[[UpstreamError], Awaitable[AnswerStream | None]]) -> None:
        self._stream = aiter(stream)
        self._second: Callable[[UpstreamError], Awaitable[AnswerStream | None]] | None = second
        self._answer = FormAnswer(stream.answer)
        self.answer: AnswerReader = self._answer
        self.limits = stream.limits

    def __aiter__(self) -> AsyncIterator[Deltas]:
        return self

    async def __anext__(self) -> Deltas:
        second = self._second
        if second is None:
            return await anext(self._stream)
        try:
            pieces = await anext(self._stream)
        except UpstreamError as error:
            self._second = None
            following = await second(error)
            if following is None:
                raise
            self._answer.replace(following.answer)
            self._stream = aiter(following)
            return await anext(self._stream)
        if pieces:
            self._second = None
        return pieces


class RenamedStream:
    """A provider's stream whose tool calls get the request's names back: an ``AnswerStream``.

    Args:
        stream: the provider's.
        names: the names.
    """

    def __init__(self, stream: AnswerStream, names: ToolNames) -> None:
        self._stream = aiter(stream)
        self._names = names
        self.answer: AnswerReader = stream.answer
        self.limits = stream.limits

    def __aiter__(self) -> AsyncIterator[Deltas]:
        return self

    async def __anext__(self) -> Deltas:
        pieces = await anext(self._stream)
        for index, piece in enumerate(pieces):
            if isinstance(piece, ToolCallDelta) and piece.name:
                name = self._names.own(piece.name)
                if name != piece.name:
                    pieces[index] = msgspec.structs.replace(piece, name=name)
        return pieces


class ObjectStream:
    """A provider's stream whose text has to be a JSON object, unless it was cut short: an ``AnswerStream``.

    Args:
        stream: the provider's.
    """

    def __init__(self, stream: AnswerStream) -> None:
        self._stream = aiter(stream)
        self._text: list[str] = []
        self._calls = False
        self.answer: AnswerReader = stream.answer
        self.limits = stream.limits

    def __aiter__(self) -> AsyncIterator[Deltas]:
        return self

    async def __anext__(self) -> Deltas:
        try:
            pieces = await anext(self._stream)
        except StopAsyncIteration:
            self._check()
            raise
        for piece in pieces:
            if isinstance(piece, Delta):
                self._text.append(piece.text)
            elif isinstance(piece, ToolCallDelta):
                self._calls = True
        return pieces

    def _check(self) -> None:
        if self._calls or self.answer.finish_reason != "stop":
            return
        text = "".join(self._text)
        try:
            msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        except (msgspec.DecodeError, RecursionError) as error:
            fault = FieldError("$", "not a JSON object")
            raise SchemaMismatch("The answer is not a JSON object", raw=text, errors=(fault,)) from error
