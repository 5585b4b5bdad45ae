import json
from typing import Any

import msgspec
import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from protocol.errors import PROBLEMS, FieldError, InvalidRequest, NotFound, ProviderError, TryAgainLater
from protocol.events import Cancelled, Completed, Delta, Entry, Event, Failed, Started, ToolCallDelta
from protocol.gateway import ModelInfo
from protocol.llm import Usage
from protocol.openai.answer import ERROR_TYPES, ChunkEncoder, completion_body, error_body, models_body

USAGE = Usage(input_tokens=7, output_tokens=3, cached_input_tokens=2, reasoning_tokens=1)


def log(*events: Event) -> list[Entry]:
    """Entries with their offsets."""
    return [Entry(offset, event) for offset, event in enumerate(events, 1)]


def frames(stream: bytes) -> list[Any]:
    """The data of each SSE event."""
    assert stream.endswith(b"\n\n")
    events = [frame.removeprefix("data: ") for frame in stream.decode().split("\n\n")[:-1]]
    return [text if text == "[DONE]" else json.loads(text) for text in events]


def completed(result: object = None, **fields: Any) -> Completed:  # noqa: ANN401
    """The end of a good answer."""
    raw = {"text": "Hello"} if result is None else result
    return Completed(result=msgspec.Raw(msgspec.json.encode(raw)), usage=USAGE, **fields)


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
    answer = ChatCompletion.model_validate_json(
        completion_body("req_1", 1, "m", completed(), structured=False), strict=True
    )
    assert (answer.id, answer.choices[0].message.content) == ("chatcmpl-req_1", "Hello")
    assert answer.usage is not None
    assert answer.usage.total_tokens == 10


def test_tool_calls_satisfy_the_sdk() -> None:
    """An answer with only tool calls has no content."""
    result = {"text": "", "toolCalls": [{"id": "c1", "name": "look", "arguments": "{}"}]}
    answer = ChatCompletion.model_validate_json(
        completion_body("req_1", 1, "m", completed(result), structured=False), strict=True
    )
    message = answer.choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    assert message.tool_calls[0].type == "function"


def test_a_structured_answer_is_its_json() -> None:
    """With a schema the content is the result's JSON, unchanged."""
    answer = completion_body("req_1", 1, "m", completed({"isFoodRelated": True}), structured=True)
    assert json.loads(answer)["choices"][0]["message"]["content"] == '{"isFoodRelated":true}'


def test_a_structured_answer_that_looks_like_text_stays_json() -> None:
    """With a schema, JSON in the shape of a plain result stays JSON."""
    answer = completion_body("req_1", 1, "m", completed({"text": "x"}), structured=True)
    assert json.loads(answer)["choices"][0]["message"]["content"] == '{"text":"x"}'


def test_calls_instead_of_a_structured_answer_are_calls() -> None:
    """With a schema, a result with tool calls has calls."""
    result = {"text": "", "toolCalls": [{"id": "c1", "name": "look", "arguments": "{}"}]}
    event = completed(result, finish_reason="tool_calls")
    answer = json.loads(completion_body("req_1", 1, "m", event, structured=True))
    assert answer["choices"][0]["message"]["tool_calls"][0]["id"] == "c1"


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
