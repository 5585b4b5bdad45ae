from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import pytest

from actors.llm_gateway import complete_json
from actors.llm_gateway.structured import json_schema
from actors.runtime import Ref
from actors.testing import ScriptedUpstream, say
from protocol.errors import SchemaMismatch
from protocol.llm import ChatMessage

Spawn = Callable[..., Ref[Any]]
MESSAGES = (ChatMessage(role="user", content="pizza near me"),)


class Place(msgspec.Struct):
    """A part of an answer."""

    name: str
    stars: int = 0


class Gate(msgspec.Struct):
    """An answer."""

    is_food: bool
    language: Literal["en", "he"]
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)]
    places: list[Place] = []


def test_the_schema_is_in_the_strict_form() -> None:
    """Every object is closed and has all its fields required; the root is no reference."""
    schema = json_schema(Gate)
    assert schema["type"] == "object"
    for part in (schema, schema["$defs"]["Place"]):
        assert part["required"] == list(part["properties"])
        assert part["additionalProperties"] is False


async def test_an_answer_is_a_struct(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """The result is of the type that the program passes."""
    upstream.script(
        say('{"is_food": true, "language": "en", ', '"confidence": 0.9, "places": [{"name":"a","stars":1}]}')
    )
    answer = await complete_json(spawn(), MESSAGES, Gate)
    assert answer == Gate(is_food=True, language="en", confidence=0.9, places=[Place("a", 1)])
    assert upstream.received[0].body["response_format"]["json_schema"]["strict"] is True


async def test_an_answer_of_another_shape_is_a_mismatch(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """The error has the raw text, that of the second answer where there are two."""
    upstream.script(say('{"is_food": 2}'), say('{"is_food": 3}'))
    with pytest.raises(SchemaMismatch) as caught:
        await complete_json(spawn(), MESSAGES, Gate)
    assert caught.value.raw == '{"is_food": 3}'
