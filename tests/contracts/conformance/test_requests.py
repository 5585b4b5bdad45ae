"""What every provider adapter sends: names and schemas that the vendor does not take, in a form that it does."""

from typing import Any

import pytest

from actors.testing import Call, End, Reply
from tests.contracts.conformance.adapters import ADAPTERS, Adapter
from tests.contracts.conformance.faults import PATIENT, TOTAL
from tests.contracts.conformance.rig import Rig, open_rig

LONG = "mcp__plugin_chrome-devtools-mcp_chrome-devtools__" + "get_console_message_" * 5
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
REMOTE = tuple(adapter for adapter in ADAPTERS if adapter.name != "local")
REFUSED = Reply(status=400, body=b'{"error":{"message":"Invalid schema: this is not permitted"}}')
CALLED = End(finish_reason="tool_calls")


async def native(rig: Rig, adapter: Adapter, **body: Any) -> Any:  # noqa: ANN401 - JSON
    """The last event of a native request."""
    submitted = {"model": adapter.target, "messages": [{"role": "user", "content": "hi"}], **body}
    async with rig.client.post("/api/requests", json=submitted) as response:
        assert response.status == 202, await response.text()
        place = response.headers["Location"]
    async with rig.client.get(f"{place}/events") as response:
        await response.read()
    async with rig.client.get(place) as response:
        return await response.json()


def tools_of(body: dict[str, Any]) -> list[str]:
    """The names of the tools that were sent."""
    return [tool.get("function", tool)["name"] for tool in body["tools"]]


@pytest.mark.parametrize("adapter", REMOTE, ids=lambda adapter: adapter.name)
async def test_a_long_name_is_the_callers_in_the_answer(adapter: Adapter) -> None:
    """The upstream gets a name that it takes, and the caller its own."""
    tools = [{"name": LONG, "parameters": {"type": "object"}}]
    async with open_rig([adapter], deadlines=PATIENT, total=TOTAL) as rig:
        rig.upstream.script(Reply(steps=(Call(id="c1", name="look", arguments="{}"), CALLED)))
        await native(rig, adapter, tools=tools)
        (sent,) = tools_of(rig.upstream.received[0].body)
        assert len(sent) <= 128
        rig.upstream.script(Reply(steps=(Call(id="c1", name=sent, arguments="{}"), CALLED)))
        state = await native(rig, adapter, tools=tools, options={"seed": 2})
        assert [call["name"] for call in state["coreResult"]["toolCalls"]] == [LONG]


@pytest.mark.parametrize("adapter", REMOTE, ids=lambda adapter: adapter.name)
async def test_a_refused_schema_is_followed_by_the_next_form(adapter: Adapter) -> None:
    """A tool, whose arguments are the answer; the request has one attempt."""
    async with open_rig([adapter], deadlines=PATIENT, total=TOTAL) as rig:
        answer = Call(id="c1", name="answer", arguments='{"ok":true}')
        rig.upstream.script(REFUSED, Reply(steps=(answer, CALLED)))
        state = await native(rig, adapter, schema=SCHEMA)
        assert (state["coreResult"], len(state["attempts"]), rig.upstream.calls) == ({"ok": True}, 1, 2)
