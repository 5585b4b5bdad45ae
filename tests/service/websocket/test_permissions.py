"""Permissions on a socket, for each way of authenticating: only the tenant's own things exist."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import aiohttp
import pytest

from service.auth.keys import digest_of
from tests.service.bench import BODY, Service, open_service
from tests.service.issuer import SECRET, claims, sign

ROUTES: Final = f"""
[keys.ann]
hash = "{digest_of("ann").hex()}"
tenant = "acme"

[keys.bob]
hash = "{digest_of("bob").hex()}"
tenant = "other"
"""
CHANNELS: Final = ["room:*"]
ABSENT: Final = (
    ("GET", "/api/requests/{}"),
    ("GET", "/api/requests/{}/events"),
    ("GET", "/api/requests/{}/events?wait=5"),
    ("POST", "/api/requests/{}/cancel"),
    ("GET", "/v1/responses/resp_{}"),
    ("GET", "/v1/responses/resp_{}?stream=true"),
    ("POST", "/v1/responses/resp_{}/cancel"),
)


class Line:
    """A socket of a client."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def ask(self, **frame: Any) -> Any:  # noqa: ANN401 - JSON
        """Send a frame, and return the answer."""
        await self.socket.send_json(frame)
        return await self.socket.receive_json()


async def by_header(service: Service, key: str) -> Line:
    """Open a socket with a key."""
    return Line(await service.client.ws_connect(f"{service.base}/ws", headers={"Authorization": f"Bearer {key}"}))


async def by_ticket(service: Service, key: str) -> Line:
    """Open a socket with a ticket that was issued for a key."""
    response = await service.post("/api/tickets", None, authorization=f"Bearer {key}")
    return Line(await service.client.ws_connect(f"{service.base}/ws?ticket={(await response.json())['ticket']}"))


async def by_frame(service: Service, key: str) -> Line:
    """Open a socket without a credential, and authenticate with a key."""
    line = Line(await service.client.ws_connect(f"{service.base}/ws"))
    assert (await line.ask(type="authenticate", id=1, token=key))["type"] == "ack"
    return line


def token(tenant: str, **more: Any) -> str:  # noqa: ANN401 - claims
    """Return a token of a user of a tenant."""
    return sign(claims(tenant=tenant, channels=CHANNELS, **more))


WAYS: Final[dict[str, Callable[[Service, str], Awaitable[Line]]]] = {
    "header": by_header,
    "ticket": by_ticket,
    "frame": by_frame,
}


@pytest.fixture
async def service(tmp_path: Any) -> AsyncIterator[Service]:  # noqa: ANN401 - a path
    """A service of two tenants, with keys and tokens."""
    path = tmp_path / "tidegate.toml"
    path.write_text(ROUTES, encoding="utf-8")
    async with open_service(routes_file=path, jwt_secret=SECRET) as running:
        yield running


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("signed", [False, True])
async def test_another_tenant_s_things_are_not_there(service: Service, way: str, signed: bool) -> None:
    """Another tenant's requests are not found, never forbidden; channels of the same name are separate."""
    mine, theirs = (token("acme"), token("other", sub="bob")) if signed else ("ann", "bob")
    owner, other = await WAYS[way](service, mine), await WAYS[way](service, theirs)
    request_id = (await owner.ask(type="submit", id=2, **BODY))["requestId"]
    call = await service.call()
    for kind in ("subscribe", "cancel"):
        answer = await other.ask(type=kind, id=3, requestId=request_id)
        assert (answer["type"], answer["error"]["code"]) == ("error", "request_not_found")
    for method, place in ABSENT:
        headers = {"Authorization": f"Bearer {theirs}"}
        async with service.client.request(method, service.base + place.format(request_id), headers=headers) as response:
            assert response.status == 404, place
    assert (await other.ask(type="subscribe", id=4, channel="room:7"))["type"] == "ack"
    await owner.socket.receive_json()
    assert (await owner.ask(type="publish", id=5, channel="room:7", event="said"))["data"]["offset"] == 1
    assert (await other.ask(type="ping", id=6)) == {"type": "pong", "id": 6}
    assert not call.cancelled.is_set()
    await call.end()


async def test_a_colleague_sees_what_the_tenant_has(service: Service) -> None:
    """A request belongs to the tenant: every caller of it can follow, however authenticated."""
    owner, colleague = await by_header(service, "ann"), await by_frame(service, token("acme", sub="cleo"))
    request_id = (await owner.ask(type="submit", id=1, **BODY))["requestId"]
    call = await service.call()
    assert (await colleague.ask(type="subscribe", id=2, requestId=request_id))["type"] == "ack"
    await call.end()


async def test_a_channel_that_the_token_does_not_name(service: Service) -> None:
    """Each right follows the token's patterns; the socket stays open."""
    line = await by_frame(service, token("acme"))
    for kind, more in (("subscribe", {}), ("publish", {"event": "said"}), ("presence", {})):
        answer = await line.ask(type=kind, id=2, channel="hall:1", **more)
        assert (answer["error"]["code"], answer["channel"]) == ("channel_denied", "hall:1")
    assert (await line.ask(type="subscribe", id=3, channel="room:1"))["type"] == "ack"


async def test_a_token_that_ends_is_the_end_unless_there_is_a_new_one(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4005 lets the client reconnect with a new token; the same user's new token in time replaces the expiry."""
    line = await by_frame(service, token("acme"))
    later = round(time.time()) + 5000
    renewed = await line.ask(type="authenticate", id=2, token=token("acme", exp=later))
    assert renewed["data"]["expiresAt"] >= later * 1000
    refused = await line.ask(type="authenticate", id=3, token=token("acme", sub="bob"))
    assert refused["error"]["code"] == "forbidden"
    assert (await line.ask(type="ping", id=4))["type"] == "pong"
    monkeypatch.setattr(service.container.auth.grants, "_clock", lambda: later + 1000.0)
    await line.ask(type="authenticate", id=5, token=token("acme", exp=later - 1))
    assert (await line.socket.receive()).type is aiohttp.WSMsgType.CLOSE
    assert line.socket.close_code == 4005


async def test_a_token_that_has_ended_opens_nothing(service: Service) -> None:
    """An error frame with the reason, and the close code that asks for a new token."""
    line = Line(await service.client.ws_connect(f"{service.base}/ws"))
    answer = await line.ask(type="authenticate", id=1, token=token("acme", exp=1))
    assert answer["error"]["code"] == "token_expired"
    assert (await line.socket.receive()).type is aiohttp.WSMsgType.CLOSE
    assert line.socket.close_code == 4005
