"""Validation of a request's values, beyond their types: the same rules for every dialect, with its own field paths."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any, Final

import msgspec

from actors.llm_gateway.schema import QUICK_COMPILE, check_schema
from protocol.errors import FieldError, InvalidRequest
from protocol.json.schema_cost import SchemaMeter
from protocol.llm import (
    MAX_INT,
    MAX_MODEL,
    MAX_SPEAKER,
    MAX_STOPS,
    MAX_TEMPERATURE,
    MAX_TOKENS,
    MAX_TOOL_NAME,
    MAX_TOOLS,
    TOOL_NAME,
    ChatMessage,
    ChatRequest,
    ContentPart,
    FilePart,
    ImagePart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolCallPart,
    VendorPart,
)
from protocol.requests import (
    MAX_CACHE_TTL_MS,
    MAX_METADATA,
    MAX_METADATA_KEY,
    MAX_METADATA_VALUE,
    MAX_NAME,
    MAX_TIMEOUT_MS,
    MIN_TTL_MS,
    SubmitBody,
)
from protocol.vendor_extras import vendor_of

MAX_FAULTS: Final = 20  # reported at once
MAX_STOP_SEQUENCES: Final = 64  # Anthropic's limit is above OpenAI's
MAX_EXTRA: Final = 1000  # fields of a vendor's dialect that are not known here: each is looked at for each upstream
MAX_DATA_HEAD: Final = 256  # characters of a `data:` URL before its data
MAX_DEPTH: Final = 64  # levels of free JSON, far from the interpreter's recursion limit

_TOOL_NAME = re.compile(TOOL_NAME)
_WithExtra = TextPart | ImagePart | FilePart | ToolCallPart | ToolCall
_OfAssistant = ReasoningPart | ToolCallPart | RefusalPart
_NAME_RULE = f"must be 1 to {MAX_TOOL_NAME} characters without blanks"
_CHOICES = frozenset({"", "auto", "none", "required"})
_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+=-]+)*;base64,")
_IMAGE_SCHEMES = ("https://", "data:image/")


class FieldPaths(msgspec.Struct, frozen=True, kw_only=True):
    """The paths of the canonical fields in a dialect, for error messages.

    Attributes:
        options: the prefix of an option's path.
        top_p: the name of that option.
        max_tokens: the name of that option.
        tool: the path from ``$.tools[0]`` to a tool's own fields.
        tool_choice: the field's path.
        schema: the field's path.
        messages: whether messages are validated, too; a vendor's upstream knows its own rules better.
        stop: the name of that option.
        stops: the most stop sequences.
        parameters: the name of a tool's field for its schema.
    """

    options: str
    top_p: str
    max_tokens: str
    tool: str
    tool_choice: str
    schema: str
    messages: bool
    stop: str = "stop"
    stops: int = MAX_STOPS
    parameters: str = "parameters"


NATIVE: Final = FieldPaths(
    options="$.options.",
    top_p="topP",
    max_tokens="maxTokens",
    tool="",
    tool_choice="$.toolChoice",
    schema="$.schema",
    messages=True,
)
OPENAI: Final = FieldPaths(
    options="$.",
    top_p="top_p",
    max_tokens="max_completion_tokens",
    tool=".function",
    tool_choice="$.tool_choice",
    schema="$.response_format.json_schema.schema",
    messages=False,
)
RESPONSES: Final = FieldPaths(
    options="$.",
    top_p="top_p",
    max_tokens="max_output_tokens",
    tool="",
    tool_choice="$.tool_choice",
    schema="$.text.format.schema",
    messages=False,
)
ANTHROPIC: Final = FieldPaths(
    options="$.",
    top_p="top_p",
    max_tokens="max_tokens",
    tool="",
    tool_choice="$.tool_choice",
    schema="$.output_config.format.schema",
    messages=False,
    stop="stop_sequences",
    stops=MAX_STOP_SEQUENCES,
    parameters="input_schema",
)


def raise_faults(faults: Iterable[FieldError]) -> None:
    """Raise an error for ``faults``, where there are any.

    Raises:
        InvalidRequest: with the first ``MAX_FAULTS`` of them.
    """
    errors = tuple(islice(faults, MAX_FAULTS))
    if errors:
        first, more = errors[0], len(errors) - 1
        detail = f"`{first.path}` {first.message}" + (f" (and {more} more)" if more else "")
        raise InvalidRequest(detail, errors=errors)


def check_request(request: ChatRequest, paths: FieldPaths) -> None:
    """Validate a canonical request.

    Raises:
        InvalidRequest: ``invalid_request``, ``invalid_schema``, or ``schema_too_complex``.
    """
    if len(request.extra) > MAX_EXTRA:
        raise_faults([FieldError("$", f"must have at most {MAX_EXTRA} further fields")])
    raise_faults(request_faults(request, paths))
    if request.schema is None and not request.tools:
        return
    meter, left = SchemaMeter(), QUICK_COMPILE
    if request.schema is not None:
        left -= _check_schema(request.schema, paths.schema, meter, left)
    for index, tool in enumerate(request.tools):
        if tool.parameters:
            path = f"$.tools[{index}]{paths.tool}.{paths.parameters}"
            left -= _check_schema(tool.parameters, path, meter, left)


def request_faults(request: ChatRequest, paths: FieldPaths) -> Iterator[FieldError]:
    """Yield the faults of ``request``, in the order of its fields."""
    if not request.messages:
        yield FieldError("$.messages", "must not be empty")
    if not 0 < len(request.model) <= MAX_MODEL:
        yield FieldError("$.model", f"must be 1 to {MAX_MODEL} characters")
    yield from _option_faults(request, paths)
    if request.tools or request.tool_choice:
        yield from _tool_faults(request, paths)
    if request.schema is not None:
        yield from _free_faults(request.schema, paths.schema)
    for name, value in request.extra.items():
        yield from _free_faults(value, f"$.{name}")
    for index, message in enumerate(request.messages):
        if message.extra or message.tool_calls or not isinstance(message.content, str):
            yield from _extra_faults(message, f"$.messages[{index}]")
    if paths.messages:
        for index, message in enumerate(request.messages):
            yield from _message_faults(message, f"$.messages[{index}]")


def submission_faults(body: SubmitBody) -> Iterator[FieldError]:
    """Yield the faults of the fields of a native submission that are not sent to the model."""
    options = body.options
    if not 1 <= options.timeout_ms <= MAX_TIMEOUT_MS:
        yield _beyond("$.options.timeoutMs", options.timeout_ms, 1, MAX_TIMEOUT_MS)
    if not 0 <= options.cache_ttl_ms <= MAX_CACHE_TTL_MS:
        yield _beyond("$.options.cacheTtlMs", options.cache_ttl_ms, 0, MAX_CACHE_TTL_MS)
    if options.ttl_ms is not None and not MIN_TTL_MS <= options.ttl_ms <= MAX_CACHE_TTL_MS:
        yield _beyond("$.options.ttlMs", options.ttl_ms, MIN_TTL_MS, MAX_CACHE_TTL_MS)
    if options.partial and body.schema is None:
        yield FieldError("$.options.partial", "must not be true without a `schema`: there is no JSON to be partial")
    for path, text in (("$.options.promptVersion", options.prompt_version), ("$.sessionId", body.session_id)):
        if len(text) > MAX_NAME:
            yield FieldError(path, f"must be at most {MAX_NAME} characters")
    yield from metadata_faults(body.metadata)


def metadata_faults(metadata: dict[str, str]) -> Iterator[FieldError]:
    """Yield the faults of a caller's metadata."""
    if len(metadata) > MAX_METADATA:
        yield FieldError("$.metadata", f"must have at most {MAX_METADATA} entries")
    for key, value in metadata.items():
        if not 0 < len(key) <= MAX_METADATA_KEY or len(value) > MAX_METADATA_VALUE:
            limits = f"must have keys of 1 to {MAX_METADATA_KEY} and values of at most {MAX_METADATA_VALUE} characters"
            yield FieldError("$.metadata", limits)


def _check_schema(schema: dict[str, Any], path: str, meter: SchemaMeter, within: int) -> int:
    try:
        return check_schema(schema, meter, within)
    except InvalidRequest as error:
        errors = tuple(FieldError(path + fault.path.removeprefix("$.schema"), fault.message) for fault in error.errors)
        detail = f"`{errors[0].path}` {errors[0].message}" if errors else error.detail
        raise InvalidRequest(detail, code=error.code, errors=errors) from None


def _option_faults(request: ChatRequest, paths: FieldPaths) -> Iterator[FieldError]:
    at = paths.options
    temperature, top_p, max_tokens, seed = request.temperature, request.top_p, request.max_tokens, request.seed
    if temperature is not None and not 0 <= temperature <= MAX_TEMPERATURE:
        yield _beyond(at + "temperature", temperature, 0, MAX_TEMPERATURE)
    if top_p is not None and not 0 <= top_p <= 1:
        yield _beyond(at + paths.top_p, top_p, 0, 1)
    if max_tokens is not None and not 1 <= max_tokens <= MAX_TOKENS:
        yield _beyond(at + paths.max_tokens, max_tokens, 1, MAX_TOKENS)
    if seed is not None and not -MAX_INT - 1 <= seed <= MAX_INT:
        yield _beyond(at + "seed", seed, -MAX_INT - 1, MAX_INT)
    if len(request.stop) > paths.stops:
        yield FieldError(at + paths.stop, f"must be at most {paths.stops} texts")


def _beyond(path: str, value: float, low: int, high: int) -> FieldError:
    got = f", got {value}" if abs(value) <= MAX_INT else ""
    return FieldError(path, f"must be within {low}..{high}{got}")


def _tool_faults(request: ChatRequest, paths: FieldPaths) -> Iterator[FieldError]:
    if len(request.tools) > MAX_TOOLS:
        yield FieldError("$.tools", f"must be at most {MAX_TOOLS}")
    names: set[str] = set()
    for index, tool in enumerate(request.tools):
        path = f"$.tools[{index}]{paths.tool}"
        if vendor_of(tool) is not None:
            names.add(tool.name)
            yield from _free_faults(tool.extra, path)
            continue
        if not _TOOL_NAME.fullmatch(tool.name):
            yield FieldError(f"{path}.name", _NAME_RULE)
        elif tool.name in names:
            yield FieldError(f"{path}.name", "must be different from the other tools' names")
        names.add(tool.name)
        yield from _free_faults(tool.parameters, f"{path}.{paths.parameters}")
        yield from _free_faults(tool.extra, path)
    if request.tool_choice not in _CHOICES and request.tool_choice not in names:
        yield FieldError(paths.tool_choice, "must be `auto`, `none`, `required` or the name of one of the tools")
    elif request.tool_choice == "required" and not names:
        yield FieldError(paths.tool_choice, "must not be `required` without tools")


def _free_faults(value: Any, path: str) -> Iterator[FieldError]:  # noqa: ANN401 - free JSON
    """Yield what prevents free JSON from being encoded again: its depth, and integers beyond 64 bits."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            yield FieldError(path, f"must not be nested deeper than {MAX_DEPTH} levels")
            return
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, int) and not -MAX_INT <= item <= MAX_INT:
                yield FieldError(path, "must not have an integer beyond 64 bits")
                return
        level = below


def _extra_faults(message: ChatMessage, path: str) -> Iterator[FieldError]:
    """Yield the faults of the free JSON in a message that is for one vendor only."""
    content = () if isinstance(message.content, str) else message.content
    extras = [part.extra for part in (*content, *message.tool_calls) if isinstance(part, _WithExtra)]
    foreign = [part.value for part in content if isinstance(part, VendorPart)]
    for value in (message.extra, *extras, *foreign):
        if value:
            yield from _free_faults(value, path)


def _message_faults(message: ChatMessage, path: str) -> Iterator[FieldError]:
    role = message.role
    if message.tool_calls and role != "assistant":
        yield FieldError(f"{path}.toolCalls", "must only be in an assistant's message")
    if bool(message.tool_call_id) != (role == "tool"):
        reason = "must name the call that this answers" if role == "tool" else "must only be in a tool's message"
        yield FieldError(f"{path}.toolCallId", reason)
    if not message.content and role != "tool" and not message.tool_calls:
        yield FieldError(f"{path}.content", "must not be empty")
    if len(message.name) > MAX_SPEAKER:
        yield FieldError(f"{path}.name", f"must be at most {MAX_SPEAKER} characters")
    if message.is_error and role != "tool":
        yield FieldError(f"{path}.isError", "must only be in a tool's message")
    if not isinstance(message.content, str):
        yield from chain.from_iterable(
            _part_faults(part, role, f"{path}.content[{index}]") for index, part in enumerate(message.content)
        )
    for index, call in enumerate(message.tool_calls):
        yield from _call_faults(call, f"{path}.toolCalls[{index}]")


def _call_faults(call: ToolCall | ToolCallPart, path: str) -> Iterator[FieldError]:
    if not call.id:
        yield FieldError(f"{path}.id", "must not be empty")
    if not _TOOL_NAME.fullmatch(call.name):
        yield FieldError(f"{path}.name", _NAME_RULE)


def _part_faults(part: ContentPart, role: str, path: str) -> Iterator[FieldError]:
    if isinstance(part, _OfAssistant) and role != "assistant":
        yield FieldError(path, "must only be in an assistant's message")
    if isinstance(part, ToolCallPart):
        yield from _call_faults(part, path)
    if not isinstance(part, ImagePart | FilePart):
        return
    if role not in {"user", "tool"}:
        yield FieldError(path, "must be a text in this role's message")
    elif isinstance(part, ImagePart):
        if not part.url.startswith(_IMAGE_SCHEMES):
            yield FieldError(f"{path}.url", "must begin with https:// or data:image/")
    elif bool(part.url) == bool(part.text):
        yield FieldError(path, "must have either a `url` or a `text`")
    elif part.url and not part.url.startswith("https://") and not _DATA_URL.match(part.url, 0, MAX_DATA_HEAD):
        yield FieldError(f"{path}.url", "must begin with https:// or data:<media type>;base64,")
