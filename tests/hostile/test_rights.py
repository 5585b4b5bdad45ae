"""Rights are live: each kind of open thing, and each way to lose the right to it.

No test waits for a file's watcher or for a clock: the service is told to look, and the time of a token is set.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.log.event_log import EventLog
from actors.log.follow import Follower
from actors.requests.stream import RequestStream
from protocol.channels import GetPresence
from protocol.errors import TidegateError
from protocol.requests import CancelOwned, GetRequest
from service.http.sse import stopper
from tests.hostile.rights_bench import (
    DIALS,
    STREAMS,
    TENANT,
    WAITING,
    World,
    bearer,
    chat,
    dial,
    events,
    open_world,
    table,
    ticket,
)
from tests.service.bench import BODY, CHAT
from tests.service.issuer import EC, RSA, Issuer, claims, published, sign

OTHERS: Final = table("witness") + table("other")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A service with the key `web`, and two others of the tenant."""
    async with open_world(tmp_path / "tidegate.toml", OTHERS, table("web")) as running:
        yield running


async def removed(world: World) -> str:
    """Remove the key."""
    await world.put(OTHERS)
    return "key_revoked"


async def disabled(world: World) -> str:
    """Disable the key."""
    await world.put(OTHERS, table("web", disabled=True))
    return "key_revoked"


async def made_again(world: World) -> str:
    """Give the name to another key."""
    await world.put(OTHERS, table("web", key="another-key"))
    return "key_revoked"


async def renamed(world: World) -> str:
    """Give the key to another holder."""
    await world.put(OTHERS, table("webb", key="web"))
    return "key_revoked"


async def moved(world: World) -> str:
    """Give the key to another tenant."""
    await world.put(OTHERS, table("web", tenant="elsewhere"))
    return "key_revoked"


async def narrowed(world: World) -> str:
    """Take away all that the key is used for here."""
    await world.put(OTHERS, table("web", scopes=["admin"]))
    return "forbidden"


WAYS: Final[dict[str, Callable[[World], Awaitable[str]]]] = {
    way.__name__: way for way in (removed, disabled, made_again, renamed, moved, narrowed)
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("surface", STREAMS)
async def test_a_stream_ends_with_its_right(world: World, surface: str, way: str) -> None:
    """The error event in the form of the surface is the last thing; the request goes on, for the tenant."""
    opened = await STREAMS[surface](world, "web")
    code = await WAYS[way](world)
    assert opened.call is not None
    await opened.call.say("late")
    status, rest = await opened.end()
    assert (status, "late" in rest) == (200, False)
    assert f'"code":"{code}"' in rest or surface == "messages"
    assert "error" in rest
    assert not opened.call.cancelled.is_set()
    await opened.call.end()
    await world.until_open(0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("surface", WAITING)
async def test_a_call_that_waits_ends_with_its_right(world: World, surface: str, way: str) -> None:
    """401, or 403 of narrowed rights, at once; the connection stays usable."""
    opened = await WAITING[surface](world, "web")
    code = await WAYS[way](world)
    status, rest = await opened.end()
    assert status == (403 if code == "forbidden" else 401)
    assert code in rest or surface == "whole message"
    if opened.call is not None:
        assert not opened.call.cancelled.is_set()
        await opened.call.end()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("opening", DIALS)
async def test_a_socket_ends_with_its_right(world: World, opening: str, way: str) -> None:
    """4507 after a `disconnect` that says why; what it followed and where it was a member ends at once."""
    line = await DIALS[opening](world, "web")
    assert (await line.ask(type="subscribe", id=1, channel="room:1", member={"n": 1}))["type"] == "ack"
    request_id = (await line.ask(type="submit", id=2, **BODY))["requestId"]
    call = await world.service.call()
    code = await WAYS[way](world)
    here = await world.container.hub.ask(GetPresence(tenant=TENANT, channel="room:1"), timeout=5)
    handle = await world.container.router.ask(GetRequest(request_id, TENANT), timeout=5)
    assert (here, handle.state().assistant_status) == ((), "pending")
    await call.say("late")
    frames = await line.rest()
    assert line.socket.close_code == 4507
    assert "late" not in str(frames)
    if code == "key_revoked":
        assert frames[-1]["data"] == {"code": 4507, "reason": code, "reconnect": False, "delayMs": 0}
    await call.end()


async def test_tickets_end_with_their_key_and_with_every_change(world: World) -> None:
    """A ticket has the rights that its key had; where these are not those of the key any more, it is invalid."""
    for change in (table("web", models=["m"]), ""):
        held = await ticket(world, "web")
        other = await ticket(world, "other")
        await world.put(OTHERS, change)
        with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
            await world.service.client.ws_connect(f"{world.service.base}/ws?ticket={held}")
        await (await world.service.client.ws_connect(f"{world.service.base}/ws?ticket={other}")).close()


async def test_only_the_revoked_key_s_things_end(world: World) -> None:
    """Two keys of a tenant share a run: the one's stream ends, the other's gets all of it."""
    body = CHAT | {"stream": True, "temperature": 0}
    ours = asyncio.ensure_future(
        world.service.client.post(world.service.base + "/v1/chat/completions", json=body, headers=bearer("web"))
    )
    call = await world.service.call()
    theirs = asyncio.ensure_future(
        world.service.client.post(world.service.base + "/v1/chat/completions", json=body, headers=bearer("other"))
    )
    await world.until_open(2)
    await call.say("early")
    first, second = await ours, await theirs
    await world.put(OTHERS, table("web", disabled=True, on_revoke="cancel"))
    await call.say("late")
    await call.end()
    mine, others = await first.text(), await second.text()
    assert ("late" in mine, "key_revoked" in mine) == (False, True)
    assert ("late" in others, "[DONE]" in others, second.headers["x-tidegate-source"]) == (True, True, "joined")
    assert not call.cancelled.is_set()


@pytest.mark.parametrize("way", ["disabled", "removed"])
@pytest.mark.parametrize("choice", ["finish", "cancel"])
async def test_running_requests_end_by_choice(world: World, choice: str, way: str) -> None:
    """The table says whether they are cancelled: the new one, or of a removed key the one before."""
    await world.put(OTHERS, table("web", on_revoke=choice))
    opened = await events(world, "web")
    kept = await events(world, "other")
    await world.put(OTHERS, *([table("web", on_revoke=choice, disabled=True)] if way == "disabled" else []))
    assert "key_revoked" in (await opened.end())[1]
    assert opened.call is not None
    assert kept.call is not None
    if choice == "cancel":
        await opened.call.cancelled.wait()
    else:
        assert await world.container.router.ask(CancelOwned(b"unknown"), timeout=5) == 0
        assert not opened.call.cancelled.is_set()
        await opened.call.end()
    assert not kept.call.cancelled.is_set()
    await kept.call.end()
    assert "complete" in (await kept.end())[1]


async def test_a_stream_whose_model_is_taken_away_ends(world: World) -> None:
    """The right to the model counts as long as the answer lasts; a follower of the request needs the scope alone."""
    opened, followed = await chat(world, "web"), await events(world, "web")
    await world.put(OTHERS, table("web", models=["n"]))
    assert "model_not_allowed" in (await opened.end())[1]
    assert followed.call is not None
    await followed.call.say("late")
    await followed.call.end()
    assert "late" in (await followed.end())[1]


async def test_more_rights_end_nothing(world: World) -> None:
    """A widened key's stream goes on, and its socket has the new rights at once."""
    await world.put(OTHERS, table("web", channels=[{"pattern": "hall"}]))
    line, opened = await dial(world, "web"), await chat(world, "web")
    assert (await line.ask(type="subscribe", id=1, channel="room:1"))["error"]["code"] == "channel_denied"
    await world.put(OTHERS, table("web"))
    assert (await line.ask(type="subscribe", id=2, channel="room:1"))["type"] == "ack"
    assert opened.call is not None
    await opened.call.say("late")
    await opened.call.end()
    assert "[DONE]" in (await opened.end())[1]


async def test_narrowed_then_widened_is_not_as_if_nothing_had_been(world: World) -> None:
    """The subscription has ended, and the client knows it; it may subscribe again."""
    line = await dial(world, "web")
    await line.ask(type="subscribe", id=1, channel="room:1")
    await world.put(OTHERS, table("web", channels=[]))
    await world.put(OTHERS, table("web"))
    last = await line.ask(type="publish", id=2, channel="room:1", event="said")
    assert (last["channel"], last["error"]["code"], last["terminal"]) == ("room:1", "channel_denied", True)
    assert (await line.socket.receive_json())["id"] == 2
    assert (await line.ask(type="subscribe", id=3, channel="room:1"))["type"] == "ack"


async def test_presence_is_a_right_of_its_own(world: World) -> None:
    """Without it the membership ends, and changes of presence come no more; the subscription stays."""
    line = await dial(world, "web")
    await line.ask(type="subscribe", id=1, channel="room:1", presence=True, member={})
    await line.socket.receive_json()
    await world.put(OTHERS, table("web", channels=[{"pattern": "*", "rights": ["subscribe", "publish"]}]))
    assert await world.container.hub.ask(GetPresence(tenant=TENANT, channel="room:1"), timeout=5) == ()
    other = await dial(world, "other")
    await other.ask(type="subscribe", id=1, channel="room:1", member={})
    assert (await line.ask(type="ping", id=9))["type"] == "pong"


async def test_a_replay_by_an_idempotency_key_needs_the_right_of_now(world: World) -> None:
    """The same key and body again: refused where the model is not allowed any more, or the key is not."""
    headers = bearer("web") | {"Idempotency-Key": "k"}
    place, body = world.service.base + "/api/requests", BODY | {"model": "m"}
    statuses = []
    for change in (table("web"), table("web", models=["n"]), ""):
        await world.put(OTHERS, change)
        async with world.service.client.post(place, json=body, headers=headers) as response:
            statuses.append(response.status)
    await (await world.service.call()).end()
    assert statuses == [202, 403, 401]


@pytest.mark.parametrize("paused", [False, True])
async def test_a_client_that_does_not_read_is_cut_off(paused: bool) -> None:
    """What is not sent yet is dropped with the connection: nothing is delivered after the right is gone."""
    aborted: list[bool] = []
    transport = SimpleNamespace(abort=lambda: aborted.append(True))
    request: Any = SimpleNamespace(protocol=SimpleNamespace(writing_paused=paused), transport=transport)
    follower = Follower(RequestStream("req_1", EventLog()))
    stopper(request, follower)()
    assert await follower.next() is None
    assert bool(aborted) == paused


# ---------------------------------------------------------------------------------------------------------- tokens


def token(**more: Any) -> str:  # noqa: ANN401 - claims
    """Return a token of the tenant."""
    return sign(claims(channels=["*"], **more))


@pytest.mark.parametrize("surface", [*STREAMS, *WAITING])
async def test_a_token_that_expires_ends_what_is_open(
    world: World, surface: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tokens share one timer; here its clock is set."""
    held = token()
    opened = await (STREAMS | WAITING)[surface](world, held)
    grants = world.container.auth.grants
    later = grants._clock() + 5000
    monkeypatch.setattr(grants, "_clock", lambda: later)
    grants.expire()
    status, rest = await opened.end()
    assert status == (200 if surface in STREAMS else 401)
    assert "token_expired" in rest or "message" in surface
    if opened.call is not None:
        await opened.call.end()


async def test_a_withdrawn_signing_key_ends_what_its_tokens_have_open(tmp_path: Path) -> None:
    """Also what is open by a cached token; tokens of the other key go on."""
    async with Issuer.open() as issuer:
        issuer.publish(published(EC, "a"), published(RSA, "b"))
        async with open_world(
            tmp_path / "tidegate.toml", OTHERS, jwt_jwks_url=issuer.url, fetch_allowed=("127.0.0.1",)
        ) as world:
            lost = sign(claims(channels=["*"]), "ES256", kid="a")
            kept = sign(claims(channels=["*"]), "RS256", kid="b")
            ended, goes_on = await chat(world, lost), await chat(world, kept)
            line, held = await dial(world, lost), await ticket(world, lost)
            issuer.publish(published(RSA, "b"))
            keys = world.container.auth._tokens._published  # type: ignore[union-attr]
            await keys._load()  # type: ignore[union-attr]
            assert "key_revoked" in (await ended.end())[1]
            assert [frame["type"] for frame in await line.rest()] == ["disconnect"]
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await world.service.client.ws_connect(f"{world.service.base}/ws?ticket={held}")
            with pytest.raises(TidegateError, match="not known"):
                await world.principal(lost)
            assert goes_on.call is not None
            await goes_on.call.end()
            assert "[DONE]" in (await goes_on.end())[1]


async def test_a_socket_with_fewer_rights_loses_the_rest_before_the_acknowledgement(world: World) -> None:
    """Each subscription that is lost has its frame; then comes the `ack`, and nothing of what was lost any more."""
    line = await dial(world, token())
    for number, channel in enumerate(("room:1", "secret")):
        await line.ask(type="subscribe", id=number, channel=channel)
    request_id = (await line.ask(type="submit", id=3, **BODY))["requestId"]
    call = await world.service.call()
    await line.socket.receive_json()
    fewer = sign(claims(channels=["room:*"], scope="channels"))
    assert (await line.ask(type="authenticate", id=4, token=fewer))["channel"] == "secret"
    lost = await line.socket.receive_json()
    assert (lost["requestId"], lost["error"]["code"], lost["terminal"]) == (request_id, "forbidden", True)
    assert (await line.socket.receive_json())["id"] == 4
    await call.say("late")
    for channel in ("secret", "room:1"):
        headers = bearer("other")
        place = f"{world.service.base}/api/channels/{channel}/publish"
        async with world.service.client.post(place, json={"event": "said"}, headers=headers) as response:
            assert response.status == 202
    assert (await line.socket.receive_json())["channel"] == "room:1"
    await call.end()


@pytest.mark.parametrize("more", [{"tenant": "elsewhere"}, {"tenant": None}])
async def test_a_socket_of_another_tenant_loses_everything(world: World, more: dict[str, Any]) -> None:
    """It is closed: neither the tenant before nor the one after is served by it."""
    line = await dial(world, token())
    await line.ask(type="subscribe", id=1, channel="room:1")
    await line.socket.send_json({"type": "authenticate", "id": 2, "token": token(**more)})
    assert [frame["type"] for frame in await line.rest()] == ["disconnect"]
    assert line.socket.close_code == 4507
    await world.until_open(0)


async def test_the_credential_before_does_not_count_any_more(world: World) -> None:
    """A socket that has authenticated again ends with its new token alone."""
    first, second = token(), token(exp=claims()["exp"] + 5)
    line = await dial(world, first)
    assert (await line.ask(type="authenticate", id=1, token=second))["type"] == "ack"
    grants = world.container.auth.grants
    assert grants.end((await world.principal(first)).credential) == 0
    assert (await line.ask(type="ping", id=2))["type"] == "pong"
    assert grants.end((await world.principal(second)).credential) == 1
    assert [frame["type"] for frame in await line.rest()] == ["disconnect"]


# ------------------------------------------------------------------------------------------------------------ model

ROOMS: Final = ("a", "b", "c")
Step = tuple[str, frozenset[str]]
STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("file"), st.frozensets(st.sampled_from(ROOMS))),
        st.tuples(st.sampled_from(("subscribe", "publish")), st.frozensets(st.sampled_from(ROOMS), min_size=1)),
    ),
    max_size=8,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_no_frame_comes_after_its_right_is_gone(tmp_path: Path, steps: list[Step]) -> None:
    """The model: what the client follows is what it subscribed to since it last lost the right; and it is told."""
    async with open_world(tmp_path / "tidegate.toml", OTHERS, table("web")) as world:
        line = await dial(world, "web")
        allowed, follows, number = set(ROOMS), set[str](), 0
        for kind, rooms in steps:
            expected: list[tuple[str, str]] = []
            if kind == "file":
                await world.put(OTHERS, table("web", channels=[{"pattern": room} for room in sorted(rooms)]))
                expected = [("channel_denied", room) for room in follows - rooms]
                allowed, follows = set(rooms), follows & rooms
            elif kind == "subscribe":
                for room in sorted(rooms):
                    number += 1
                    await line.socket.send_json({"type": "subscribe", "id": number, "channel": room})
                    expected.append(("ack" if room in allowed else "channel_denied", room))
                follows |= rooms & allowed
            else:
                for room in sorted(rooms):
                    await _publish(world, room)
                expected = [("update", room) for room in rooms & follows]
            got: list[tuple[str, str]] = []
            while len(got) < len(expected):
                frame = await line.socket.receive_json(timeout=5)
                got.append((frame["error"]["code"] if frame["type"] == "error" else frame["type"], frame["channel"]))
            assert sorted(got) == sorted(expected)
            assert (await line.ask(type="ping", id=0))["type"] == "pong"


async def _publish(world: World, channel: str) -> None:
    place = f"{world.service.base}/api/channels/{channel}/publish"
    async with world.service.client.post(place, json={"event": "said"}, headers=bearer("other")) as response:
        assert response.status == 202
