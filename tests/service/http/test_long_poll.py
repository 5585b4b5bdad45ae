"""Long polling of a log: the socket's events, from position to position."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.http import long_poll
from tests.service.bench import Service, open_service

JSON = "application/json"


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with a gateway that the test scripts."""
    async with open_service() as running:
        yield running


async def poll(service: Service, request_id: str, query: str = "") -> Any:  # noqa: ANN401 - JSON
    """Return one response."""
    response = await service.get(f"/api/requests/{request_id}/events{query}", Accept=JSON)
    assert response.status == 200, await response.text()
    assert response.headers["Cache-Control"] == "no-store"
    return await response.json()


def after(answer: Any) -> str:  # noqa: ANN401 - JSON
    """Return the next call's ``after``."""
    position = answer["position"]
    return f"?after={position['epoch']}:{position['offset']}"


async def test_polls_put_the_answer_together(service: Service) -> None:
    """Each call returns the events since the last one, once; the last one has ``ended``."""
    request_id = await service.submit()
    call = await service.call()
    await call.say("Hel")
    first = await poll(service, request_id)
    assert [event["offset"] for event in first["events"]] == [1, 2]
    assert first["events"][1]["data"] == {"delta": "Hel"}
    assert not first["ended"]
    assert (await poll(service, request_id, after(first)))["events"] == []
    await call.say("lo")
    await call.end()
    second = await poll(service, request_id, after(first) + "&wait=20")
    while not second["ended"]:
        second = await poll(service, request_id, after(second) + "&wait=20")
    assert second["events"][-1]["type"] == "complete"
    assert second["events"][-1]["data"]["coreResult"]["text"] == "Hello"
    nothing = await poll(service, request_id, after(second) + "&wait=20")
    assert (nothing["events"], nothing["ended"]) == ([], True)


async def test_a_poll_waits_for_news(service: Service) -> None:
    """With ``wait`` the response is sent with the next event."""
    request_id = await service.submit()
    call = await service.call()
    known = await poll(service, request_id)
    waiting = asyncio.ensure_future(poll(service, request_id, after(known) + "&wait=55"))
    await service.until_followers(request_id, 1)
    await call.say("late")
    assert [event["data"] for event in (await waiting)["events"]] == [{"delta": "late"}]
    await call.end()


async def test_a_poll_ends_in_time(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an event in time the response is empty, at the same position."""
    monkeypatch.setattr(long_poll, "MAX_WAIT", 0.01)
    request_id = await service.submit()
    known = await poll(service, request_id)
    again = await poll(service, request_id, after(known) + "&wait=30")
    assert again == known | {"events": []}
    await (await service.call()).end()


async def test_a_snapshot_can_be_polled(service: Service) -> None:
    """``mode=snapshot`` gives all the text so far, merged."""
    request_id = await service.answered("a", "b", "c")
    answer = await poll(service, request_id, "?mode=snapshot")
    assert answer["events"][0]["data"]["text"] == "abc"
    assert answer["events"][0]["snapshot"] is True


@pytest.mark.parametrize("wait", ["-1", "soon", "1.5", "99999"])
async def test_a_wait_that_is_no_number_is_refused(service: Service, wait: str) -> None:
    """The error names the field."""
    request_id = await service.answered("a")
    response = await service.get(f"/api/requests/{request_id}/events?wait={wait}", Accept=JSON)
    assert response.status == 400
    assert (await response.json())["errors"][0]["path"] == "wait"


async def test_a_position_that_is_gone_is_said_so(service: Service) -> None:
    """A position of another epoch is 410, as for a stream."""
    request_id = await service.answered("a")
    response = await service.get(f"/api/requests/{request_id}/events?after=elsewhere:1", Accept=JSON)
    assert response.status == 410
    assert (await response.json())["code"] == "unrecoverable_position"
