"""Validation of JSON Schemas, and of answers against them."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec

from actors.llm_gateway.schema_worker import Job, Outcome, SchemaWorker
from protocol.errors import FieldError, InvalidRequest, SchemaMismatch
from protocol.json.schema_cost import SchemaMeter
from protocol.json.strict_schema import without_nulls
from protocol.llm import ToolCall

if TYPE_CHECKING:
    import jsonschema_rs

MAX_ERRORS: Final = 20
MAX_MESSAGE: Final = 500  # characters of one error: the library's messages quote the value, or the schema
MAX_COMPILED: Final = 128
MAX_COMPILED_BYTES: Final = 8 * 1024 * 1024  # of the schemas' JSON
MAX_NAMES: Final = 100  # characters of the tools' names in an error
QUICK_COMPILE: Final = 10_000  # estimated microseconds, beyond which a schema is compiled in a process of its own
QUICK_STEPS: Final = 30_000  # subschemas that look at the values of an answer, beyond which it is validated there
QUICK_TEXT: Final = 10_000_000  # characters of an answer times subschemas: each error of the library copies its value
QUICK_SCAN: Final = 200_000_000  # characters of an answer times the size of the patterns that read them; as above
SEPARATORS: Final = (",", ":", "[", "{")  # an answer has no more values than of these, and one


def check_schema(schema: dict[str, Any], meter: SchemaMeter | None = None, within: int = QUICK_COMPILE) -> int:
    """Check that ``schema`` is a JSON Schema whose references are its own, and within the bounds.

    One that may take long to compile is only measured here; the gateway compiles it in a process of its own.

    Args:
        schema: the schema.
        meter: has counted the request's other schemas.
        within: estimated microseconds that compiling it may take here.

    Returns:
        About how many microseconds it has taken to compile it; 0 where it was only measured.

    Raises:
        InvalidRequest: ``invalid_schema``, with the place of the fault, or ``schema_too_complex``.
    """
    cost = (meter or SchemaMeter()).measure(schema, len(_encoded(schema)))
    if cost.compile_us > within:
        return 0
    compile_schema(schema)
    return cost.compile_us


def compile_schema(schema: dict[str, Any]) -> "jsonschema_rs.Validator":
    """Return a compiled validator. References to other documents are refused, not fetched.

    It takes as long as it takes: measure the schema before.

    Raises:
        InvalidRequest: ``invalid_schema``, with the place of the fault.
    """
    import jsonschema_rs  # noqa: PLC0415 - imported only where schemas are used

    try:
        return jsonschema_rs.validator_for(schema, offline=True)
    except jsonschema_rs.ValidationError as error:
        path = "$.schema" + _path(error.instance_path)
        raise InvalidRequest(code="invalid_schema", errors=(FieldError(path, error.message[:MAX_MESSAGE]),)) from error
    except (jsonschema_rs.ReferencingError, ValueError) as error:
        fault = FieldError("$.schema", "the schema can't be compiled")
        raise InvalidRequest(code="invalid_schema", errors=(fault,)) from error


class Validator:
    """Validator of answers against one schema.

    Args:
        schema: as the request has it.
        meter: has counted the request's other schemas.
        whatever_it_takes: whether the schema is compiled unmeasured: a process of its own has bounds of its own.

    Attributes:
        schema: as the request has it.
        raw: its JSON.
        quick: whether it is compiled already; otherwise it takes a process of its own to do so.
        checked: whether it is known to be a schema.

    Raises:
        InvalidRequest: ``schema_too_complex``, or as ``compile_schema`` does.
    """

    __slots__ = ("_compiled", "_scan", "_steps", "checked", "quick", "raw", "schema")

    def __init__(
        self, schema: dict[str, Any], meter: SchemaMeter | None = None, *, whatever_it_takes: bool = False
    ) -> None:
        self.schema = schema
        self.raw = _encoded(schema)
        self.quick = whatever_it_takes
        self._steps = self._scan = 0
        if not whatever_it_takes:
            cost = (meter or SchemaMeter()).measure(schema, len(self.raw))
            self.quick = cost.compile_us <= QUICK_COMPILE
            self._steps = QUICK_STEPS + 1 if cost.growing or cost.fancy else cost.steps
            self._scan = cost.scan
        self.checked = self.quick
        self._compiled = compile_schema(schema) if self.quick else None

    def is_quick(self, text: str) -> bool:
        """Whether an answer can be validated at once; it takes time in proportion to ``text`` to say that."""
        if not self.quick:
            return False
        values = 1 + sum(map(text.count, SEPARATORS))
        quick = values * self._steps <= QUICK_STEPS and len(text) * self._scan <= QUICK_SCAN
        return quick and len(text) * self._steps <= QUICK_TEXT

    def faults(self, answer: Any) -> tuple[FieldError, ...]:  # noqa: ANN401 - any JSON
        """Return where ``answer`` does not match: the first ``MAX_ERRORS`` places."""
        if self._compiled is None:
            self._compiled = compile_schema(self.schema)
        return tuple(
            FieldError("$" + _path(error.instance_path), error.message[:MAX_MESSAGE])
            for error in islice(self._compiled.iter_errors(answer), MAX_ERRORS)
        )


class Schemas:
    """LRU cache of validators by the JSON of their schemas, with those that were refused; and the worker.

    Args:
        limit: the most that are kept.
        max_bytes: of the schemas' JSON, the most that is kept.
    """

    def __init__(self, limit: int = MAX_COMPILED, max_bytes: int = MAX_COMPILED_BYTES) -> None:
        self._limit = limit
        self._max_bytes = max_bytes
        self._bytes = 0
        self._worker = SchemaWorker()
        self._known: OrderedDict[bytes, Validator | InvalidRequest] = OrderedDict()

    def validator(self, schema: dict[str, Any]) -> Validator:
        """Return the validator of ``schema``. Raises ``InvalidRequest`` as ``Validator`` does."""
        key = _encoded(schema)
        found = self._known.get(key)
        if found is None:
            try:
                found = Validator(schema)
            except InvalidRequest as error:
                self._keep(key, _again(error))
                raise
            self._keep(key, found)
        else:
            self._known.move_to_end(key)
        if isinstance(found, InvalidRequest):
            raise _again(found)
        return found

    async def check(self, validator: Validator) -> None:
        """Compile a schema in the worker, unless that was done.

        Raises:
            InvalidRequest: ``invalid_schema`` or ``schema_too_complex``.
            Overloaded: too many schemas wait.
        """
        if validator.checked:
            return
        try:
            _raise_failure(await self._worker.run(Job(validator.raw)), "")
        except InvalidRequest as error:
            self._keep(validator.raw, _again(error))
            raise
        validator.checked = True

    async def validated(self, text: str, validator: Validator) -> msgspec.Raw:
        """Return ``text`` as JSON that matches, as ``validated`` does; in the worker where that may take long.

        Raises:
            SchemaMismatch: as ``validated`` says.
            InvalidRequest: ``schema_too_complex``: the schema and the answer together take too long.
            Overloaded: too many answers wait.
        """
        if validator.is_quick(text):
            return validated(text, validator)
        try:
            outcome = await self._worker.run(Job(validator.raw, text))
        except InvalidRequest as error:
            self._keep(validator.raw, _again(error))  # so that the next request with it costs no call
            raise
        _raise_failure(outcome, text)
        return msgspec.Raw(outcome.result)

    async def close(self) -> None:
        """End the worker. Idempotent."""
        await self._worker.close()

    def _keep(self, key: bytes, known: Validator | InvalidRequest) -> None:
        if key not in self._known:
            self._bytes += len(key)
        self._known[key] = known
        while len(self._known) > self._limit or self._bytes > self._max_bytes:
            self._bytes -= len(self._known.popitem(last=False)[0])


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


def _encoded(schema: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(schema)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        fault = FieldError("$.schema", "the schema is no JSON, or is nested too deeply")
        raise InvalidRequest(code="invalid_schema", errors=(fault,)) from error


def _again(error: InvalidRequest) -> InvalidRequest:
    """Return the same failure, without the frames of this one."""
    return InvalidRequest(error.detail, code=error.code, errors=error.errors)


def _raise_failure(outcome: Outcome, text: str) -> None:
    if outcome.code == SchemaMismatch.code:
        raise SchemaMismatch(outcome.detail, raw=text, errors=outcome.errors)
    if outcome.code:
        raise InvalidRequest(outcome.detail, code=outcome.code, errors=outcome.errors)
