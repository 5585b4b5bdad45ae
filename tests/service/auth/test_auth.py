"""Authentication of callers."""

import asyncio

import pytest
from aiohttp.test_utils import make_mocked_request
from structlog.testing import capture_logs

from protocol.errors import AccessDenied, Overloaded, TidegateError, TryAgainLater
from protocol.identity import ANONYMOUS, Principal
from service.auth.authenticator import Authenticator, credential
from service.auth.keys import KeyRing, digest_of, tenant_of


class Database:
    """A key store elsewhere, whose answers the test sets."""

    def __init__(self, found: Principal | Exception | None) -> None:
        self.required = True
        self._found = found

    def digest(self, key: str) -> bytes:
        return digest_of(key)

    def known(self, _digest: bytes) -> Principal | None:
        return None

    async def find(self, _digest: bytes) -> Principal | None:
        await asyncio.sleep(0)
        if isinstance(self._found, Exception):
            raise self._found
        return self._found


async def test_without_keys_and_tokens_everybody_is_anybody() -> None:
    """Without any configuration, credentials are ignored."""
    auth = Authenticator(KeyRing())
    assert not auth.required
    assert await auth.authenticate("") is await auth.authenticate("whatever") is ANONYMOUS


async def test_each_key_of_the_settings_is_a_tenant_of_its_own() -> None:
    """A key determines its tenant, the same in every process."""
    auth, other = Authenticator(KeyRing(["one", "two"])), Authenticator(KeyRing(["one"], pepper=b"p"))
    assert auth.required
    found, again = await auth.authenticate("one"), await other.authenticate("one")
    assert found.tenant == again.tenant == tenant_of("one")
    assert found == Principal(tenant=tenant_of("one"), credential=digest_of("one"))
    assert (await auth.authenticate("one")).tenant != (await auth.authenticate("two")).tenant


@pytest.mark.parametrize("key", ["", "three", "on", "one ", "x" * 10_000, "\x00", "clé", "\udcff", "a.b.c"])
async def test_any_other_key_is_refused(key: str) -> None:
    """An unknown, empty or malformed key is refused."""
    with pytest.raises(AccessDenied) as caught:
        await Authenticator(KeyRing(["one", "two"])).authenticate(key)
    assert caught.value.code == "unauthenticated"
    assert caught.value.detail == ("This key is not known" if key else "No key was sent")


async def test_keys_may_be_kept_elsewhere() -> None:
    """A key that is not cached is looked up, and may still be unknown."""
    someone = Principal(tenant="acme")
    assert (await Authenticator(Database(someone)).authenticate("key")).tenant == someone.tenant
    with pytest.raises(AccessDenied):
        await Authenticator(Database(None)).authenticate("key")


@pytest.mark.parametrize("fault", [OSError("down"), TimeoutError(), RuntimeError("pool is closed")])
async def test_where_keys_cannot_be_looked_up_nobody_is_called_a_stranger(fault: Exception) -> None:
    """A failing key store is a 503, never a 401; the log has the cause."""
    with capture_logs() as logs, pytest.raises(TryAgainLater) as caught:
        await Authenticator(Database(fault)).authenticate("key")
    assert (caught.value.code, caught.value.problem.status) == ("auth_unavailable", 503)
    assert [line["event"] for line in logs] == ["auth_unavailable"]


async def test_a_failure_with_a_name_stays_what_it_is() -> None:
    """A named error of the key store is passed on."""
    with pytest.raises(TidegateError) as caught:
        await Authenticator(Database(Overloaded())).authenticate("key")
    assert caught.value.code == "overloaded"


async def test_a_ticket_is_for_one_use() -> None:
    """A ticket authenticates its holder once."""
    auth, someone = Authenticator(KeyRing(["one"])), Principal(tenant="acme")
    ticket, _ = auth.issue_ticket(someone)
    assert auth.authenticate_ticket(ticket) is someone
    with pytest.raises(AccessDenied) as caught:
        auth.authenticate_ticket(ticket)
    assert caught.value.code == "invalid_ticket"
    await auth.close()


@pytest.mark.parametrize(
    ("headers", "key"),
    [
        ({"Authorization": "Bearer one"}, "one"),
        ({"authorization": "bearer  one "}, "one"),
        ({"x-api-key": "one"}, "one"),
        ({"Authorization": "Basic b25l", "x-api-key": "one"}, "one"),
        ({"Authorization": "Basic b25l"}, ""),
        ({"Authorization": "Bearer"}, ""),
        ({}, ""),
    ],
)
def test_a_key_comes_as_bearer_or_as_x_api_key(headers: dict[str, str], key: str) -> None:
    """Both headers that the vendors' clients use are read."""
    assert credential(make_mocked_request("GET", "/", headers=headers)) == key
