"""Who may call."""

import pytest
from aiohttp.test_utils import make_mocked_request

from protocol.errors import AccessDenied
from service.auth import Authenticator, credential, tenant_of


def test_without_keys_everybody_is_one_tenant() -> None:
    """Where no key is configured, whatever a caller sends is ignored."""
    auth = Authenticator()
    assert not auth.required
    assert auth.authenticate("") == auth.authenticate("whatever") == ""


def test_each_key_is_a_tenant_of_its_own() -> None:
    """A key names its tenant, the same one in every process."""
    auth, other = Authenticator(["one", "two"]), Authenticator(["one"])
    assert auth.required
    assert auth.authenticate("one") == other.authenticate("one") == tenant_of("one")
    assert auth.authenticate("one") != auth.authenticate("two")
    assert "one" not in auth.authenticate("one")


@pytest.mark.parametrize("key", ["", "three", "on", "one ", "x" * 10_000, "\x00", "clé"])
def test_any_other_key_is_refused(key: str) -> None:
    """An unknown, empty or absurd key is no key."""
    with pytest.raises(AccessDenied) as caught:
        Authenticator(["one", "two"]).authenticate(key)
    assert caught.value.code == "unauthenticated"


def test_keys_are_not_kept() -> None:
    """Neither a key nor an unkeyed digest of it can be found in what the authenticator holds."""
    auth = Authenticator(["one"])
    again = Authenticator(["one"])
    assert auth._tenants.keys() != again._tenants.keys()


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
    """Both spellings that the vendors' clients use are read."""
    assert credential(make_mocked_request("GET", "/", headers=headers)) == key
