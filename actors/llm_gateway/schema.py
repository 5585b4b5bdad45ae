"""Validation of JSON Schemas, and of answers against them."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from protocol.errors import FieldError, InvalidRequest, SchemaMismatch
from protocol.json.strict_schema import without_nulls
from protocol.llm import ToolCall

if TYPE_CHECKING:
    import jsonschema_rs

MAX_ERRORS: Final = 20
MAX_COMPILED: Final = 128
MAX_NAMES: Final = 100  # characters of the tools' names in an error


def check_schema(schema: dict[str, Any]) -> None:
    """Raise ``InvalidRequest`` (``invalid_schema``) unless ``schema`` is a JSON Schema whose references are its own."""
    compile_schema(schema)


def compile_schema(schema: dict[str, Any]) -> "jsonschema_rs.Validator":
    """Return a compiled validator. References to other documents are refused, not fetched.

    Raises:
        InvalidRequest: ``invalid_schema``, with the place of the fault.
    """
    import jsonschema_rs  # noqa: PLC0415 - imported only where schemas are used

    try:
        return jsonschema_rs.validator_for(schema, offline=True)
    except jsonschema_rs.ValidationError as error:
        path = "$.schema" + _path(error.instance_path)
        raise InvalidRequest(code="invalid_schema", errors=(FieldError(path, error.message),)) from error
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        fault = FieldError("$.schema", "the schema can't be compiled")
        raise InvalidRequest(code="invalid_schema", errors=(fault,)) from error


class Validator:
    """Validator of answers against one schema.

    Attributes:
        schema: as the request has it.
        compiled: the schema, compiled.
    """

    __slots__ = ("compiled", "schema")

    def __init__(self, schema: dict[str, Any]) -> None:
        self.schema = schema
        self.compiled = compile_schema(schema)

    def faults(self, answer: Any) -> tuple[FieldError, ...]:  # noqa: ANN401 - any JSON
        """Return where ``answer`` does not match: the first ``MAX_ERRORS`` places."""
        return tuple(
            FieldError("$" + _path(error.instance_path), error.message)
            for error in islice(self.compiled.iter_errors(answer), MAX_ERRORS)
        )


class Schemas:
    """LRU cache of compiled validators.

    Args:
        limit: the most that are kept.
    """

    def __init__(self, limit: int = MAX_COMPILED) -> None:
        self._limit = limit
        self._compiled: OrderedDict[bytes, Validator] = OrderedDict()

    def validator(self, schema: dict[str, Any]) -> Validator:
        """Return the validator of ``schema``. Raises ``InvalidRequest`` as ``compile_schema`` does."""
        key = msgspec.json.encode(schema)
        found = self._compiled.get(key)
        if found is None:
            found = self._compiled[key] = Validator(schema)
            if len(self._compiled) > self._limit:
                self._compiled.popitem(last=False)
        else:
            self._compiled.move_to_end(key)
        return found


def validated(text: str, validator: Validator) -> msgspec.Raw:
    """Return ``text`` as JSON that matches.

    A model writes null for an optional property that it leaves out: where the schema allows no null, it is removed.

    Raises:
        SchemaMismatch: ``text`` is no JSON, or does not match; ``raw`` is the text.
    """
    try:
        answer = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise SchemaMismatch("The answer is not JSON", raw=text, errors=(FieldError("$", "not JSON"),)) from error
    errors = validator.faults(answer)
    if not errors:
        return msgspec.Raw(text.strip().encode())
    try:
        pruned = without_nulls(answer, validator.schema)
    except RecursionError:
        pruned = answer
    if pruned == answer or validator.faults(pruned):
        raise SchemaMismatch(raw=text, errors=errors)
    return msgspec.Raw(msgspec.json.encode(pruned))


def unoffered(text: str, calls: Sequence[ToolCall]) -> SchemaMismatch:
    """Return the failure of an answer that calls tools which nobody has offered; ``raw`` has its text and its calls."""
    raw = "\n".join([text, *(msgspec.json.encode({call.name: call.arguments}).decode() for call in calls)]).strip()
    names = ", ".join(call.name for call in calls)
    fault = FieldError("$", f"a call of {names[:MAX_NAMES]}, which is not offered, in place of JSON")
    return SchemaMismatch("The answer is a call of a tool that is not offered", raw=raw, errors=(fault,))


def _path(parts: list[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
