import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
import pytest

from actors.llm_gateway import complete_json
from actors.llm_gateway.type_schema import json_schema
from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.testing import Reply, ScriptedUpstream, Stall, say
from protocol.errors import DeadlineExceeded, SchemaMismatch
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


async def test_an_answer_is_a_struct(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """The result is of the type that the program passes."""
    upstream.script(
        say('{"is_food": true, "language": "en", ', '"confidence": 0.9, "places": [{"name":"a","stars":1}]}')
    )
    answer = await complete_json(spawn(), MESSAGES, Gate)
    assert answer == Gate(is_food=True, language="en", confidence=0.9, places=[Place("a", 1)])
    sent = upstream.received[0].body
    assert sent["response_format"]["json_schema"]["strict"] is True
    assert sent["response_format"]["json_schema"]["schema"]["$defs"].keys() == {"Place"}
    assert json_schema(Gate)["$defs"].keys() == {"Place"}


@pytest.mark.parametrize(("options", "sent"), [({}, 0.0), ({"temperature": 0.7}, 0.7), ({"temperature": None}, None)])
async def test_the_temperature_is_0_unless_the_program_says_another(
    spawn: Spawn, upstream: ScriptedUpstream, options: dict[str, Any], sent: float | None
) -> None:
    """A typed answer is meant to be the same each time; None sends no temperature."""
    upstream.script(say('{"name": "a", "stars": 1}'))
    await complete_json(spawn(), MESSAGES, Place, **options)
    assert upstream.received[0].body.get("temperature") == sent


async def test_an_answer_out_of_time_says_the_time(
    spawn: Spawn, system: TestSystem, upstream: ScriptedUpstream
) -> None:
    """The error has the caller's timeout, in milliseconds."""
    upstream.script(Reply(steps=(Stall(),)))
    asking = asyncio.create_task(complete_json(spawn(), MESSAGES, Place, timeout=5.0))
    await upstream.called()
    await system.advance(4.99)
    with pytest.raises(DeadlineExceeded, match=r"ran out of time \(5,000 ms\)"):
        await asking


async def test_an_answer_of_another_shape_is_a_mismatch(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """The error has the raw text, that of the second answer where there are two."""
    upstream.script(say('{"is_food": 2}'), say('{"is_food": 3}'))
    with pytest.raises(SchemaMismatch) as caught:
        await complete_json(spawn(), MESSAGES, Gate)
    assert caught.value.raw == '{"is_food": 3}'
