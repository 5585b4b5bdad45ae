"""The client of an administrator, and the deletion of requests."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from protocol.channels import Subscriber
from protocol.errors import AccessDenied, ConfigurationError, InvalidRequest, NotFound
from protocol.llm import ChatMessage
from protocol.requests import SubmitBody
from protocol.users import UserChannel, UserSubscribed
from service.auth.keys import digest_of
from service.client import Client
from service.client.admin import Admin
from tests.service.bench import Service, open_service

ROOM = "room/ü 7"
KEYS = """
[keys.root]
hash = "{root}"
tenant = "acme"
scopes = ["channels", "admin"]

[keys.ann]
hash = "{ann}"
tenant = "acme"
"""


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """A service with an administrator and a user."""
    file = tmp_path / "tidegate.toml"
    file.write_text(KEYS.format(root=digest_of("root").hex(), ann=digest_of("ann").hex()), encoding="utf-8")
    async with open_service(routes_file=file) as running:
        yield running


async def test_lists_are_read_to_their_end(service: Service) -> None:
    """The items of all pages, in order."""
    async with Client(service.base, key="root") as client:
        for number in range(250):
            await client.publish(f"room:{number:03}", "said")
        assert [item.name async for item in client.admin.channels()] == [f"room:{number:03}" for number in range(250)]
        assert [item async for item in client.admin.subscribers("room:000")] == []


async def test_an_administrator_moves_a_user(service: Service) -> None:
    """Subscribed, seen and unsubscribed from the server, on a socket that listens to something else."""
    async with Client(service.base, key="root") as root, Client(service.base, key="ann") as ann:
        listening = ann.listen("lobby", client="phone")
        published = await root.publish("lobby", "said", 1)
        assert published.subscribers == 0
        listening = ann.listen("lobby", after=published.position, client="phone")
        await root.publish("lobby", "said", 2)
        await anext(listening)
        assert await root.admin.subscribe("ann", ROOM) == UserSubscribed(sockets=1)
        found = [item async for item in root.admin.subscribers(ROOM)]
        assert found == [Subscriber(user="ann", client="phone", sockets=1, member=False)]
        assert [item async for item in root.admin.channels_of("ann")] == [
            UserChannel(name="lobby", sockets=1, member=False),
            UserChannel(name=ROOM, sockets=1, member=False),
        ]
        assert (await root.publish(ROOM, "said", 3)).subscribers == 1
        await root.publish("lobby", "said", 4)
        heard = await anext(listening)
        assert getattr(heard, "data", None) == 4
        assert await root.admin.unsubscribe("ann", ROOM) == 1
        assert await root.admin.disconnect("ann") == 1
        await listening.aclose()


async def test_a_presence_is_set_with_its_metadata(service: Service) -> None:
    """The status has any JSON that was set, and ends where it is ended."""
    async with Client(service.base, key="root") as client:
        found = await client.admin.set_presence("bob/é", "online", {"on": ["tv"]}, ttl=60.0)
        assert (found.user, found.status, found.metadata) == ("bob/é", "online", {"on": ["tv"]})
        assert await client.admin.status("bob/é") == found
        assert (await client.admin.set_presence("bob/é", "online", ttl=0.0)).status == "offline"
        with pytest.raises(InvalidRequest):
            await client.admin.set_presence("bob", "online", "x" * 2000)


async def test_a_plain_key_is_refused(service: Service) -> None:
    """The service's error is raised, also by the first step of a list."""
    async with Client(service.base, key="ann") as client:
        with pytest.raises(AccessDenied):
            await client.admin.subscribe("ann", ROOM)
        with pytest.raises(AccessDenied):
            await anext(aiter(client.admin.channels()))


async def test_a_request_is_deleted_once(service: Service) -> None:
    """The client says whether it was there; afterwards it is unknown."""
    async with Client(service.base, key="ann") as client:
        receipt = await client.submit(SubmitBody(messages=(ChatMessage(role="user", content="hi"),)))
        assert await client.delete(receipt.request_id)
        assert not await client.delete(receipt.request_id)
        with pytest.raises(NotFound):
            await client.state(receipt.request_id)


async def test_another_service_is_no_service() -> None:
    """An answer that is none of ours is an error of the configuration."""

    async def call(_method: str, _path: str, *, json: object = None) -> bytes:
        return b"<html>"

    with pytest.raises(ConfigurationError):
        await Admin(call).status("ann")
