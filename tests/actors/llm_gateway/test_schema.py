from typing import Any

import pytest

from actors.llm_gateway.schema import Schemas, Validator, check_schema, validated
from protocol.errors import InvalidRequest, SchemaMismatch

GATE: dict[str, Any] = {
    "type": "object",
    "properties": {"confidence": {"type": "number", "minimum": 0, "maximum": 1}, "tags": {"items": {"enum": ["a"]}}},
    "required": ["confidence"],
}


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "banana"}, "$.schema.type"),
        ({"properties": 3}, "$.schema.properties"),
        ({"pattern": "("}, "$.schema.pattern"),
        ({"$ref": "#/nowhere"}, "$.schema"),
        ({"$ref": "http://127.0.0.1:1/schema"}, "$.schema"),
        ({"$ref": "file:///etc/passwd"}, "$.schema"),
        ({"$schema": "http://127.0.0.1:1/draft"}, "$.schema"),
    ],
)
def test_what_is_no_schema_says_where(schema: dict[str, Any], path: str) -> None:
    """The error has the place of the fault; nothing is fetched to find it."""
    with pytest.raises(InvalidRequest) as caught:
        check_schema(schema)
    assert caught.value.code == "invalid_schema"
    assert caught.value.errors[0].path == path


def test_a_schema_without_end_is_refused() -> None:
    """Depth is bounded."""
    schema: dict[str, Any] = {}
    for _ in range(900):
        schema = {"items": schema}
    with pytest.raises(InvalidRequest):
        check_schema(schema)


def test_a_good_schema_passes() -> None:
    """Nothing is raised."""
    check_schema(GATE)


def test_an_answer_that_matches_is_kept_word_for_word() -> None:
    """Only white space around it is removed."""
    assert bytes(validated(' {"confidence": 0.50}\n', Validator(GATE))) == b'{"confidence": 0.50}'


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", "$"),
        ("[" * 5000, "$"),
        ('{"confidence": 2}', "$.confidence"),
        ("{}", "$"),
        ('{"confidence": 1, "tags": ["a", "b"]}', "$.tags[1]"),
    ],
)
def test_an_answer_that_does_not_match_keeps_its_text(text: str, path: str) -> None:
    """The error has the raw text and the places of its faults."""
    with pytest.raises(SchemaMismatch) as caught:
        validated(text, Validator(GATE))
    assert caught.value.raw == text
    assert caught.value.errors[0].path == path


def test_compiled_schemas_are_kept_within_a_bound() -> None:
    """The least recently used one goes."""
    schemas = Schemas(limit=2)
    one = schemas.validator({"minimum": 1})
    schemas.validator({"minimum": 2})
    assert schemas.validator({"minimum": 1}) is one
    schemas.validator({"minimum": 3})
    assert schemas.validator({"minimum": 1}) is one
    assert len(schemas._known) == 2


def test_a_null_for_an_optional_property_is_left_out() -> None:
    """Where the schema allows no null there: a model that has to write all properties writes null for it."""
    schema: dict[str, Any] = {
        "$defs": {
            "named": {"type": "object", "properties": {"name": {"type": "string"}, "of": {"$ref": "#/$defs/named"}}}
        },
        "type": "object",
        "properties": {
            "one": {"$ref": "#/$defs/named"},
            "more": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/named"}, {"type": "null"}]}},
            "kept": {"type": ["string", "null"]},
            "free": {},
        },
        "required": ["one"],
    }
    one, rest = '{"name": null, "of": {"name": "b", "of": null}}', '"kept": null, "free": null'
    text = f'{{"one": {one}, "more": [{{"name": null}}, null], {rest}}}'
    result = validated(text, Validator(schema))
    assert bytes(result) == b'{"one":{"of":{"name":"b"}},"more":[{},null],"kept":null,"free":null}'
    with pytest.raises(SchemaMismatch) as caught:
        validated('{"one": null}', Validator(schema))
    assert caught.value.raw == '{"one": null}'


def test_an_answer_that_is_too_deep_for_that_is_wrong() -> None:
    """It is a mismatch, not an internal error."""
    schema = {
        "type": "object",
        "properties": {"a": {"$ref": "#"}, "b": {"type": "string"}},
        "additionalProperties": False,
    }
    text = '{"a":' * 600 + '{"b":1}' + "}" * 600
    with pytest.raises(SchemaMismatch):
        validated(text, Validator(schema))
