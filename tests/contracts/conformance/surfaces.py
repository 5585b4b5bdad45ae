"""The surfaces under test: how a client sends a request, and what it may see. A new surface is a new row."""

import json
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import ClientResponse, ClientSession, WSMsgType

from protocol.llm import Usage
from tests.service.bench import parse_events, text_of

Ask = Callable[[ClientSession, str, str], Awaitable["Seen"]]


@dataclass(frozen=True)
class Failure:
    """A failure at a surface: the HTTP status, and its kind in the vendor's words."""

    status: int
    kind: str


@dataclass(frozen=True)
class Seen:
    """What a client saw of one request.

    Attributes:
        request_id: the request's id.
        status: the HTTP status of the response with the answer.
        text: all content.
        ends: the number of ends.
        kind: of the failure, in the surface's words; empty for an answer.
        code: of the failure, in our words.
        retry_after: seconds of ``Retry-After``, rounded up.
        raw: every byte of the response.
        usage: tokens in and out, as the surface reports them; None where it does not.
    """

    request_id: str
    status: int
    text: str
    ends: int
    kind: str = ""
    code: str = ""
    retry_after: int | None = None
    raw: str = ""
    usage: tuple[int, int] | None = None


@dataclass(frozen=True)
class Surface:
    """A surface.

    Attributes:
        name: in the test's id.
        ask: sends a text to a model over a client of the service, and returns what came.
        failures: each code's failure at this surface, before any content.
        streams: whether content comes before the end, so that a later failure can't have a status of its own.
        status: of an answer, and of a failure after content.
        begun: the kind of every failure after content; empty for the same as before it.
        cached: whether its input tokens include those from the provider's cache.
        says_when: whether a failure has a time to retry.
    """

    name: str
    ask: Ask
    failures: dict[str, Failure]
    streams: bool = True
    status: int = 200
    begun: str = ""
    cached: bool = True
    says_when: bool = True

    def usage(self, usage: Usage) -> tuple[int, int]:
        """Tokens in and out at this surface."""
        return usage.input_tokens - (0 if self.cached else usage.cached_input_tokens), usage.output_tokens

    def failure(self, code: str, *, begun: bool) -> Failure:
        """A failure at this surface."""
        failure = self.failures[code]
        return Failure(self.status, self.begun or failure.kind) if begun and self.streams else failure


NOT_RETRIED = (400, 404)  # statuses after which no SDK tries again

# -------------------------------------------------------------------------------------------------------------- native


def submission(model: str, text: str) -> dict[str, Any]:
    """The native body, of a request that shares nothing."""
    return {"model": model, "messages": [{"role": "user", "content": text}], "options": {"dedupe": False}}


async def native(client: ClientSession, model: str, text: str) -> Seen:
    """Submit, and follow over server-sent events."""
    async with client.post("/api/requests", json=submission(model, text)) as response:
        assert response.status == 202, await response.text()
        place = response.headers["Location"]
    async with client.get(f"{place}/events") as stream:
        raw = await stream.text()
    events = parse_events(raw)
    ends = [event for event in events if event.event in ("complete", "error")]
    request_id = place.rpartition("/")[2]
    return _native(request_id, stream.status, text_of(events), [end.data for end in ends], raw)


async def websocket(client: ClientSession, model: str, text: str) -> Seen:
    """Submit and follow over the socket, until the answer to a ping."""
    frames: list[Any] = []
    ends: list[Any] = []
    said = ""
    async with client.ws_connect("/ws") as ws:
        await ws.send_json({"type": "submit", "id": 1, **submission(model, text)})
        while True:
            message = await ws.receive()
            assert message.type is WSMsgType.TEXT, message
            frame = json.loads(message.data)
            if frame["type"] == "pong":
                break
            frames.append(frame)
            if frame["type"] == "update":
                data = frame["data"]
                said = data["text"] if frame.get("snapshot") else said + data.get("delta", "")
            elif frame["type"] in ("complete", "error"):
                ends.append(frame)
                await ws.send_json({"type": "ping"})
    assert frames[0]["type"] == "ack"
    return _native(frames[0]["requestId"], 101, said, ends, json.dumps(frames))


async def long_poll(client: ClientSession, model: str, text: str) -> Seen:
    """Submit, and poll until the end."""
    async with client.post("/api/requests", json=submission(model, text)) as response:
        assert response.status == 202, await response.text()
        place = response.headers["Location"]
    events: list[Any] = []
    query = "?wait=10"
    while True:
        async with client.get(f"{place}/events{query}", headers={"Accept": "application/json"}) as response:
            polled = await response.json()
        events += polled["events"]
        if polled["ended"]:
            break
        query = "?wait=10&after={epoch}:{offset}".format(**polled["position"])
    said = "".join(event["data"].get("delta", "") for event in events if event["type"] == "update")
    ends = [event for event in events if event["type"] in ("complete", "error")]
    return _native(place.rpartition("/")[2], response.status, said, ends, json.dumps(events))


def _native(request_id: str, status: int, text: str, ends: list[Any], raw: str) -> Seen:
    last = ends[-1] if ends else {}
    error = last.get("error", {})
    assert not error or last["terminal"] is True
    wait = error.get("retryAfterMs")
    used = last.get("data", {}).get("usage")
    return Seen(
        request_id,
        status,
        text,
        len(ends),
        kind="error" if error else "",
        code=error.get("code", ""),
        retry_after=None if wait is None else math.ceil(wait / 1000),
        raw=raw,
        usage=None if used is None else (used["inputTokens"], used["outputTokens"]),
    )


# -------------------------------------------------------------------------------------------------------------- OpenAI


def chat(model: str, text: str, **more: object) -> dict[str, Any]:
    """OpenAI's body."""
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


async def openai_whole(client: ClientSession, model: str, text: str) -> Seen:
    """A completion in one piece."""
    async with client.post("/v1/chat/completions", json=chat(model, text)) as response:
        raw = await response.text()
    return _openai_refusal(response, raw) if response.status != 200 else _openai_answer(response, raw)


async def openai_streamed(client: ClientSession, model: str, text: str) -> Seen:
    """A streamed completion."""
    body = chat(model, text, stream=True, stream_options={"include_usage": True})
    async with client.post("/v1/chat/completions", json=body) as response:
        raw = await response.text()
    if response.status != 200:
        return _openai_refusal(response, raw)
    events = [line.removeprefix("data: ") for line in raw.split("\n") if line.startswith("data: ")]
    chunks = [json.loads(event) for event in events if event != "[DONE]"]
    errors = [chunk["error"] for chunk in chunks if "error" in chunk]
    choices = [choice for chunk in chunks for choice in chunk.get("choices", ())]
    used = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    assert events[-1] == "[DONE]" or "error" in chunks[-1], raw
    assert len(used) == (not errors)
    return Seen(
        response.headers["x-request-id"],
        response.status,
        "".join(choice["delta"].get("content") or "" for choice in choices),
        events.count("[DONE]") + len(errors),
        kind=errors[0]["type"] if errors else "",
        code=errors[0]["code"] if errors else "",
        raw=raw,
        usage=(used[0]["prompt_tokens"], used[0]["completion_tokens"]) if used else None,
    )


async def responses_whole(client: ClientSession, model: str, text: str) -> Seen:
    """A response in one piece."""
    async with client.post("/v1/responses", json={"model": model, "input": text}) as response:
        raw = await response.text()
    if response.status != 200:
        return _openai_refusal(response, raw)
    return _response(response, json.loads(raw), 1, raw)


async def responses_streamed(client: ClientSession, model: str, text: str) -> Seen:
    """A streamed response with numbered events; its text is that of all deltas."""
    async with client.post("/v1/responses", json={"model": model, "input": text, "stream": True}) as response:
        raw = await response.text()
    if response.status != 200:
        return _openai_refusal(response, raw)
    events = [json.loads(line[6:]) for line in raw.split("\n") if line.startswith("data: ")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    ends = [
        event for event in events if event["type"] in ("response.completed", "response.incomplete", "response.failed")
    ]
    assert events[-1] is ends[-1], raw
    pieces = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    seen = _response(response, ends[-1]["response"], len(ends), raw)
    assert seen.text == "".join(pieces)
    return seen


async def responses_resumed(client: ClientSession, model: str, text: str) -> Seen:
    """A background response: leave the stream after its first event, and resume to the end."""
    async with client.post("/v1/responses", json={"model": model, "input": text, "background": True}) as response:
        assert response.status == 200, await response.text()
        place = f"/v1/responses/{(await response.json())['id']}"
    async with client.get(f"{place}?stream=true") as stream:
        lines = [await stream.content.readline() for _ in range(2)]
    first = json.loads(lines[1].removeprefix(b"data: "))
    async with client.get(f"{place}?stream=true&starting_after={first['sequence_number']}") as stream:
        raw = await stream.text()
    events = [first, *(json.loads(line[6:]) for line in raw.split("\n") if line.startswith("data: "))]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    ends = [
        event for event in events if event["type"] in ("response.completed", "response.incomplete", "response.failed")
    ]
    assert events[-1] is ends[-1], raw
    async with client.get(place) as whole:
        kept = await whole.json()
    assert kept | {"usage": 0} == ends[-1]["response"] | {"usage": 0}  # what was used may be known later than the end
    return _response(response, ends[-1]["response"], len(ends), raw)


def _response(response: ClientResponse, body: Any, ends: int, raw: str) -> Seen:  # noqa: ANN401 - JSON
    used, error = body["usage"], body["error"] or {}
    assert body["status"] == ("failed" if error else "incomplete" if body["incomplete_details"] else "completed")
    return Seen(
        response.headers["x-request-id"],
        response.status,
        "".join(part["text"] for item in body["output"] for part in item["content"]),
        ends,
        kind=error.get("code", ""),
        code=error.get("type", ""),
        raw=raw,
        usage=None if used is None else (used["input_tokens"], used["output_tokens"]),
    )


def _openai_answer(response: ClientResponse, raw: str) -> Seen:
    body = json.loads(raw)
    used = body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]
    text = body["choices"][0]["message"]["content"]
    return Seen(response.headers["x-request-id"], response.status, text, 1, raw=raw, usage=used)


def _openai_refusal(response: ClientResponse, raw: str) -> Seen:
    body = json.loads(raw)
    assert list(body) == ["error"]
    return _refusal(response, raw, body["error"]["type"], body["error"]["code"])


def _refusal(response: ClientResponse, raw: str, kind: str, code: str) -> Seen:
    wait = response.headers.get("Retry-After")
    assert response.content_type == "application/json"
    assert response.headers.get("x-should-retry") == (None if response.status in NOT_RETRIED else "false")
    return Seen(
        response.headers["x-request-id"],
        response.status,
        "",
        1,
        kind=kind,
        code=code,
        retry_after=None if wait is None else int(wait),
        raw=raw,
    )


# ----------------------------------------------------------------------------------------------------------- Anthropic


async def anthropic_whole(client: ClientSession, model: str, text: str) -> Seen:
    """A message in one piece."""
    async with client.post("/v1/messages", json=chat(model, text, max_tokens=100)) as response:
        raw = await response.text()
    if response.status != 200:
        return _anthropic_refusal(response, raw)
    body = json.loads(raw)
    used = body["usage"]["input_tokens"], body["usage"]["output_tokens"]
    text = "".join(block["text"] for block in body["content"])
    return Seen(response.headers["x-request-id"], response.status, text, 1, raw=raw, usage=used)


async def anthropic_streamed(client: ClientSession, model: str, text: str) -> Seen:
    """A streamed message."""
    async with client.post("/v1/messages", json=chat(model, text, max_tokens=100, stream=True)) as response:
        raw = await response.text()
    if response.status != 200:
        return _anthropic_refusal(response, raw)
    events = [json.loads(line[6:]) for line in raw.split("\n") if line.startswith("data: ")]
    ends = [event for event in events if event["type"] in ("message_stop", "error")]
    used = [event["usage"] for event in events if event["type"] == "message_delta"]
    deltas = (event["delta"] for event in events if event["type"] == "content_block_delta")
    assert events[-1] is ends[-1], raw
    error = ends[-1].get("error", {})
    return Seen(
        response.headers["x-request-id"],
        response.status,
        "".join(delta["text"] for delta in deltas),
        len(ends),
        kind=error.get("type", ""),
        code=error.get("details", {}).get("error_code", ""),
        raw=raw,
        usage=(used[0]["input_tokens"], used[0]["output_tokens"]) if used else None,
    )


def _anthropic_refusal(response: ClientResponse, raw: str) -> Seen:
    body = json.loads(raw)
    assert body["type"] == "error"
    assert body["request_id"] == response.headers["request-id"]
    return _refusal(response, raw, body["error"]["type"], body["error"]["details"]["error_code"])


# ------------------------------------------------------------------------------------------------------------ the rows

NATIVE = dict.fromkeys(
    (
        "bad_tool_schema",
        "content_policy",
        "context_length_exceeded",
        "model_not_found",
        "provider_billing",
        "provider_credentials",
        "provider_rejected",
        "deadline_exceeded",
        "provider_bad_response",
        "provider_error",
        "provider_rate_limited",
        "provider_stream_broken",
        "provider_timeout",
        "provider_unavailable",
        "response_too_large",
    ),
    Failure(200, "error"),
)
OPENAI = {
    "bad_tool_schema": Failure(400, "invalid_request_error"),
    "content_policy": Failure(400, "invalid_request_error"),
    "context_length_exceeded": Failure(400, "invalid_request_error"),
    "model_not_found": Failure(404, "invalid_request_error"),
    "provider_billing": Failure(502, "server_error"),
    "provider_credentials": Failure(502, "server_error"),
    "provider_rejected": Failure(400, "invalid_request_error"),
    "deadline_exceeded": Failure(504, "timeout_error"),
    "provider_bad_response": Failure(502, "server_error"),
    "provider_error": Failure(502, "server_error"),
    "provider_rate_limited": Failure(429, "rate_limit_error"),
    "provider_stream_broken": Failure(502, "server_error"),
    "provider_timeout": Failure(504, "timeout_error"),
    "provider_unavailable": Failure(503, "server_error"),
    "response_too_large": Failure(502, "server_error"),
}
BACKGROUND = dict.fromkeys(OPENAI, Failure(200, "server_error")) | {
    "bad_tool_schema": Failure(200, "invalid_prompt"),
    "content_policy": Failure(200, "invalid_prompt"),
    "context_length_exceeded": Failure(200, "context_length_exceeded"),
    "provider_rate_limited": Failure(200, "rate_limit_exceeded"),
    "provider_rejected": Failure(200, "invalid_prompt"),
}
ANTHROPIC = {
    "bad_tool_schema": Failure(400, "invalid_request_error"),
    "content_policy": Failure(400, "invalid_request_error"),
    "context_length_exceeded": Failure(400, "invalid_request_error"),
    "model_not_found": Failure(404, "not_found_error"),
    "provider_billing": Failure(502, "api_error"),
    "provider_credentials": Failure(502, "api_error"),
    "provider_rejected": Failure(400, "invalid_request_error"),
    "deadline_exceeded": Failure(504, "timeout_error"),
    "provider_bad_response": Failure(502, "api_error"),
    "provider_error": Failure(502, "api_error"),
    "provider_rate_limited": Failure(429, "rate_limit_error"),
    "provider_stream_broken": Failure(502, "api_error"),
    "provider_timeout": Failure(504, "timeout_error"),
    "provider_unavailable": Failure(503, "api_error"),
    "response_too_large": Failure(502, "api_error"),
}

SURFACES = (
    Surface("native", native, NATIVE),
    Surface("websocket", websocket, {code: Failure(101, "error") for code in NATIVE}, status=101),
    Surface("long_poll", long_poll, NATIVE),
    Surface("openai_whole", openai_whole, OPENAI, streams=False),
    Surface("openai_streamed", openai_streamed, OPENAI),
    Surface("responses_whole", responses_whole, OPENAI, streams=False),
    Surface("responses_streamed", responses_streamed, OPENAI, begun="server_error"),
    Surface("responses_resumed", responses_resumed, BACKGROUND, says_when=False),
    Surface("anthropic_whole", anthropic_whole, ANTHROPIC, streams=False, cached=False),
    Surface("anthropic_streamed", anthropic_streamed, ANTHROPIC, cached=False),
)
