"""Grammar of a JSON Schema for the local engine, which keeps a small model from endless answers."""

from typing import Any, Final

import msgspec

SAFE: Final = 2**53 - 1  # the largest integer that every JSON reader takes
STEP: Final = 0.000001  # the finest step of a number: without one, a model may add digits for ever
NARROW: Final = 0.001  # a range in which that step would leave too few values
VALUES: Final = ("enum", "const", "default", "examples")


def grammar(schema: dict[str, Any]) -> str:
    """Return the grammar of the JSON texts that match ``schema``.

    It allows no white space, bounds numbers and their digits, and ignores keywords that the engine does not know: the
    answer is validated against the schema itself afterwards.
    """
    guided = {**_finite(schema), "x-guidance": {"whitespace_flexible": False, "lenient": True}}
    return f"%llguidance {{}}\nstart: %json {msgspec.json.encode(guided).decode()}\n"


def _finite(schema: Any) -> Any:  # noqa: ANN401 - any part of a schema
    """Bound the digits of every number."""
    if isinstance(schema, list):
        return [_finite(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    finite = {key: value if key in VALUES else _finite(value) for key, value in schema.items()}
    kinds = schema.get("type")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    if "number" not in kinds and "integer" not in kinds:
        return finite
    low, high = _bound(schema, "minimum", "exclusiveMinimum"), _bound(schema, "maximum", "exclusiveMaximum")
    if low is None and (high is None or high > -SAFE):
        finite["minimum"] = -SAFE
    if high is None and (low is None or low < SAFE):
        finite["maximum"] = SAFE
    narrow = low is not None and high is not None and high - low < NARROW
    if "number" in kinds and not narrow:
        finite.setdefault("multipleOf", STEP)
    return finite


def _bound(schema: dict[str, Any], *names: str) -> float | None:
    for name in names:
        value = schema.get(name)
        if isinstance(value, int | float):
            return value
    return None
