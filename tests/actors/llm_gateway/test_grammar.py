import json
from typing import Any

import pytest

from actors.llm_gateway.providers.grammar import SAFE, STEP, grammar

HEAD = "%llguidance {}\nstart: %json "


def guided(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema within the grammar."""
    text = grammar(schema)
    assert text.startswith(HEAD)
    assert text.count("\n") == 2
    found = json.loads(text.removeprefix(HEAD))
    assert found.pop("x-guidance") == {"whitespace_flexible": False, "lenient": True}
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("schema", "added"),
    [
        ({"type": "number", "minimum": 0, "maximum": 1}, {"multipleOf": STEP}),
        ({"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.5}, {}),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 0.0001}, {}),
        ({"type": ["number", "null"]}, {"minimum": -SAFE, "maximum": SAFE, "multipleOf": STEP}),
        ({"type": "integer", "minimum": 1}, {"maximum": SAFE}),
        ({"type": "integer", "minimum": SAFE * 2}, {}),
        ({"type": "string"}, {}),
        ({}, {}),
    ],
)
def test_numbers_have_an_end(schema: dict[str, Any], added: dict[str, Any]) -> None:
    """A number gets bounds and a step where it has none; its other keywords stay."""
    assert guided(schema) == schema | added


def test_numbers_have_an_end_wherever_they_are() -> None:
    """In properties, items and alternatives; values that only look like a schema are unchanged."""
    schema = {
        "properties": {"type": {"items": {"type": "integer"}}, "b": {"anyOf": [{"type": "number"}]}},
        "enum": [{"type": "integer"}],
    }
    found = guided(schema)
    assert found["properties"]["type"]["items"]["maximum"] == SAFE
    assert found["properties"]["b"]["anyOf"][0]["multipleOf"] == STEP
    assert found["enum"] == schema["enum"]


def test_text_of_a_schema_can_not_leave_it() -> None:
    """A newline in the caller's text does not end a line of the grammar."""
    assert guided({"const": "a\nstart: /.*/"}) == {"const": "a\nstart: /.*/"}
