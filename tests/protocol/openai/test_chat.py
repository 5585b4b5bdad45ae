import json
from typing import Any

import msgspec
import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from protocol.errors import PROBLEMS, InvalidRequest, NotFound, ProviderError, TryAgainLater
from protocol.events import Cancelled, Completed, Delta, Entry, Event, Failed, Started, ToolCallDelta
from protocol.gateway import ModelInfo
from protocol.llm import ImagePart, TextPart, ToolCall, Usage
from protocol.openai.chat import ERROR_TYPES, ChunkEncoder, completion_body, error_body, models_body, parse_chat

USAGE = Usage(input_tokens=7, output_tokens=3, cached_input_tokens=2, reasoning_tokens=1)


def body(**fields: Any) -> bytes:  # noqa: ANN401
    """A request's body, changed by `fields`."""
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()


def log(*events: Event) -> list[Entry]:
    """Entries with their offsets."""
    return [Entry(offset, event) for offset, event in enumerate(events, 1)]


def frames(stream: bytes) -> list[Any]:
    """The data of each SSE event."""
    assert stream.endswith(b"\n\n")
    said = [frame.removeprefix("data: ") for frame in stream.decode().split("\n\n")[:-1]]
    return [text if text == "[DONE]" else json.loads(text) for text in said]


def completed(result: object = None, **fields: Any) -> Completed:  # noqa: ANN401
    """The end of a good answer."""
    raw = {"text": "Hello"} if result is None else result
    return Completed(result=msgspec.Raw(msgspec.json.encode(raw)), usage=USAGE, **fields)


def test_a_whole_request_becomes_canonical() -> None:
    """Every field that the canonical model has is taken from OpenAI's place for it."""
    call = parse_chat(
        body(
            messages=[
                {"role": "developer", "content": "be brief"},
                {
                    "role": "user",
                    "name": "ann",
                    "content": [
                        {"type": "text", "text": "what is this"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
            ],
            temperature=0,
            top_p=0.5,
            max_tokens=5,
            max_completion_tokens=6,
            seed=7,
            stop="END",
            stream=True,
            stream_options={"include_usage": True},
            tools=[{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
            tool_choice={"type": "function", "function": {"name": "look"}},
        )
    )
    request = call.request
    assert (call.stream, call.include_usage) == (True, True)
    assert [message.role for message in request.messages] == ["system", "user", "assistant", "tool"]
    assert request.messages[1].content == (
        TextPart(text="what is this"),
        ImagePart(url="data:image/png;base64,AA==", detail="low"),
    )
    assert request.messages[2].tool_calls == (ToolCall("c1", "look", "{}"),)
    assert request.messages[3].tool_call_id == "c1"
    assert (request.temperature, request.top_p, request.max_tokens, request.seed) == (0, 0.5, 6, 7)
    assert (request.stop, request.tool_choice, request.tools[0].name) == (("END",), "look", "look")
    assert (request.extra, request.dialect) == ({}, "openai")


def test_unknown_fields_are_kept_for_the_upstream() -> None:
    """A field that is not ours goes to ``extra``, whatever its value."""
    call = parse_chat(body(logit_bias={"1": 2}, user="u", thinking={"deep": [1]}))
    assert call.request.extra == {"logit_bias": {"1": 2}, "user": "u", "thinking": {"deep": [1]}}


def test_a_json_schema_format_is_the_requests_schema() -> None:
    """The schema is canonical; its name and strictness stay beside it."""
    schema = {"type": "object"}
    form = {"type": "json_schema", "json_schema": {"name": "gate", "strict": True, "schema": schema}}
    request = parse_chat(body(response_format=form)).request
    assert request.schema == schema
    assert request.extra == {
        "response_format": {"type": "json_schema", "json_schema": {"name": "gate", "strict": True}}
    }


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"messages": []}, "$.messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "$.messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "$.messages[0].content[0].type"),
        ({"messages": [{"content": "x"}]}, "$.messages[0].role"),
        ({"model": 7}, "$.model"),
        ({"temperature": 3}, "$.temperature"),
        ({"max_tokens": 0}, "$.max_tokens"),
        ({"n": 2}, "$.n"),
        ({"response_format": {"type": "json_schema"}}, "$.response_format.json_schema"),
    ],
)
def test_bad_input_is_named_by_its_path(change: dict[str, Any], path: str) -> None:
    """What is wrong is said with the path to it."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body(**change))
    assert caught.value.code == "invalid_request"
    assert [error.path for error in caught.value.errors] == [path]


@pytest.mark.parametrize("sent", [b"", b"{", b"\xff\xfe", b'{"model": "\xff"}', b"[" * 5000])
def test_what_is_no_json_says_so(sent: bytes) -> None:
    """A body that can't be read has its own code."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(sent)
    assert caught.value.code == "malformed_json"


def test_a_body_that_is_no_object_is_invalid() -> None:
    """JSON of another shape is an invalid request at its root."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(b"[1]")
    assert (caught.value.code, caught.value.errors[0].path) == ("invalid_request", "$")


def test_a_streams_chunks_satisfy_the_sdk() -> None:
    """Role, text, tool calls, finish, usage and the end marker, in this order, each accepted by the SDK's own model."""
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
    """An entry is encoded once; only the head with the client's own id differs."""
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
    """In mid-stream a failure is an error event, and no end marker follows."""
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
    """An answer of calls alone has no content."""
    result = {"text": "", "toolCalls": [{"id": "c1", "name": "look", "arguments": "{}"}]}
    answer = ChatCompletion.model_validate_json(
        completion_body("req_1", 1, "m", completed(result), structured=False), strict=True
    )
    message = answer.choices[0].message
    assert message.content is None
    assert message.tool_calls is not None
    assert message.tool_calls[0].type == "function"


def test_a_structured_answer_is_its_json() -> None:
    """With a schema the content is the validated JSON, word for word."""
    answer = completion_body("req_1", 1, "m", completed({"isFoodRelated": True}), structured=True)
    assert json.loads(answer)["choices"][0]["message"]["content"] == '{"isFoodRelated":true}'


def test_a_structured_answer_that_looks_like_text_stays_json() -> None:
    """Only the caller knows that this shape came of a schema."""
    answer = completion_body("req_1", 1, "m", completed({"text": "x"}), structured=True)
    assert json.loads(answer)["choices"][0]["message"]["content"] == '{"text":"x"}'


def test_calls_instead_of_a_structured_answer_are_calls() -> None:
    """A model that asks for a tool first has not answered in the schema's shape yet."""
    result = {"text": "", "toolCalls": [{"id": "c1", "name": "look", "arguments": "{}"}]}
    event = completed(result, finish_reason="tool_calls")
    answer = json.loads(completion_body("req_1", 1, "m", event, structured=True))
    assert answer["choices"][0]["message"]["tool_calls"][0]["id"] == "c1"


def test_errors_wear_openais_envelope() -> None:
    """Each family has the vendor's name, and the code is ours."""
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
    """The place of the fault is the vendor's ``param``."""
    with pytest.raises(InvalidRequest) as caught:
        parse_chat(body(messages=[]))
    assert json.loads(error_body(caught.value))["error"]["param"] == "messages"


def test_models_satisfy_the_sdk() -> None:
    """The list of models has the vendor's shape."""
    listed = json.loads(models_body([ModelInfo("local/smollm2", "local")], 1))
    assert [Model.model_validate(model, strict=True).id for model in listed["data"]] == ["local/smollm2"]
