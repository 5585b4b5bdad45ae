"""Large inputs: parsed, digested and encoded beside the loop; small ones in it."""

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from actors import large_inputs
from actors.large_inputs import LARGE, is_large
from actors.requests import fingerprint as fingerprints
from actors.testing import ScriptedUpstream, say
from protocol.json import long_texts
from protocol.json.long_texts import encode_in_pieces
from protocol.llm import ChatMessage, ChatRequest, ImagePart, TextPart, Tool, ToolCall
from service.http import bodies
from tests.service.conftest import Start

KEY: Final = "a-key-of-16-chars"
HEADERS: Final = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
PATHS: Final = ["/v1/chat/completions", "/v1/messages", "/v1/messages/count_tokens", "/v1/responses", "/api/requests"]


def body_of(path: str, text: str) -> bytes:
    """Return the body of a request of this surface."""
    if path == "/v1/responses":
        return json.dumps({"model": "m", "input": text}).encode()
    more = {"max_tokens": 9} if path == "/v1/messages" else {}
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **more}).encode()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each parsed body, digest and encoding: whether it ran in the loop's thread."""
    inside: list[bool] = []
    loop_thread = threading.get_ident()

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - any function's
            inside.append(threading.get_ident() == loop_thread)
            return function(*args, **options)

        return noting

    monkeypatch.setattr(bodies, "_bounded", noted(bodies._bounded))
    monkeypatch.setattr(fingerprints, "_digest", noted(fingerprints._digest))
    monkeypatch.setattr("actors.llm_gateway.providers.openai.chat_body", noted(_chat_body()))
    return inside


def _chat_body() -> Callable[..., bytes]:
    from protocol.openai.upstream import chat_body  # noqa: PLC0415 - before it is replaced

    return chat_body


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("size", "inside"), [(LARGE // 4, True), (LARGE * 2, False)])
async def test_a_large_body_is_worked_on_beside_the_loop(
    start: Start, upstream: ScriptedUpstream, steps: list[bool], path: str, size: int, *, inside: bool
) -> None:
    """On every surface; a small one within it, without another turn."""
    running = await start(api_keys=(SecretStr(KEY),))
    upstream.script(say("yes"))
    async with running.client.post(path, data=body_of(path, "x" * size), headers=HEADERS) as response:
        assert response.status in {200, 202}
        answered = await response.json()
    if path == "/api/requests":
        async with running.client.get(answered["links"]["events"], headers=HEADERS) as response:
            await response.read()
    assert set(steps) == {inside}
    assert len(steps) == (1 if path.endswith("count_tokens") else 3)


async def test_two_large_requests_with_one_key_are_one(start: Start, upstream: ScriptedUpstream) -> None:
    """Both are digested before either begins; another body with the key is refused."""
    running = await start(api_keys=(SecretStr(KEY),))
    upstream.script(say("yes"))
    data, other = body_of("/api/requests", "x" * LARGE), body_of("/api/requests", "y" * LARGE)

    async def submitted(data: bytes) -> tuple[int, str]:
        headers = HEADERS | {"Idempotency-Key": "one"}
        async with running.client.post("/api/requests", data=data, headers=headers) as response:
            return response.status, (await response.json()).get("requestId", "")

    first, second = await asyncio.gather(submitted(data), submitted(data))
    assert {first[0], second[0]} == {200, 202}
    assert first[1] == second[1]
    assert (await submitted(other))[0] in {409, 422}
    assert len(upstream.received) <= 1


async def test_work_of_a_caller_that_is_gone_is_not_begun() -> None:
    """It leaves the queue; what runs already goes on, and the next is served."""
    held, ran = threading.Event(), []
    running = asyncio.create_task(large_inputs.aside(held.wait))
    waiting = asyncio.create_task(large_inputs.aside(lambda: ran.append("waiting")))
    await asyncio.sleep(0)
    waiting.cancel()
    running.cancel()
    await asyncio.wait((waiting, running))
    held.set()
    assert await large_inputs.aside(lambda: "next") == "next"
    assert ran == []
    assert waiting.cancelled()


BIG: Final = "x" * (LARGE + 1)
USER: Final = ChatMessage(role="user", content="hi")


@pytest.mark.parametrize(
    "request_",
    [
        ChatRequest(model="m", messages=(ChatMessage(role="user", content=BIG),)),
        ChatRequest(model="m", messages=(ChatMessage(role="user", content="x" * 64),) * (LARGE // 64 + 1)),
        ChatRequest(model="m", messages=(ChatMessage(role="user", content=(TextPart(text=BIG),)),)),
        ChatRequest(model="m", messages=(ChatMessage(role="user", content=(ImagePart(url=BIG),)),)),
        ChatRequest(
            model="m",
            messages=(ChatMessage(role="assistant", tool_calls=(ToolCall(id="1", name="f", arguments=BIG),)),),
        ),
        ChatRequest(model="m", messages=(ChatMessage(role="user", extra={"openai": {"a": [BIG]}}),)),
        ChatRequest(model="m", messages=(USER,), tools=(Tool(name="f", description=BIG),)),
        ChatRequest(model="m", messages=(USER,), tools=(Tool(name="f", parameters={"description": BIG}),)),
        ChatRequest(model="m", messages=(USER,), schema={BIG: True}),
        ChatRequest(model="m", messages=(USER,), stop=(BIG,)),
        ChatRequest(model="m", messages=(USER,), extra={f"k{n}": 1 for n in range(45_000)}),
    ],
)
def test_a_large_request_is_large_wherever_it_is(request_: ChatRequest) -> None:
    """In each field that a caller writes."""
    assert is_large(request_)
    assert not is_large(ChatRequest(model="m", messages=(USER,), tools=(Tool(name="f"),), extra={"a": 1}))


@given(st.recursive(st.text() | st.integers(-9, 9) | st.none(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
def test_json_in_pieces_is_the_same(value: Any) -> None:  # noqa: ANN401 - JSON
    """However short the pieces are; no call takes a longer text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(long_texts, "PIECE", 3)
        assert json.loads(encode_in_pieces(value)) == value
