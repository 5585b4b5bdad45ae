"""What an operator reads: the log of real calls, through the whole service."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from actors.testing import Cut, End, Reply, Say, ScriptedUpstream, Stall, refuse, say
from tests.service.bench import BODY, Service, open_service
from tests.service.conftest import Start

MESSAGES = [{"role": "user", "content": "a secret wish"}]
CHAT = {"model": "gpt-5", "messages": MESSAGES}
LOGGERS = ("tidegate.requests", "tidegate.gateway", "tidegate.hub")

Lines = Callable[[str], list[dict[str, Any]]]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Lines]:
    """Return the fields of the lines with this event."""
    for name in LOGGERS:
        caplog.set_level(logging.DEBUG, name)

    def named(event: str) -> list[dict[str, Any]]:
        records = [record.__dict__ for record in caplog.records if record.name in LOGGERS]
        return [
            {"level": record["levelname"], **record["fields"]}
            for record in records
            if record.get("event", record["message"]) == event
        ]

    yield named
    for record in caplog.records:
        assert "a secret wish" not in str(record.__dict__)


@pytest.mark.parametrize(
    ("path", "body", "surface"),
    [
        ("/v1/chat/completions", CHAT, "openai"),
        ("/v1/responses", {"model": "gpt-5", "input": "a secret wish"}, "responses"),
        ("/v1/messages", CHAT | {"max_tokens": 9}, "anthropic"),
        ("/api/requests", CHAT, "native"),
    ],
)
async def test_each_request_has_one_outcome(
    start: Start, upstream: ScriptedUpstream, lines: Lines, path: str, body: dict[str, Any], surface: str
) -> None:
    """On every surface: one line, with the trace of the call, and the request that its answer names."""
    upstream.script(say("Hello"))
    running = await start()
    response = await running.client.post(path, json=body, headers={"x-trace-id": "order 17"})
    if path == "/api/requests":
        await (await running.client.get(f"{response.headers['Location']}/events")).read()
    (line,) = lines("request_ended")
    assert (line["level"], line["status"], line["finish"]) == ("INFO", "completed", "stop")
    assert (line["surface"], line["trace_id"], line["attempts"]) == (surface, "order 17", 1)
    assert line["request_id"] == response.headers["x-request-id"]
    assert (line["provider"], line["provider_model"]) == ("openai", "gpt-5")
    assert line["tokens"]["total"] == line["tokens"]["input"] + line["tokens"]["output"] > 0
    assert 0 < line["first_token_ms"] <= line["ms"]


async def test_requests_of_a_socket_have_an_outcome(start: Start, upstream: ScriptedUpstream, lines: Lines) -> None:
    """Also what is subscribed and delivered; a refused frame is a line, too; the socket's begin and end at DEBUG."""
    upstream.script(say("Hello"))
    running = await start()
    with capture_logs() as logs:
        async with running.client.ws_connect("/ws") as socket:
            await socket.send_json({"type": "submit", "id": 1, "model": "gpt-5", "messages": []})
            await socket.send_json({"type": "submit", "id": 2, "model": "gpt-5", "messages": MESSAGES})
            while (frame := await socket.receive_json())["type"] != "complete":
                pass
            await socket.send_json({"type": "publish", "id": 3, "channel": "room", "event": "said"})
            await socket.receive_json()
    (line,) = lines("request_ended")
    assert (line["surface"], line["request_id"]) == ("socket", frame["requestId"])
    assert lines("subscribed") == [
        {"level": "DEBUG", "request_id": frame["requestId"], "after": 0, "subscribers": 1},
    ]
    assert lines("fanned_out") == [
        {"level": "DEBUG", "subscribers": 1, "request_id": frame["requestId"], "type": "completed"},
        {"level": "DEBUG", "channel": "room", "type": "publication", "subscribers": 0},
    ]
    events = {line["event"]: line for line in logs}
    assert events["http_started"]["log_level"] == events["socket_opened"]["log_level"] == "debug"
    assert (events["frame_refused"]["code"], events["frame_refused"]["type"]) == ("invalid_request", "submit")
    assert (events["socket_closed"]["frames"], events["socket_closed"]["seconds"] >= 0) == (3, True)


FAILURES = [
    (refuse(401), "provider_credentials", 401, "end"),
    (refuse(500), "provider_error", 500, "retry"),
    (refuse(429), "provider_rate_limited", 429, "retry"),
    (Reply(status=502, body=b"<html>Bad gateway</html>"), "provider_error", 502, "retry"),
    (Reply(content_type="text/html", steps=(Say("x"), End())), "provider_bad_response", 200, "end"),
    (Reply(before=(Cut(),)), "provider_unavailable", None, "retry"),
    (Reply(steps=(Say("x"), Cut())), "provider_stream_broken", None, "end"),
]


@pytest.mark.parametrize(("reply", "code", "status", "follows"), FAILURES)
async def test_a_failed_call_is_a_warning(
    start: Start, upstream: ScriptedUpstream, lines: Lines, reply: Reply, code: str, status: int | None, follows: str
) -> None:
    """The line says which call, what the upstream said, and what follows; the outcome is a line of its own."""
    upstream.script(reply, say("Hello"))
    running = await start()
    response = await running.client.post("/v1/chat/completions", json=CHAT)
    (line,) = lines("attempt_failed")
    assert (line["level"], line["code"], line["attempt"]) == ("WARNING", code, 1)
    assert (line["provider"], line["model"]) == ("openai", "gpt-5")
    assert (line["upstream_status"], line["follows"]) == (status, follows)
    assert line["reason"]
    address = code in ("provider_bad_response", "provider_unavailable", "provider_stream_broken")
    assert line.get("url", "") == (upstream.openai_url if address else "")
    assert line["request_id"] == response.headers["x-request-id"]
    (ended,) = lines("request_ended")
    assert ended["attempts"] == (2 if follows == "retry" else 1)
    assert ended["status"] == ("completed" if follows == "retry" else "failed")
    assert ended["level"] == ("INFO" if follows == "retry" else "WARNING")
    if follows == "retry":
        assert line["delayMs"] >= 0


async def test_a_silent_upstream_is_understood(start: Start, upstream: ScriptedUpstream, lines: Lines) -> None:
    """The line names the silence that was too long."""
    upstream.default = Reply(steps=(Stall(),))
    running = await start(first_token_timeout_seconds=0.02)
    response = await running.client.post("/v1/chat/completions", json=CHAT)
    assert response.status == 504
    assert [line["follows"] for line in lines("attempt_failed")] == ["retry", "retry", "end"]
    assert {line["reason"] for line in lines("attempt_failed")} == {"TimeoutError: nothing came for 0.02 s"}


async def test_a_request_that_is_cancelled_names_its_call(
    start: Start, upstream: ScriptedUpstream, lines: Lines
) -> None:
    """The provider was called, although the call has brought nothing."""
    upstream.default = Reply(before=(Stall(),))
    running = await start()
    response = await running.client.post("/api/requests", json=CHAT)
    await upstream.called()
    await running.client.post(f"{response.headers['Location']}/cancel")
    (line,) = lines("request_ended")
    assert (line["status"], line["provider"], line["provider_model"]) == ("cancelled", "openai", "gpt-5")
    assert line["attempts"] == 1


async def test_embeddings_have_an_outcome(start: Start, upstream: ScriptedUpstream, lines: Lines) -> None:
    """Good or not: one line for each request."""
    running = await start()
    upstream.script(say(), refuse(400))
    for wish, status in (("a secret wish", 200), ("another", 400)):
        body = {"model": "text-embedding-3-small", "input": wish}
        assert (await running.client.post("/v1/embeddings", json=body)).status == status
    good, bad = lines("request_ended")
    (failed,) = lines("attempt_failed")
    assert (failed["provider"], failed["upstream_status"], failed["attempt"]) == ("openai", 400, 1)
    assert (good["status"], good["surface"], good["inputs"], good["source"]) == (
        "completed",
        "embeddings",
        1,
        "upstream",
    )
    assert good["tokens"]["total"] > 0
    assert (bad["status"], bad["code"]) == ("failed", "provider_rejected")


async def test_every_sharer_has_an_outcome(lines: Lines) -> None:
    """One that joins and one that is replayed have lines of their own, and cost nothing."""
    async with open_service() as service:
        await _shared(service)
    ends = lines("request_ended")
    assert sorted(line["source"] for line in ends) == ["cache", "joined", "upstream"]
    assert len({line["request_id"] for line in ends}) == 3
    assert {line["cost"] for line in ends if line["source"] != "upstream"} == {"0"}


async def _shared(service: Service) -> None:
    first, second = await service.submit(), await service.submit()
    call = await service.call()
    await call.say("Hello")
    await call.end()
    for request_id in (first, second):
        await (await service.follow(request_id)).read()
    await service.post("/api/requests", BODY)


async def test_a_call_that_went_well_is_one_line(start: Start, upstream: ScriptedUpstream, lines: Lines) -> None:
    """``request_ended`` tells it; ``http`` is there for what that line can't tell: failures, replays, a caller's id."""
    upstream.script(say("Hello"), say("Hello"), say("Hello"), refuse(status=400))
    running = await start()

    async def levels(**headers: str) -> list[str]:
        with capture_logs() as logs:
            response = await running.client.post("/v1/chat/completions", json=CHAT, headers=headers)
            await response.read()
            assert response.status in {200, 400}
        return [line["log_level"] for line in logs if line["event"] == "http"]

    assert await levels(**{"Idempotency-Key": "one"}) == ["debug"]
    assert await levels(**{"Idempotency-Key": "one"}) == ["info"]
    assert await levels(**{"x-request-id": "mine-1"}) == ["info"]
    assert await levels() == ["debug"]
    assert await levels() == ["info"]
    assert len(lines("request_ended")) == 4
