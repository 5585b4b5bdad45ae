"""Following a request: content besides the text, and the modes of beginning."""

import asyncio
import json

import pytest

from protocol.errors import UnrecoverablePosition
from protocol.events import AttemptFailed, Position, ReasoningDelta, ToolCallDelta
from protocol.hub import Mode
from protocol.llm import ReasoningPart, TextPart, ToolCall, ToolCallPart
from service.client import Client
from service.client.following import Finished, Following, Update
from tests.cutting_proxy import CuttingProxy
from tests.service.bench import Service, open_service

THOUGHT = ReasoningPart(text="Hm. Yes.", signature="s")
CALL = ToolCall(id="c1", name="look", arguments='{"q":1}')
RESTART = AttemptFailed(provider="p", model="m", code="provider_error", restart=True)


class Answer:
    """An answer as a reader assembles it."""

    def __init__(self) -> None:
        self.text = ""
        self.reasoning = ""
        self.calls: dict[int, list[str]] = {}

    def add(self, update: Update) -> None:
        """Add an update, or replace everything with it."""
        if update.replaces:
            self.text, self.reasoning, self.calls = "", "", {}
        self.text += update.text
        self.reasoning += update.reasoning
        for piece in update.tool_calls:
            call = self.calls.setdefault(piece.index, ["", "", ""])
            for place, new in enumerate((piece.id, piece.name, piece.arguments)):
                call[place] += new


async def gather(following: Following) -> tuple[Answer, Finished]:
    """Follow to the end."""
    answer = Answer()
    async for event in following:
        if isinstance(event, Finished):
            return answer, event
        answer.add(event)
    raise AssertionError("the answer has no end")


async def begun(service: Service) -> str:
    """Submit a request whose answer has reasoning and a tool call, after a first attempt that is replaced."""
    request_id = await service.submit(options={"onAttemptFailed": "restart"})
    call = await service.call()
    await call.tell(ReasoningDelta(text="Void. "), ToolCallDelta(index=0, id="c0", name="x"), RESTART)
    await call.tell(ReasoningDelta(text="Hm. "), ReasoningDelta(text="Yes.", signature="s"))
    await call.say("Hel", "lo")
    await call.tell(ToolCallDelta(index=0, id="c1", name="look", arguments='{"q"'))
    await call.tell(ToolCallDelta(index=0, arguments=":1}"))
    service.calls.put_nowait(call)
    return request_id


@pytest.mark.parametrize("mode", [None, "snapshot", "replay"])
async def test_all_that_an_answer_has(mode: Mode | None) -> None:
    """Text, reasoning and tool calls are the same in any pieces; the replaced attempt is dropped."""
    async with open_service() as service, Client(service.base) as client:
        request_id = await begun(service)
        following = client.follow(request_id, mode=mode)
        answer = Answer()
        while answer.calls.get(0, [""] * 3)[2] != CALL.arguments:
            update = await anext(following)
            assert isinstance(update, Update)
            answer.add(update)
        await (await service.call()).end()
        finished = await anext(following)
        assert isinstance(finished, Finished)
        assert (answer.text, answer.reasoning) == ("Hello", THOUGHT.text)
        assert answer.calls == {0: ["c1", "look", '{"q":1}']}
        assert finished.reasoning == (THOUGHT,)
        assert following.parts == (
            THOUGHT,
            TextPart(text="Hello"),
            ToolCallPart(id="c1", name="look", arguments='{"q":1}'),
        )
        assert [event async for event in following] == []


async def test_what_comes_from_now_on() -> None:
    """A live reader gets only later events, and resumes at its position after a lost connection."""
    async with (
        open_service() as service,
        CuttingProxy(service.base) as proxy,
        Client(proxy.url, base=0.0) as client,
    ):
        request_id = await begun(service)
        call = await service.call()
        following = client.follow(request_id, mode="live")
        first = asyncio.ensure_future(anext(following))
        await service.until_followers(request_id, 1)
        await call.say("new ")
        update = await first
        assert isinstance(update, Update)
        assert update.text == "new "
        proxy.cut()
        await call.say("newer")
        update = await anext(following)
        assert isinstance(update, Update)
        assert update.text == "newer"
        await call.end()
        assert isinstance(await anext(following), Finished)
        late = client.follow(request_id, mode="live")
        assert [type(event) for event in [event async for event in late]] == [Finished]


async def test_every_entry_or_none() -> None:
    """A replay of entries that are not kept is refused; the default mode gets a snapshot."""
    async with open_service() as service, Client(service.base) as client:
        request_id = await service.answered("Hel", "lo")
        gone = Position("another", 2)
        with pytest.raises(UnrecoverablePosition):
            await anext(client.follow(request_id, after=gone, mode="replay"))
        answer, finished = await gather(client.follow(request_id, after=gone))
        assert answer.text == "Hello"
        assert json.loads(bytes(finished.result))["text"] == "Hello"
