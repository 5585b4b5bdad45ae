"""Reading bodies, and validating their values."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from protocol.errors import InvalidRequest
from protocol.identity import Principal
from protocol.llm import ImagePart, TextPart
from protocol.openai.chat import parse_chat
from protocol.requests import Submit
from service.http import bodies
from service.http.bodies import decode_submit, idempotency_key_of, submit_of
from service.http.validation import MAX_FAULTS, OPENAI, check_request
from tests.service.bench import BODY, CHAT, Service, open_service

USER = {"role": "user", "content": "hi"}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with a limit of 2,000 bytes."""
    async with open_service(max_body_bytes=2000) as running:
        yield running


def submit(body: object) -> Submit:
    """Return the router's message for a body."""
    caller = Principal(tenant="t")
    return submit_of(decode_submit(json.dumps(body).encode()), principal=caller, trace_id="1" * 32, idempotency_key="k")


def with_part(part: dict[str, Any]) -> dict[str, Any]:
    """A user message with one part."""
    return {"role": "user", "content": [part]}


def nested(levels: int) -> Any:  # noqa: ANN401 - JSON
    """Nested objects."""
    value: dict[str, Any] = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def test_a_whole_body_becomes_a_submission() -> None:
    """Every field is in the canonical request, or in its delivery."""
    message = submit(
        {
            "messages": [
                {"role": "system", "content": "be brief"},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "what?"}, {"type": "image", "url": "https://x/y.png"}],
                },
                {"role": "assistant", "toolCalls": [{"id": "c1", "name": "look", "arguments": "{}"}]},
                {"role": "tool", "toolCallId": "c1", "content": ""},
            ],
            "model": "m",
            "schema": {"type": "object"},
            "tools": [{"name": "look", "parameters": {"type": "object"}}],
            "toolChoice": "look",
            "sessionId": "s1",
            "metadata": {"stage": "gate2"},
            "options": {
                "temperature": 0,
                "topP": 1,
                "maxTokens": 256,
                "timeoutMs": 30_000,
                "seed": 7,
                "stop": ["\n\n"],
                "dedupe": False,
                "cacheTtlMs": 0,
                "onAbandon": "cancel",
                "onAttemptFailed": "restart",
                "repair": False,
                "promptVersion": "v4",
            },
        }
    )
    request, delivery = message.request, message.delivery
    assert (message.tenant, message.trace_id, message.idempotency_key) == ("t", "1" * 32, "k")
    assert request.messages[1].content == (TextPart(text="what?"), ImagePart(url="https://x/y.png"))
    assert (request.model, request.schema, request.tool_choice) == ("m", {"type": "object"}, "look")
    assert (request.temperature, request.top_p, request.max_tokens, request.seed) == (0, 1, 256, 7)
    assert (request.stop, request.tools[0].name, request.dialect) == (("\n\n",), "look", "native")
    assert (delivery.timeout, delivery.dedupe, delivery.cache_ttl, delivery.on_abandon) == (30, False, 0, "cancel")
    assert (delivery.on_attempt_failed, delivery.repair) == ("restart", False)
    assert (delivery.prompt_version, delivery.session_id, delivery.metadata) == ("v4", "s1", {"stage": "gate2"})


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"messages": []}, "$.messages"),
        ({"model": ""}, "$.model"),
        ({"model": "m" * 257}, "$.model"),
        ({"sessionId": "s" * 257}, "$.sessionId"),
        ({"options": {"temperature": -0.1}}, "$.options.temperature"),
        ({"options": {"temperature": 2.1}}, "$.options.temperature"),
        ({"options": {"topP": 1.01}}, "$.options.topP"),
        ({"options": {"maxTokens": 0}}, "$.options.maxTokens"),
        ({"options": {"timeoutMs": 0}}, "$.options.timeoutMs"),
        ({"options": {"timeoutMs": 3_600_001}}, "$.options.timeoutMs"),
        ({"options": {"cacheTtlMs": -1}}, "$.options.cacheTtlMs"),
        ({"options": {"cacheTtlMs": 86_400_001}}, "$.options.cacheTtlMs"),
        ({"options": {"seed": 2**63}}, "$.options.seed"),
        ({"options": {"seed": 10**400}}, "$.options.seed"),
        ({"options": {"temperature": 10**300}}, "$.options.temperature"),
        ({"options": {"stop": list("abcde")}}, "$.options.stop"),
        ({"options": {"promptVersion": "v" * 257}}, "$.options.promptVersion"),
        ({"options": {"onAbandon": "explode"}}, "$.options.onAbandon"),
        ({"options": {"temprature": 1}}, "$.options.temprature"),
        ({"metadata": {str(index): "" for index in range(17)}}, "$.metadata"),
        ({"metadata": {"a": "x" * 513}}, "$.metadata"),
        ({"metadata": {"": "x"}}, "$.metadata"),
        ({"metadata": {"a": 1}}, "$.metadata[...]"),
        ({"tools": [{"name": "no spaces"}]}, "$.tools[0].name"),
        ({"tools": [{"name": "a"}, {"name": "a"}]}, "$.tools[1].name"),
        ({"tools": [{"name": f"t{index}"} for index in range(10_001)]}, "$.tools"),
        ({"tools": [{"name": "n" * 257}]}, "$.tools[0].name"),
        ({"tools": [{"name": "a", "parameters": nested(65)}]}, "$.tools[0].parameters"),
        ({"toolChoice": "look"}, "$.toolChoice"),
        ({"toolChoice": "required"}, "$.toolChoice"),
        ({"schema": nested(65)}, "$.schema"),
        ({"schema": {"const": 2**70}}, "$.schema"),
        ({"messages": [{"role": "user", "content": ""}]}, "$.messages[0].content"),
        ({"messages": [{"role": "user", "content": []}]}, "$.messages[0].content"),
        ({"messages": [{"role": "assistant"}]}, "$.messages[0].content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "$.messages[0].role"),
        ({"messages": [USER, {"content": "x"}]}, "$.messages[1].role"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "$.messages[0].toolCallId"),
        ({"messages": [USER | {"toolCallId": "c"}]}, "$.messages[0].toolCallId"),
        ({"messages": [USER | {"isError": True}]}, "$.messages[0].isError"),
        ({"messages": [USER | {"name": "n" * 65}]}, "$.messages[0].name"),
        ({"messages": [with_part({"type": "file"})]}, "$.messages[0].content[0]"),
        ({"messages": [with_part({"type": "file", "url": "https://x", "text": "x"})]}, "$.messages[0].content[0]"),
        ({"messages": [with_part({"type": "file", "url": "file:///x"})]}, "$.messages[0].content[0].url"),
        ({"messages": [with_part({"type": "reasoning", "text": "x"})]}, "$.messages[0].content[0]"),
        ({"messages": [with_part({"type": "vendor", "dialect": "openai", "value": nested(65)})]}, "$.messages[0]"),
        ({"messages": [with_part({"type": "text", "text": "x", "extra": {"openai": nested(65)}})]}, "$.messages[0]"),
        ({"messages": [with_part({"type": "text", "text": "x", "extra": {"nobody": {}}})]}, "$"),
        ({"messages": [USER | {"toolCalls": [{"id": "c", "name": "f"}]}]}, "$.messages[0].toolCalls"),
        (
            {"messages": [{"role": "assistant", "toolCalls": [{"id": "", "name": "f"}]}]},
            "$.messages[0].toolCalls[0].id",
        ),
        (
            {"messages": [{"role": "assistant", "toolCalls": [{"id": "c", "name": "f f"}]}]},
            "$.messages[0].toolCalls[0].name",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "url": "file:///etc/passwd"}]}]},
            "$.messages[0].content[0].url",
        ),
        (
            {"messages": [{"role": "system", "content": [{"type": "image", "url": "https://x/y.png"}]}]},
            "$.messages[0].content[0]",
        ),
    ],
)
def test_a_value_that_can_not_be_is_named_by_its_path(changes: dict[str, Any], path: str) -> None:
    """An invalid value is refused before anything starts, with its path."""
    with pytest.raises(InvalidRequest) as caught:
        submit(BODY | changes)
    assert caught.value.code == "invalid_request"
    assert [fault.path for fault in caught.value.errors] == [path]
    assert path in caught.value.detail


@pytest.mark.parametrize(
    "changes",
    [
        {
            "options": {
                "temperature": 0,
                "topP": 0,
                "maxTokens": 1,
                "timeoutMs": 1,
                "cacheTtlMs": 0,
                "stop": list("abcd"),
            }
        },
        {"options": {"temperature": 2, "topP": 1, "timeoutMs": 3_600_000, "cacheTtlMs": 86_400_000}},
        {"options": {"seed": -(2**63)}},
        {"schema": nested(64)},
        {"tools": [{"name": "a"}], "toolChoice": "required"},
        {"toolChoice": "none"},
        {"messages": [{"role": "user", "content": [{"type": "image", "url": "data:image/png;base64,AA=="}]}]},
        {"messages": [with_part({"type": "file", "url": "data:text/csv;charset=utf-8;base64,AA=="})]},
        {"messages": [with_part({"type": "file", "text": "Hello"})]},
        {"messages": [with_part({"type": "text", "text": "x", "extra": {"anthropic": nested(63)}})]},
        {
            "messages": [
                USER | {"role": "assistant", "content": [{"type": "reasoning", "text": "hm", "signature": "s"}]}
            ]
        },
    ],
)
def test_a_value_at_its_bound_is_taken(changes: dict[str, Any]) -> None:
    """Bounds are inclusive."""
    submit(BODY | changes)


def test_all_faults_are_told_at_once_up_to_a_bound() -> None:
    """All faults are reported at once, up to a limit."""
    with pytest.raises(InvalidRequest, match=r"\(and 2 more\)") as caught:
        submit({"messages": [], "model": "", "options": {"temperature": 9}})
    assert [fault.path for fault in caught.value.errors] == ["$.messages", "$.model", "$.options.temperature"]
    with pytest.raises(InvalidRequest) as many:
        submit({"messages": [{"role": "user"}] * 50})
    assert len(many.value.errors) == MAX_FAULTS


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"schema": {"type": "objekt"}}, "$.schema"),
        ({"tools": [{"name": "a", "parameters": {"type": 7}}]}, "$.tools[0].parameters"),
    ],
)
def test_a_schema_that_is_none_is_refused(changes: dict[str, Any], path: str) -> None:
    """An invalid JSON Schema has its own code, and the path of the fault within it."""
    with pytest.raises(InvalidRequest) as caught:
        submit(BODY | changes)
    assert caught.value.code == "invalid_schema"
    assert caught.value.errors[0].path.startswith(path)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"stop": list("abcde")}, "$.stop"),
        ({"seed": 2**80}, "$.seed"),
        ({"logit_bias": {"1": 2**80}}, "$.logit_bias"),
        ({"unheard_of": nested(70)}, "$.unheard_of"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "$.tools[0].function.name"),
        ({"tool_choice": "look"}, "$.tool_choice"),
        ({"max_tokens": 2**31}, "$.max_completion_tokens"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 7}}}},
            "$.response_format.json_schema.schema.type",
        ),
    ],
)
def test_the_same_rules_hold_in_openai_s_dialect_at_its_own_paths(changes: dict[str, Any], path: str) -> None:
    """The error has the value's path in that dialect."""
    chat = parse_chat(json.dumps(CHAT | changes).encode())
    with pytest.raises(InvalidRequest) as caught:
        check_request(chat.request, OPENAI)
    assert caught.value.errors[0].path == path


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"{}x", b'{"messages": "\xff"}', b'{"a": NaN}', b'"\\ud800"', b"[" * 100_000, "{}".encode("utf-16")],
)
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    """Invalid JSON has its own code."""
    with pytest.raises(InvalidRequest) as caught:
        decode_submit(body)
    assert caught.value.code == "malformed_json"


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"[]", "$"),
        (b"{}", "$.messages"),
        (b'{"messages": [], "stream": true}', "$.stream"),
        (b'{"messages": [], "options": {"temperature": 1e999}}', "$.options.temperature"),
        (b'{"messages": [], "options": {"seed": 1%b}}' % (b"0" * 5000), "$.options.seed"),
        (b'{"messages": [{"role": "user", "content": 7}]}', "$.messages[0].content"),
        (b'{"messages": [{"role": "user", "content": [{"type": "video"}]}]}', "$.messages[0].content[0].type"),
    ],
)
def test_json_of_another_shape_is_named_by_its_path(body: bytes, path: str) -> None:
    """A wrong type, a missing field and an unknown one are reported with the field's path."""
    with pytest.raises(InvalidRequest) as caught:
        decode_submit(body)
    assert (caught.value.code, caught.value.errors[0].path) == ("invalid_request", path)


@pytest.mark.parametrize("key", ["", "ä", "a\tb", "k" * 256])
def test_an_idempotency_key_is_printable_ascii(key: str) -> None:
    """An idempotency key has 1 to 255 printable ASCII characters."""
    with pytest.raises(InvalidRequest, match="Idempotency-Key"):
        idempotency_key_of(CIMultiDictProxy(CIMultiDict({"idempotency-key": key})))


def test_an_idempotency_key_is_one_value() -> None:
    """Two idempotency keys are refused."""
    assert idempotency_key_of(CIMultiDictProxy(CIMultiDict())) == ""
    assert idempotency_key_of(CIMultiDictProxy(CIMultiDict({"IDEMPOTENCY-KEY": " ~" * 127}))) == " ~" * 127
    with pytest.raises(InvalidRequest, match="one value"):
        idempotency_key_of(CIMultiDictProxy(CIMultiDict([("Idempotency-Key", "a"), ("Idempotency-Key", "b")])))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json"}, 202),
        ({"Content-Type": "application/JSON; charset=utf-8"}, 202),
        ({"Content-Type": "application/vnd.api+json"}, 202),
        ({}, 202),
        ({"Origin": "http://localhost", "Host": "localhost"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": "text/plain", "Origin": "http://localhost", "Host": "localhost"}, 415),
        ({"Content-Type": "application/jsonp"}, 415),
        ({"Content-Type": ""}, 415),
    ],
)
async def test_only_json_is_read(service: Service, headers: dict[str, str], status: int) -> None:
    """A body has a JSON type, or no type and no `Origin`; otherwise the error has the remedy."""
    async with service.client.post(
        f"{service.base}/api/requests",
        data=json.dumps(BODY).encode(),
        headers=headers,
        skip_auto_headers=["Content-Type"],
    ) as response:
        assert response.status == status
        if status == 415:
            problem = await response.json(content_type="application/problem+json")
            assert problem["code"] == "unsupported_media_type"
            assert "application/json" in problem["remedy"]


@pytest.mark.parametrize("path", ["/api/requests", "/v1/chat/completions"])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_refused(service: Service, path: str, chunked: bool) -> None:
    """The announced and the actual length are both limited."""
    body = json.dumps(BODY | {"sessionId": "x" * 2000}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    async with service.client.post(
        service.base + path, data=pieces() if chunked else body, headers={"Content-Type": "application/json"}
    ) as response:
        assert response.status == 413
        assert "body_too_large" in await response.text()


async def test_reading_stops_at_the_limit(service: Service) -> None:
    """A chunked body without an end gets the error as soon as it is too long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service.base.rpartition(":")[2]))
    writer.write(b"POST /api/requests HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
    writer.write(b"Transfer-Encoding: chunked\r\n\r\n" + b"400\r\n%b\r\n" % (b" " * 1024) * 3)
    assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()
    await writer.wait_closed()


async def test_a_packed_body_is_unpacked_within_the_limit(service: Service) -> None:
    """The limit applies to the decompressed size; a body that can't be decompressed is a client error."""
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    address = f"{service.base}/api/requests"
    good, bomb = gzip.compress(json.dumps(BODY).encode()), gzip.compress(b" " * 10_000_000)
    for data, status in ((good, 202), (bomb, 413), (b"this is not gzip", 400)):
        async with service.client.post(address, data=data, headers=headers) as response:
            assert response.status == status


async def test_a_body_that_does_not_come_is_not_waited_for(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that sends headers and no body gets an error, and the connection is released."""
    monkeypatch.setattr(bodies, "BODY_TIMEOUT", 0.01)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service.base.rpartition(":")[2]))
    writer.write(b"POST /api/requests HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
    writer.close()
    await writer.wait_closed()
