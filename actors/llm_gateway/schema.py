"""JSON Schema: whether a schema is one, and whether an answer matches it."""

from collections import OrderedDict
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from protocol.errors import FieldError, InvalidRequest, SchemaMismatch

if TYPE_CHECKING:
    from jsonschema_rs import Validator

MAX_ERRORS: Final = 20
COMPILED: Final = 128


def check_schema(schema: dict[str, Any]) -> None:
    """Raise ``InvalidRequest`` (``invalid_schema``) unless ``schema`` is a JSON Schema whose references are its own."""
    compile_schema(schema)


def compile_schema(schema: dict[str, Any]) -> "Validator":
    """Return a validator. References to other documents are refused, not fetched.

    Raises:
        InvalidRequest: ``invalid_schema``, with the place of the fault.
    """
    import jsonschema_rs  # noqa: PLC0415 - an embedder without schemas does not pay for it

    try:
        return jsonschema_rs.validator_for(schema, offline=True)
    except jsonschema_rs.ValidationError as error:
        path = "$.schema" + _path(error.instance_path)
        raise InvalidRequest(code="invalid_schema", errors=(FieldError(path, error.message),)) from error
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        fault = FieldError("$.schema", "the schema can't be compiled")
        raise InvalidRequest(code="invalid_schema", errors=(fault,)) from error


class Schemas:
    """Validates answers. The validators used last are kept compiled.

    Args:
        limit: how many are kept.
    """

    def __init__(self, limit: int = COMPILED) -> None:
        self._limit = limit
        self._compiled: OrderedDict[bytes, Validator] = OrderedDict()

    def validator(self, schema: dict[str, Any]) -> "Validator":
        """Return the validator of ``schema``. Raises ``InvalidRequest`` as ``compile_schema`` does."""
        key = msgspec.json.encode(schema)
        found = self._compiled.get(key)
        if found is None:
            found = self._compiled[key] = compile_schema(schema)
            if len(self._compiled) > self._limit:
                self._compiled.popitem(last=False)
        else:
            self._compiled.move_to_end(key)
        return found


def validated(text: str, validator: "Validator") -> msgspec.Raw:
    """Return ``text`` as the JSON that it is.

    Raises:
        SchemaMismatch: it is no JSON, or it does not match; ``raw`` is the text.
    """
    try:
        answer = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise SchemaMismatch("The answer is not JSON", raw=text, errors=(FieldError("$", "not JSON"),)) from error
    errors = tuple(
        FieldError("$" + _path(error.instance_path), error.message)
        for error in islice(validator.iter_errors(answer), MAX_ERRORS)
    )
    if errors:
        raise SchemaMismatch(raw=text, errors=errors)
    return msgspec.Raw(text.strip().encode())


def _path(parts: list[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
