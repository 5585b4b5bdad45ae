"""The JSON Schema of a type."""

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import jsonschema_rs
import msgspec
import pytest

from actors.llm_gateway.type_schema import json_schema
from protocol.json.strict_schema import openai_schema

T = TypeVar("T")
Mood = NewType("Mood", str)


class Colour(Enum):
    """Not in the order of the alphabet."""

    RED = "red"
    BLUE = "blue"
    AMBER = "amber"


class Size(IntEnum):
    """Numbers."""

    LARGE = 3
    SMALL = 1


class Gate(msgspec.Struct):
    """The gate's answer: a text for whoever reads the code."""

    signal: Literal["NO", "UNCERTAIN", "YES"]
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1, description="how sure")]
    route: Literal["STOP", "ASK_CLARIFY", "CONTINUE", "BYPASS"] | None


class Node(msgspec.Struct):
    """Contains itself."""

    name: str
    below: list["Node"]


class Tree(msgspec.Struct):
    """Contains one that contains itself."""

    root: Node


class Box(msgspec.Struct, Generic[T], rename="camel"):
    """Generic, renamed, and with two orders of the same values."""

    the_item: T
    one_way: Literal["y", "x"]
    other_way: Literal["x", "y"]


class Row(NamedTuple):
    """A tuple."""

    letter: Literal["q", "b"]


class Entry(TypedDict):
    """A dictionary."""

    letter: Literal["q", "b"]
    mood: Mood


@dataclass
class Pair:
    """A data class."""

    letters: list[Literal["q", "b"]]
    colour: Colour


class Cat(msgspec.Struct, tag=True):
    """One of two."""

    lives: int


class Dog(msgspec.Struct, tag=True):
    """The other one."""

    legs: int


class Everything(msgspec.Struct):
    """One of each kind."""

    box: Box[Literal["u", "c"]]
    row: Row
    entry: Entry
    pair: Pair
    animal: Cat | Dog
    size: Size
    mixed: Literal["b", 2, "a"]


def test_the_schema_says_what_the_type_says() -> None:
    """Enums have a type, and their own order; no name and no docstring is there, and nothing twice."""
    assert json_schema(Gate) == {
        "type": "object",
        "properties": {
            "signal": {"type": "string", "enum": ["NO", "UNCERTAIN", "YES"]},
            "confidence": {"type": "number", "minimum": 0, "maximum": 1, "description": "how sure"},
            "route": {
                "anyOf": [
                    {"type": "string", "enum": ["STOP", "ASK_CLARIFY", "CONTINUE", "BYPASS"]},
                    {"type": "null"},
                ]
            },
        },
        "required": ["signal", "confidence", "route"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    ("kind", "schema"),
    [
        (Literal["z", "a"], {"type": "string", "enum": ["z", "a"]}),
        (Colour, {"type": "string", "enum": ["red", "blue", "amber"]}),
        (Size, {"type": "integer", "enum": [3, 1]}),
        (Literal["b", 2, "a"], {"enum": ["b", 2, "a"]}),
        (list[Colour], {"type": "array", "items": {"$ref": "#/$defs/Colour"}}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (int, {"type": "integer"}),
    ],
)
def test_values_keep_their_order(kind: Any, schema: dict[str, Any]) -> None:  # noqa: ANN401 - a type
    """Of a literal and of an enum, alone and within another type."""
    found = json_schema(kind)
    assert {key: part for key, part in found.items() if key != "$defs"} == schema
    enum = (found.get("$defs", {}).get("Colour") or found).get("enum")
    if kind in (Colour, list[Colour]):
        assert enum == ["red", "blue", "amber"]


def test_a_type_that_contains_itself_refers_to_the_root() -> None:
    """It is not there a second time as a definition; a definition that contains itself refers to itself."""
    schema = json_schema(Node)
    assert "$defs" not in schema
    assert schema["properties"]["below"] == {"type": "array", "items": {"$ref": "#"}}
    tree = json_schema(Tree)
    assert tree["$defs"].keys() == {"Node"}
    assert tree["$defs"]["Node"]["properties"]["below"]["items"] == {"$ref": "#/$defs/Node"}
    validator = jsonschema_rs.validator_for(schema)
    assert validator.is_valid({"name": "a", "below": [{"name": "b", "below": []}]})
    assert not validator.is_valid({"name": "a", "below": [{"name": "b"}]})
    assert openai_schema(schema) is not None


def test_every_kind_of_class_has_its_order() -> None:
    """Structs, generic and renamed ones, tuples, dictionaries and data classes; each is closed."""
    schema = json_schema(Everything)
    named = schema["$defs"]
    (box,) = [part for name, part in named.items() if name.startswith("Box")]
    enums = {name: part["enum"] for name, part in box["properties"].items()}
    assert enums == {"theItem": ["u", "c"], "oneWay": ["y", "x"], "otherWay": ["x", "y"]}
    assert named["Row"]["prefixItems"][0]["enum"] == ["q", "b"]
    assert named["Entry"]["properties"]["letter"]["enum"] == ["q", "b"]
    assert named["Pair"]["properties"]["letters"]["items"]["enum"] == ["q", "b"]
    assert named["Colour"]["enum"] == ["red", "blue", "amber"]
    assert schema["properties"]["mixed"]["enum"] == ["b", 2, "a"]
    for part in (schema, *(part for part in named.values() if part.get("type") == "object")):
        assert part["required"] == list(part["properties"])
        assert part["additionalProperties"] is False
    assert not [part for part in named.values() if "title" in part or "description" in part]


def test_a_type_without_a_schema_is_refused() -> None:
    """As early as the schema is made."""
    with pytest.raises(TypeError):
        json_schema(complex)
