"""Schemas converted for vendors, and the answers to them."""

import json
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.llm_gateway.schema import Validator, validated
from protocol.json.strict_schema import anthropic_schema, openai_schema, strict_anthropic_tool, strict_tool

NULL = {"type": "null"}
STRING = {"type": "string"}

leaves: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.sampled_from(["string", "integer", "number", "boolean", "null"]).map(lambda kind: {"type": kind}),
    st.lists(st.sampled_from(["a", 1, None, True]), min_size=1, max_size=3).map(lambda values: {"enum": values}),
    st.sampled_from(["a", 1, None]).map(lambda value: {"const": value}),
    st.just({"type": ["string", "null"]}),
    st.just({"$ref": "#/$defs/named"}),
)


def objects(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects of these parts, with optional properties, closed or not."""
    return st.builds(
        lambda properties, required, closed: {
            "type": "object",
            "properties": properties,
            "required": [name for name in properties if name in required],
            **({"additionalProperties": False} if closed else {}),
        },
        st.dictionaries(st.sampled_from("abcd"), parts, min_size=1, max_size=3),
        st.sets(st.sampled_from("abcd")),
        st.booleans(),
    )


def larger(parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Schemas that combine these parts."""
    return st.one_of(
        objects(parts),
        parts.map(lambda part: {"type": "array", "items": part}),
        st.lists(parts, min_size=1, max_size=3).map(lambda branches: {"anyOf": branches}),
        parts.map(lambda part: {"allOf": [part], "description": "the same"}),
    )


schemas = objects(st.recursive(leaves, larger, max_leaves=8)).map(
    lambda schema: {**schema, "$defs": {"named": {"type": "object", "properties": {"e": {"type": "integer"}}}}}
)


def answers(schema: dict[str, Any], root: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Answers that match a converted schema."""
    if "$ref" in schema:
        return answers(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "anyOf" in schema:
        return st.one_of([answers(branch, root) for branch in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    if schema["type"] == "object":
        parts = {name: answers(part, root) for name, part in schema["properties"].items()}
        needed = {name: parts.pop(name) for name in schema.get("required", ())}
        return st.fixed_dictionaries(needed, optional=parts)
    typed: dict[str, st.SearchStrategy[Any]] = {
        "string": st.text(max_size=3),
        "integer": st.integers(-9, 9),
        "number": st.integers(-9, 9),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    return typed[schema["type"]] if schema["type"] in typed else st.lists(answers(schema["items"], root), max_size=2)


@given(st.data(), schemas)
def test_answers_to_openais_schema_match_the_callers(data: st.DataObject, schema: dict[str, Any]) -> None:
    """An answer to the converted schema matches the caller's schema once nulls of optional properties are removed."""
    prepared = openai_schema(schema)
    assert prepared is not None
    assert openai_schema(prepared) == prepared
    answer = data.draw(answers(prepared, prepared))
    assert jsonschema_rs.validator_for(prepared).is_valid(answer)
    validated(json.dumps(answer), Validator(schema))


@given(st.data(), schemas)
def test_answers_to_anthropics_schema_match_the_callers(data: st.DataObject, schema: dict[str, Any]) -> None:
    """An answer to the converted schema matches the caller's schema; optional properties stay optional."""
    prepared = anthropic_schema(schema)
    assert prepared is not None
    assert anthropic_schema(prepared) == prepared
    assert jsonschema_rs.validator_for(schema).is_valid(data.draw(answers(prepared, prepared)))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {"a": {}}},
        {"type": "object", "properties": {"a": True}},
        {"type": "object", "properties": {"a": STRING}, "additionalProperties": True},
        {"type": "object", "properties": {"a": STRING}, "patternProperties": {"b": STRING}},
        {"type": "object", "properties": {"a": STRING}, "required": ["b"]},
        {"type": "object", "properties": {"a": {"type": "array"}}},
        {"type": "object", "properties": {"a": {"type": "array", "prefixItems": [STRING]}}},
        {"type": "object", "properties": {"a": {"enum": [{"b": 1}]}}},
        {"type": "object", "properties": {"a": {"allOf": [STRING, {"minLength": 1}]}}},
        {"type": "object", "properties": {"a": {"anyOf": [STRING], "type": "string"}}},
        {"type": "object", "properties": {"a": {"not": STRING}}},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/nobody"}}},
        {"type": "object", "properties": {"a": {"$ref": "#/properties/b"}, "b": STRING}},
        {"type": "object", "properties": {"a": STRING}, "$defs": {"free": {"type": "object"}}},
    ],
)
def test_schemas_that_can_not_be_converted(schema: dict[str, Any]) -> None:
    """Schemas with arbitrary keys or unsupported keywords can't be converted."""
    assert openai_schema(schema) is None
    assert anthropic_schema(schema) is None


def test_openai_wants_an_object_at_the_root() -> None:
    """OpenAI needs an object at the root, Anthropic does not; a reference at the root is resolved."""
    for schema in ({"type": "array", "items": STRING}, {"anyOf": [STRING, NULL]}):
        assert openai_schema(schema) is None
        assert anthropic_schema(schema) == schema
    named = {"type": "object", "properties": {"a": STRING}, "required": ["a"], "additionalProperties": False}
    prepared = openai_schema({"$ref": "#/$defs/named", "$defs": {"named": named}})
    assert prepared == {**named, "$defs": {"named": named}}


def test_unsupported_bounds_are_described() -> None:
    """Unsupported bounds are moved to the description; keywords without effect on the answer are dropped."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "T",
        "type": "object",
        "properties": {
            "a": {"type": "string", "minLength": 2, "pattern": "^x", "description": "an a", "default": "xx"},
            "b": {"type": "integer", "minimum": 1},
            "c": {"items": {"type": "string", "format": "uri"}, "minItems": 2, "examples": [[]]},
            "d": {"oneOf": [STRING, NULL], "x-mine": 1},
            "e": {"const": "e"},
        },
        "required": ["a", "b", "c", "d", "e"],
    }
    openai, anthropic = openai_schema(schema), anthropic_schema(schema)
    assert openai is not None
    assert anthropic is not None
    assert openai.keys() == anthropic.keys() == {"title", "type", "properties", "required", "additionalProperties"}
    assert openai["properties"] == {
        "a": {"type": "string", "pattern": "^x", "description": "an a\n\n{minLength: 2}"},
        "b": {"type": "integer", "minimum": 1},
        "c": {"type": "array", "items": {"type": "string", "description": "{format: uri}"}, "minItems": 2},
        "d": {"anyOf": [STRING, NULL]},
        "e": {"type": "string", "const": "e"},
    }
    assert anthropic["properties"] == {
        "a": {"type": "string", "description": "an a\n\n{pattern: ^x, minLength: 2}"},
        "b": {"type": "integer", "description": "{minimum: 1}"},
        "c": {"type": "array", "items": {"type": "string", "format": "uri"}, "description": "{minItems: 2}"},
        "d": {"anyOf": [STRING, NULL]},
        "e": {"const": "e"},
    }


def closed(**properties: Any) -> dict[str, Any]:  # noqa: ANN401 - schemas
    """A closed object whose properties are all required."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def deep(levels: int) -> dict[str, Any]:
    """Objects within each other."""
    schema = closed(a=STRING)
    for _ in range(levels - 1):
        schema = closed(a=schema)
    return schema


RECURSIVE = closed(value=STRING, next={"anyOf": [{"$ref": "#"}, NULL]})
IN_CIRCLES = {
    **closed(a={"$ref": "#/$defs/a"}),
    "$defs": {"a": closed(b={"$ref": "#/$defs/b"}), "b": closed(a={"anyOf": [{"$ref": "#/$defs/a"}, NULL]})},
}
NAMED = {**closed(a={"$ref": "#/$defs/a"}, b={"$ref": "#/$defs/a"}), "$defs": {"a": closed(b=STRING)}}


@pytest.mark.parametrize("pattern", ["^(?=.*x)y", "(?!x)", "(?<=x)y", "(?<!x)y", r"(a)\1", r"(?P<a>x)(?P=a)"])
def test_a_pattern_that_looks_around_is_described(pattern: str) -> None:
    """No vendor's strict mode takes one."""
    schema = closed(a={"type": "array", "items": {"type": "string", "pattern": pattern}})
    described = {"type": "string", "description": f"{{pattern: {pattern}}}"}
    for prepared in (openai_schema(schema), anthropic_schema(schema)):
        assert prepared == closed(a={"type": "array", "items": described})
    assert strict_tool(schema, as_it_is=True) is None
    assert strict_anthropic_tool(schema, as_it_is=True) is None


@pytest.mark.parametrize(
    ("schema", "within"),
    [
        (deep(10), True),
        (deep(11), False),
        (closed(a={"type": "string", "enum": [f"v{number}" for number in range(1000)]}), True),
        (closed(a={"type": "string", "enum": [f"v{number}" for number in range(1001)]}), False),
        (closed(**{f"p{number}": {"enum": ["a", "b"]} for number in range(501)}), False),
        (closed(**{f"p{number}": STRING for number in range(5001)}), False),
        ({**NAMED, "$defs": {"a": deep(11)}}, False),
    ],
)
def test_a_schema_beyond_the_vendors_limits_is_not_strict(schema: dict[str, Any], within: bool) -> None:
    """Its depth, its properties and the values of its enums are counted."""
    assert (openai_schema(schema) is not None) is within
    assert (anthropic_schema(schema) is not None) is within
    assert (strict_tool(schema, as_it_is=True) is not None) is within


@pytest.mark.parametrize(("schema", "recursive"), [(RECURSIVE, True), (IN_CIRCLES, True), (NAMED, False)])
def test_only_openai_takes_a_schema_that_contains_itself(schema: dict[str, Any], recursive: bool) -> None:
    """Anthropic's structured output has no recursion."""
    assert openai_schema(schema) is not None
    assert (anthropic_schema(schema) is None) is recursive


def test_a_strict_tool_keeps_its_optional_properties() -> None:
    """A tool's arguments are not read by us: a null would reach its caller."""
    optional = {**closed(a=STRING, b=STRING), "required": ["a"]}
    assert strict_tool(closed(a=STRING), as_it_is=False) == closed(a=STRING)
    assert strict_tool(optional, as_it_is=False) is None
    assert strict_tool(optional, as_it_is=True) == optional
    assert strict_anthropic_tool(optional, as_it_is=False) == optional
    bounded = {**closed(a={"type": "string", "minLength": 2})}
    assert strict_tool(bounded, as_it_is=False) == closed(a={"type": "string", "description": "{minLength: 2}"})
