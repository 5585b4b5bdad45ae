"""Typed answers, for programs that embed the gateway."""

from collections.abc import Sequence
from typing import Any, Final, TypeVar

import msgspec

from actors.runtime import Ref
from protocol.errors import SchemaMismatch
from protocol.gateway import Complete
from protocol.llm import ChatMessage, ChatRequest

T = TypeVar("T")

TIMEOUT: Final = 120.0  # seconds


async def complete_json(
    gateway: Ref[Complete],
    messages: Sequence[ChatMessage],
    kind: type[T],
    *,
    model: str = "default",
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - as ``ask`` has it
    max_tokens: int | None = None,
    temperature: float | None = None,
) -> T:
    """Ask for an answer of type ``kind``: anything that msgspec decodes, most often a ``Struct``.

    A wrong answer is given back to the model once, as with ``Complete.repair``.

    Raises:
        SchemaMismatch: the answer is no ``kind``; ``raw`` is its text.
        TidegateError: as for ``Complete``.
    """
    request = ChatRequest(
        model=model,
        messages=tuple(messages),
        schema=json_schema(kind),
        max_tokens=max_tokens,
        temperature=temperature,
    )
    answer = await gateway.ask(Complete(request=request, repair=True), timeout=timeout)
    try:
        return msgspec.json.decode(answer.result or b"", type=kind)
    except msgspec.DecodeError as error:
        raise SchemaMismatch(str(error), raw=answer.text) from error


def json_schema(kind: type[Any]) -> dict[str, Any]:
    """Return the JSON Schema of ``kind``, in the strict form that every provider takes: closed, all fields required."""
    schema = msgspec.json.schema(kind)
    definitions = schema.get("$defs", {})
    root = schema.get("$ref", "")
    if root:
        schema = {**definitions.get(root.rpartition("/")[2], {}), "$defs": definitions}
    strict = _strict(schema)
    return strict if isinstance(strict, dict) else schema


def _strict(schema: Any) -> Any:  # noqa: ANN401 - any part of a schema
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: value if key in ("enum", "const", "default") else _strict(value) for key, value in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        strict |= {"required": list(schema["properties"]), "additionalProperties": False}
    return strict
