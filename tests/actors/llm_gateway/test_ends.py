"""How answers end: unknown finish reasons, answers that are cut short or refused, and claims of usage."""

import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from actors.llm_gateway.usage import LEAST_BOUND, OUTPUT_LIMIT, used
from actors.resilience.retry import RetryPolicy
from actors.runtime import Ref
from actors.runtime.testing import TestSystem
from actors.testing import Data, End, Reply, Say, ScriptedUpstream, Think, say
from protocol.anthropic.reader import MessagesReader
from protocol.errors import ProviderError, SchemaMismatch
from protocol.gateway import Complete, Completion, Progress
from protocol.llm import Attempt, ChatMessage, ChatRequest, FinishReason, Usage
from protocol.openai.reader import ChatReader
from protocol.routes import Route, Routes
from protocol.upstream import AnswerReader, Deltas

Spawn = Callable[..., Ref[Any]]

MESSAGES = (ChatMessage(role="user", content="a question of 28 characters."),)
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
HALF = '{"ok": tr'
MODELS = ("openai/m", "anthropic/m")
REFUSAL = Data(b'{"choices":[{"delta":{"refusal":"I can\'t"}}]}')


async def ask(gateway: Ref[Any], sink: Any = None, **fields: Any) -> Completion:  # noqa: ANN401
    """Ask the question."""
    request = ChatRequest(**{"model": "openai/m", "messages": MESSAGES, **fields})
    answer = await gateway.ask(Complete(request=request, sink=sink), timeout=60)
    assert isinstance(answer, Completion)
    return answer


@pytest.mark.parametrize("model", MODELS)
async def test_an_unknown_reason_is_other_and_a_warning(
    spawn: Spawn,
    system: TestSystem,
    upstream: ScriptedUpstream,
    caplog: pytest.LogCaptureFixture,
    model: str,
) -> None:
    """The answer is given with the upstream's word; the attempt and the log say it."""
    probe = system.probe(Progress)
    upstream.script(Reply(steps=(Say("Hi"), End(word="vendor_done"))))
    with caplog.at_level(logging.WARNING, "tidegate.gateway"):
        answer = await ask(spawn(), probe.ref, model=model)
    assert (answer.text, answer.finish_reason, answer.raw_finish_reason) == ("Hi", "other", "vendor_done")
    attempt: Attempt | None = None
    while attempt is None:
        attempt = (await probe.expect(Progress)).attempt
    assert attempt.warning == "unknown finish reason 'vendor_done'"
    assert f"{model} ended an answer with an unknown finish reason 'vendor_done'" in caplog.messages


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("word", ["pause_turn", "model_context_window_exceeded"])
async def test_anthropics_own_words_are_kept(spawn: Spawn, upstream: ScriptedUpstream, word: str, model: str) -> None:
    """They have a canonical reason beside them."""
    upstream.script(Reply(steps=(Say("Hi"), End(word=word))))
    answer = await ask(spawn(), model=model)
    assert answer.finish_reason == ("stop" if word == "pause_turn" else "length")
    assert answer.raw_finish_reason == (word if model.startswith("anthropic") else "")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("steps", [(End(word="news"),), (Think("hm"), End(word="news"))])
async def test_an_unknown_reason_without_an_answer_is_a_failure(
    spawn: Spawn, upstream: ScriptedUpstream, steps: tuple[Any, ...], model: str
) -> None:
    """No text, no call, no refusal: nobody knows what has happened."""
    upstream.script(Reply(steps=steps))
    with pytest.raises(ProviderError) as caught:
        await ask(spawn(retry=RetryPolicy(attempts=1)), model=model)
    assert caught.value.code == "provider_bad_response"


@pytest.mark.parametrize("dialect", ["openai", "anthropic"])
@pytest.mark.parametrize("said", [(), (Say("Hi"),)])
async def test_calls_without_a_call_are_a_failure(
    spawn: Spawn, upstream: ScriptedUpstream, dialect: str, said: tuple[Say, ...]
) -> None:
    """The next target is called, unless content was shown by then."""
    routes = Routes(routes={"two": Route(targets=(f"{dialect}/a", f"{dialect}/b"))})
    upstream.script(Reply(steps=(*said, End(finish_reason="tool_calls"))), say("there"))
    assert (await ask(spawn(routes=routes), model="two")).text == "there"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_an_answer_cut_short_is_given_as_that(
    spawn: Spawn, upstream: ScriptedUpstream, reason: FinishReason, model: str
) -> None:
    """To a caller of a vendor's dialect as the vendor does; natively it does not match, and the error says why."""
    gateway = spawn()
    for dialect in ("openai", "anthropic"):
        upstream.script(Reply(steps=(Say(HALF), End(finish_reason=reason))))
        answer = await ask(gateway, model=model, schema=SCHEMA, dialect=dialect)
        assert (answer.text, answer.result, answer.finish_reason) == (HALF, None, reason)
    upstream.script(Reply(steps=(Say(HALF), End(finish_reason=reason))))
    with pytest.raises(SchemaMismatch) as caught:
        await ask(gateway, model=model, schema=SCHEMA)
    assert (reason in caught.value.detail, caught.value.raw) == (True, HALF)


async def test_a_refusal_is_given_as_that(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """The same for a refusal, which is not repaired."""
    gateway, reply = spawn(), Reply(steps=(REFUSAL, End()))
    upstream.script(reply)
    answer = await ask(gateway, schema=SCHEMA, dialect="openai")
    assert (answer.result, answer.finish_reason) == (None, "stop")
    upstream.script(reply)
    with pytest.raises(SchemaMismatch) as caught:
        await gateway.ask(
            Complete(request=ChatRequest(model="openai/m", messages=MESSAGES, schema=SCHEMA), repair=True), timeout=60
        )
    assert ("refused" in caught.value.detail, upstream.calls) == (True, 2)


async def test_what_does_not_match_is_still_a_mismatch(spawn: Spawn, upstream: ScriptedUpstream) -> None:
    """An answer that the model has ended by itself, in either dialect."""
    gateway = spawn()
    for dialect in ("native", "openai"):
        upstream.script(Reply(steps=(Say(HALF), End())))
        with pytest.raises(SchemaMismatch):
            await ask(gateway, schema=SCHEMA, dialect=dialect)


def reader(make: Callable[[], AnswerReader], *events: object) -> AnswerReader:
    """A reader that has read these events."""
    made, pieces = make(), Deltas()
    for event in events:
        made.feed(json.dumps(event).encode(), pieces)
    return made


def claim(inputs: object, outputs: object, finish: str | None = "stop") -> AnswerReader:
    """A reader of an answer with this usage."""
    choice = {"choices": [{"delta": {"content": "x"}, "finish_reason": finish}]}
    return reader(ChatReader, choice, {"choices": [], "usage": {"prompt_tokens": inputs, "completion_tokens": outputs}})


REQUEST = ChatRequest(model="m", messages=MESSAGES)
HOSTED = ChatRequest(model="m", messages=MESSAGES, extra={"web_search_options": {}}, dialect="openai")


@pytest.mark.parametrize(
    ("request_", "window", "inputs", "outputs", "expected"),
    [
        (REQUEST, None, 60, 5, (60, 5, False)),
        (REQUEST, None, LEAST_BOUND, OUTPUT_LIMIT, (LEAST_BOUND, OUTPUT_LIMIT, False)),
        (REQUEST, None, LEAST_BOUND + 1, 5, (7, 5, True)),
        (REQUEST, None, 60, OUTPUT_LIMIT + 1, (60, 3, True)),
        (REQUEST, 128_000, 100_000, 100_000, (100_000, 100_000, False)),
        (REQUEST, 128_000, 200_000, 200_000, (7, 3, True)),
        (HOSTED, None, 1_000_000, 5, (1_000_000, 5, False)),
        (REQUEST, None, -60, -5, (7, 3, True)),
        (REQUEST, None, 60, 0, (60, 3, True)),
        (REQUEST, None, 0, 5, (7, 5, True)),
        (REQUEST, None, "60", 5.0, (60, 5, False)),
    ],
)
def test_a_claim_is_believed_within_bounds(
    request_: ChatRequest, window: int | None, inputs: object, outputs: object, expected: tuple[int, int, bool]
) -> None:
    """What can't be true, and what is missing, is estimated and marked."""
    usage, estimated = used(claim(inputs, outputs), request_, 12, begun=True, window=window)
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens, estimated) == expected


@pytest.mark.parametrize("usage", [{}, {"usage": None}, {"usage": {}}, {"usage": {"output_tokens": 0}}])
def test_the_first_count_of_the_output_is_not_the_last(usage: dict[str, Any]) -> None:
    """Anthropic's first event counts one token of output: without a count at the end it is estimated."""
    start = {"type": "message_start", "message": {"usage": {"input_tokens": 60, "output_tokens": 1}}}
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, **usage}
    answered = reader(MessagesReader, start, end)
    assert used(answered, REQUEST, 420_391, begun=True) == (Usage(input_tokens=60, output_tokens=105_098), True)


@pytest.mark.parametrize("finish", [None, "news"])
def test_a_call_that_brought_nothing_has_used_nothing(finish: str | None) -> None:
    """Whatever it has reported."""
    assert used(claim(60, 5, finish), REQUEST, 0, begun=False) == (None, False)
    assert used(None, REQUEST, 0, begun=False) == (None, False)
