"""Typed answers, for programs that embed the gateway."""

from collections.abc import Hashable, Sequence
from functools import lru_cache
from typing import Any, Final, TypeVar

import msgspec

from actors.llm_gateway.type_schema import json_schema
from actors.runtime import Ref
from protocol.errors import DeadlineExceeded, SchemaMismatch
from protocol.gateway import Complete
from protocol.llm import ChatMessage, ChatRequest

T = TypeVar("T")

TIMEOUT: Final = 120.0  # seconds
MAX_SCHEMAS: Final = 128  # schemas of classes that are kept


async def complete_json(
    gateway: Ref[Complete],
    messages: Sequence[ChatMessage],
    kind: type[T],
    *,
    model: str = "default",
    timeout: float = TIMEOUT,  # noqa: ASYNC109 - as ``ask`` has it
    max_tokens: int | None = None,
    temperature: float | None = 0.0,
) -> T:
    """Ask for an answer of type ``kind``: anything that msgspec decodes, most often a ``Struct``.

    A wrong answer is given back to the model once, as with ``Complete.repair``. A caller who wants answers to
    differ passes a ``temperature``; None leaves it out, for models that take none.

    Raises:
        SchemaMismatch: the answer is no ``kind``; ``raw`` is its text.
        TidegateError: as for ``Complete``.
    """
    request = ChatRequest(
        model=model,
        messages=tuple(messages),
        schema=_schema(kind),
        max_tokens=max_tokens,
        temperature=temperature,
    )
    try:
        answer = await gateway.ask(Complete(request=request, repair=True), timeout=timeout)
    except DeadlineExceeded as error:
        raise error.within(timeout) from error
    try:
        return msgspec.json.decode(answer.result or b"", type=kind)
    except msgspec.DecodeError as error:
        raise SchemaMismatch(str(error), raw=answer.text) from error


def _schema(kind: Any) -> dict[str, Any]:  # noqa: ANN401 - a type, or a generic one with its arguments
    return _of_class(kind) if isinstance(kind, type) else json_schema(kind)


@lru_cache(maxsize=MAX_SCHEMAS)
def _of_class(kind: Hashable) -> dict[str, Any]:
    return json_schema(kind)
