import json
from typing import Any

import msgspec
import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from protocol.answer import with_result
from protocol.errors import PROBLEMS, FieldError, InvalidRequest, NotFound, ProviderError, TryAgainLater
from protocol.events import (
    Cancelled,
    Completed,
    Delta,
    Entry,
    Event,
    Failed,
    ReasoningDelta,
    RefusalDelta,
    Started,
    ToolCallDelta,
    VendorBlock,
)
from protocol.gateway import ModelInfo
from protocol.llm import AnswerPart, RefusalPart, TextPart, ToolCallPart, Usage, VendorPart
from protocol.openai.answer import ERROR_TYPES, ChunkEncoder, completion_body, error_body, models_body
from protocol.parts import pieces_of

USAGE = Usage(input_tokens=7, output_tokens=3, cached_input_tokens=2, reasoning_tokens=1)
CALL = ToolCallPart(id="c1", name="look")
CUT = ToolCallPart(id="c1", name="look", arguments='{"a')


def log(*events: Event) -> list[Entry]:
    """Entries with their offsets."""
    return [Entry(offset, event) for offset, event in enumerate(events, 1)]


def frames(stream: bytes) -> list[Any]:
    """The data of each SSE event."""
    assert stream.endswith(b"\n\n")
    events = [frame.removeprefix("data: ") for frame in stream.decode().split("\n\n")[:-1]]
    return [text if text == "[DONE]" else json.loads(text) for text in events]


def completed(*parts: AnswerPart, **fields: Any) -> Completed:  # noqa: ANN401
    """The end of a good answer."""
    return Completed(parts=parts or (TextPart(text="Hello"),), usage=USAGE, **fields)


def message(*parts: AnswerPart, **fields: Any) -> Any:  # noqa: ANN401
    """The message of a whole answer."""
    return json.loads(completion_body("req_1", 1, "m", completed(*parts, **fields)))["choices"][0]["message"]


def test_a_streams_chunks_satisfy_the_sdk() -> None:
    """The SDK accepts the chunks of role, text, tool calls, finish and usage, in this order, and the end marker."""
    encoder = ChunkEncoder("req_1", 1700000000, "m", include_usage=True)
    entries = log(
        Started(model="m", created=1),
        Delta(text='Hé"\n'),
        Delta(text="llo"),
        ToolCallDelta(index=0, id="c1", name="look"),
        ToolCallDelta(index=0, arguments="{}"),
        completed(finish_reason="tool_calls"),
    )
    chunks = frames(encoder.encode(entries[:3]) + encoder.encode(entries[3:]))
    assert chunks.pop() == "[DONE]"
    parsed = [ChatCompletionChunk.model_validate(chunk, strict=True) for chunk in chunks]
    assert {chunk.id for chunk in parsed} == {"chatcmpl-req_1"}
    assert parsed[0].choices[0].delta.role == "assistant"
    assert "".join(choice.delta.content or "" for chunk in parsed for choice in chunk.choices) == 'Hé"\nllo'
    calls = [call for chunk in parsed for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert [(call.id, call.type) for call in calls] == [("c1", "function"), (None, None)]
    assert parsed[-2].choices[0].finish_reason == "tool_calls"
    assert [chunk.usage is None for chunk in parsed] == [True] * (len(parsed) - 1) + [False]
    usage = parsed[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (7, 3, 10)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 2


def test_no_usage_unless_it_was_asked_for() -> None:
    """Without ``include_usage`` no chunk has usage."""
    chunks = frames(ChunkEncoder("req_1", 1, "m", include_usage=False).encode(log(Delta(text="a"), completed())))
    assert all(chunk == "[DONE]" or "usage" not in chunk for chunk in chunks)


def test_nothing_is_sent_before_the_first_content() -> None:
    """The first entry alone gives no bytes, so that a failure can still be an HTTP error."""
    assert ChunkEncoder("req_1", 1, "m", include_usage=True).encode(log(Started(model="m", created=1))) == b""


def test_clients_of_one_log_share_the_tails() -> None:
    """An entry is encoded once; only the prefix with the client's id differs."""
    entries = log(Delta(text="a"))
    one = ChunkEncoder("req_1", 1, "m", include_usage=False).encode(entries)
    assert entries[0].frames is not None
    entries[0].frames["openai"] = entries[0].frames["openai"].replace(b'"a"', b'"shared"')
    two = ChunkEncoder("req_2", 1, "m", include_usage=False).encode(entries)
    assert [frames(one)[1]["id"], frames(two)[1]["id"]] == ["chatcmpl-req_1", "chatcmpl-req_2"]
    assert frames(two)[1]["choices"][0]["delta"]["content"] == "shared"


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (Failed(code="provider_stream_broken", message="broke off"), "server_error"),
        (Cancelled(), "invalid_request_error"),
    ],
)
def test_a_failure_ends_the_stream_with_an_error(event: Event, kind: str) -> None:
    """A failure in the stream is an error event, without an end marker."""
    chunks = frames(ChunkEncoder("req_1", 1, "m", include_usage=True).encode(log(Delta(text="a"), event)))
    assert chunks[-1]["error"]["type"] == kind


def test_a_whole_answer_satisfies_the_sdk() -> None:
    """Text and usage come back as the SDK's typed completion."""
    answer = ChatCompletion.model_validate_json(completion_body("req_1", 1, "m", completed()), strict=True)
    assert (answer.id, answer.choices[0].message.content) == ("chatcmpl-req_1", "Hello")
    assert answer.usage is not None
    assert answer.usage.total_tokens == 10


def test_tool_calls_satisfy_the_sdk() -> None:
    """An answer with only tool calls has no content."""
    answer = ChatCompletion.model_validate_json(completion_body("req_1", 1, "m", completed(CALL)), strict=True)
    said = answer.choices[0].message
    assert said.content is None
    assert said.tool_calls is not None
    assert said.tool_calls[0].type == "function"


def test_a_structured_answer_is_its_json() -> None:
    """With a schema the content is the result's JSON, unchanged, whatever its shape."""
    for text in ('{"isFoodRelated":true}', '{"text":"x"}', "[1, 2]"):
        result = msgspec.Raw(text.encode())
        end = completed(*with_result((TextPart(text=f"\n{text}null"),), result), result=result)
        assert json.loads(completion_body("r", 1, "m", end))["choices"][0]["message"]["content"] == text


def test_calls_instead_of_a_structured_answer_are_calls() -> None:
    """A model that calls a tool first has no result yet."""
    assert message(CALL, finish_reason="tool_calls")["tool_calls"][0]["id"] == "c1"


def test_refusals_satisfy_the_sdk() -> None:
    """A refusal has its own field, whole and streamed."""
    answer = completion_body("req_1", 1, "m", completed(RefusalPart(text="No.")))
    said = ChatCompletion.model_validate_json(answer, strict=True).choices[0].message
    assert (said.content, said.refusal) == (None, "No.")
    encoder = ChunkEncoder("req_1", 1, "m")
    chunks = frames(encoder.encode(log(RefusalDelta(text="N"), RefusalDelta(text="o."), completed())))[:-1]
    parsed = [ChatCompletionChunk.model_validate(chunk, strict=True) for chunk in chunks]
    assert "".join(chunk.choices[0].delta.refusal or "" for chunk in parsed) == "No."


def test_a_vendors_own_fields_come_back_in_their_places() -> None:
    """Fields of the dialect are fields of the message and of its calls; blocks of another dialect are left out."""
    details = VendorPart(dialect="openai", value={"reasoning_details": [{"type": "reasoning.text", "text": "hm"}]})
    more = VendorPart(dialect="openai", value={"reasoning_details": [{"type": "x"}], "annotations": []})
    foreign = VendorPart(dialect="anthropic", value={"type": "server_tool_use", "id": "s"})
    signed = msgspec.structs.replace(CALL, extra={"openai": {"extra_content": {"google": {"thought_signature": "S"}}}})
    said = message(details, foreign, TextPart(text="Hi"), signed, more)
    assert said["reasoning_details"] == [{"type": "reasoning.text", "text": "hm"}, {"type": "x"}]
    assert (said["content"], said["annotations"], "id" in said) == ("Hi", [], False)
    assert said["tool_calls"][0]["extra_content"]["google"]["thought_signature"] == "S"
    events = pieces_of((details, foreign, TextPart(text="Hi"), signed, more))
    deltas = [chunk["choices"][0]["delta"] for chunk in frames(ChunkEncoder("r", 1, "m").encode(log(*events)))]
    assert [sorted(delta) for delta in deltas] == [
        ["content", "refusal", "role"],
        ["reasoning_details"],
        ["content"],
        ["tool_calls"],
        ["annotations", "reasoning_details"],
    ]
    assert deltas[3]["tool_calls"][0]["extra_content"] == said["tool_calls"][0]["extra_content"]


def test_an_unknown_finish_reason_is_the_providers_own_word() -> None:
    """No reason that is not known becomes `stop`."""
    for raw in ("", "vendor_done"):
        end = completed(finish_reason="other", raw_finish_reason=raw)
        assert json.loads(completion_body("r", 1, "m", end))["choices"][0]["finish_reason"] == (raw or "other")
        last = frames(ChunkEncoder("r", 1, "m").encode(log(Delta("a"), end)))[-2]
        assert last["choices"][0]["finish_reason"] == (raw or "other")


def test_a_piece_without_content_gives_no_chunk() -> None:
    """Neither a delta of a known call without arguments, nor a signature."""
    entries = log(ReasoningDelta(signature="s"), ToolCallDelta(index=0), VendorBlock("openai", msgspec.Raw(b"{ }")))
    assert ChunkEncoder("r", 1, "m").encode(entries) == b""


def test_errors_have_openais_envelope() -> None:
    """Each family has OpenAI's error type, with our code."""
    assert {problem.family for problem in PROBLEMS.values()} <= set(ERROR_TYPES)
    error = json.loads(error_body(NotFound("no such model", code="model_not_found")))["error"]
    assert error == {
        "message": "no such model",
        "type": "invalid_request_error",
        "param": None,
        "code": "model_not_found",
    }
    assert json.loads(error_body(TryAgainLater()))["error"]["type"] == "rate_limit_error"
    assert json.loads(error_body(ProviderError()))["error"]["type"] == "server_error"


def test_an_errors_param_is_the_first_path() -> None:
    """The path of the first error is the vendor's ``param``."""
    error = InvalidRequest(errors=(FieldError("$.messages", "too short"), FieldError("$.model", "empty")))
    assert json.loads(error_body(error))["error"]["param"] == "messages"


def test_models_satisfy_the_sdk() -> None:
    """The list of models has the vendor's shape."""
    listed = json.loads(models_body([ModelInfo("local/smollm2", "local")], 1))
    assert [Model.model_validate(model, strict=True).id for model in listed["data"]] == ["local/smollm2"]
