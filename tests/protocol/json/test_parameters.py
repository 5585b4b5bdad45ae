"""Schemas of a tool's arguments."""

from typing import Any

import pytest

from protocol.json.parameters import object_schema

EMPTY = {"type": "object", "properties": {}}
PROPERTIES = {"x": {"type": "string"}}


@pytest.mark.parametrize(
    ("parameters", "sent"),
    [
        ({}, EMPTY),
        ({"type": None}, EMPTY),
        ({"type": "object"}, EMPTY),
        ({"type": "object", "properties": None}, EMPTY),
        ({"type": "object", "properties": PROPERTIES, "required": None}, {"type": "object", "properties": PROPERTIES}),
        ({"properties": PROPERTIES}, {"type": "object", "properties": PROPERTIES}),
        ({"$ref": "#/$defs/a", "$defs": {}}, {**EMPTY, "$ref": "#/$defs/a", "$defs": {}}),
        ({"type": "string"}, {"type": "string"}),
    ],
)
def test_parameters_are_an_object(parameters: dict[str, Any], sent: dict[str, Any]) -> None:
    """With a type and properties; another type is left to the vendor."""
    assert object_schema(parameters) == sent


def test_a_usual_schema_is_sent_as_it_is() -> None:
    """The same object."""
    usual = {"type": "object", "properties": PROPERTIES, "additionalProperties": False}
    assert object_schema(usual) is usual
