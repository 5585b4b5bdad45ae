"""JWKS: when keys are fetched, and what happens when they can't be."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from protocol.errors import AccessDenied, TryAgainLater
from service.auth.jwks import INTERVAL, MAX_BYTES, STALE, TTL, PublishedKeys, usable_keys
from tests.service.issuer import EC, ED, RSA, SHARED, Issuer, published


class Clock:
    """Seconds that the test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    """A real server, with one key to begin with."""
    async with Issuer.open() as issuer:
        issuer.publish(published(EC, "a"))
        yield issuer


@pytest.fixture
def clock() -> Clock:
    """The clock of the key cache."""
    return Clock()


@pytest.fixture
async def keys(issuer: Issuer, clock: Clock) -> AsyncIterator[PublishedKeys]:
    """The cache of the server's keys."""
    keys = PublishedKeys(issuer.url, allowed=("127.0.0.1",), clock=clock)
    yield keys
    await keys.close()


async def unknown(keys: PublishedKeys, name: str = "nobody") -> str:
    """Return the error code for a key's name."""
    with pytest.raises((AccessDenied, TryAgainLater)) as caught:
        await keys.find("ES256", name)
    return str(caught.value.code)


async def test_they_are_asked_for_once(keys: PublishedKeys, issuer: Issuer) -> None:
    """Many tokens at once cause one fetch."""
    found = await asyncio.gather(*(keys.find("ES256", "a") for _ in range(50)))
    assert len(set(map(id, found))) == 1
    await keys.find("ES256", "a")
    assert issuer.asked == 1


async def test_one_who_leaves_does_not_end_the_call(keys: PublishedKeys, issuer: Issuer) -> None:
    """A cancelled caller does not cancel the fetch of the others."""
    leaving = asyncio.ensure_future(keys.find("ES256", "a"))
    staying = asyncio.ensure_future(keys.find("ES256", "a"))
    await asyncio.sleep(0)
    leaving.cancel()
    await staying
    assert leaving.cancelled()
    assert issuer.asked == 1


async def test_a_new_key_is_found_when_a_token_names_it(keys: PublishedKeys, issuer: Issuer, clock: Clock) -> None:
    """An unknown key name causes a new fetch: the issuer may change its keys at any time."""
    await keys.find("ES256", "a")
    issuer.publish(published(EC, "a"), published(RSA, "b"))
    clock.now += INTERVAL
    assert await keys.find("RS256", "b") is not None
    assert issuer.asked == 2


async def test_made_up_names_do_not_become_calls(keys: PublishedKeys, issuer: Issuer, clock: Clock) -> None:
    """At most one fetch an interval, whatever tokens arrive."""
    await keys.find("ES256", "a")
    assert {await unknown(keys, f"made-up-{n}") for n in range(20)} == {"invalid_token"}
    assert issuer.asked == 1
    clock.now += INTERVAL
    assert {await unknown(keys, f"made-up-{n}") for n in range(20)} == {"invalid_token"}
    assert issuer.asked == 2


async def test_a_token_without_a_name_takes_the_only_key(keys: PublishedKeys, issuer: Issuer, clock: Clock) -> None:
    """A token without a key name is refused where its algorithm has two keys."""
    assert await keys.find("ES256", "") is await keys.find("ES256", "a")
    issuer.publish(published(EC, "a"), published(EC, "b"))
    clock.now += TTL + 1
    await keys.find("ES256", "a")
    await _settled(keys)
    assert await unknown(keys, "") == "invalid_token"


async def test_old_keys_are_replaced_without_anybody_waiting(keys: PublishedKeys, issuer: Issuer, clock: Clock) -> None:
    """After the TTL the first caller gets the old keys, the next ones the new keys."""
    old = await keys.find("ES256", "a")
    clock.now += TTL + 1
    assert await keys.find("ES256", "a") is old
    await _settled(keys)
    assert issuer.asked == 2
    issuer.publish(published(RSA, "b"))
    clock.now += TTL + 1
    await keys.find("ES256", "a")
    await _settled(keys)
    assert await unknown(keys, "a") == "invalid_token"


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=500),
        web.Response(status=302),
        web.Response(text="<html>"),
        web.Response(text='{"keys": []}'),
        web.Response(text='{"keys": [1]}'),
        web.Response(body=b" " * (MAX_BYTES + 1)),
    ],
)
async def test_what_is_no_document_leaves_the_old_keys(
    keys: PublishedKeys, issuer: Issuer, clock: Clock, answer: web.Response
) -> None:
    """Old keys are used for a day; the log has the reason. An unknown key may be a new one: 503, not 401."""
    old = await keys.find("ES256", "a")
    issuer.answer = answer
    clock.now += TTL + 1
    with capture_logs() as logs:
        assert await keys.find("ES256", "a") is old
        await _settled(keys)
    assert [line["event"] for line in logs] == ["jwks_unavailable"]
    assert await unknown(keys) == "auth_unavailable"
    clock.now += STALE
    assert await unknown(keys, "a") == "auth_unavailable"
    issuer.publish(published(EC, "a"))
    clock.now += INTERVAL
    assert await keys.find("ES256", "a") is not None


async def test_an_outage_is_not_hammered(issuer: Issuer, clock: Clock) -> None:
    """Without any keys, one fetch an interval is tried; callers get a retry delay."""
    issuer.answer = web.Response(status=500)
    keys = PublishedKeys(issuer.url, allowed=("127.0.0.1",), clock=clock)
    for _ in range(20):
        with pytest.raises(TryAgainLater) as caught:
            await keys.find("ES256", "a")
        assert caught.value.retry_after == INTERVAL
    assert issuer.asked == 1
    issuer.publish(published(EC, "a"))
    clock.now += INTERVAL
    assert await keys.find("ES256", "a") is not None
    await keys.close()


def test_only_keys_that_verify_are_used() -> None:
    """Keys of other types, for other uses, malformed or symmetric are left out; private parts are dropped."""
    document: dict[str, Any] = {
        "keys": [
            published(RSA, "rsa", use="sig", alg="RS256"),
            EC.as_dict(private=True) | {"kid": "ec"},
            published(ED, "ed", alg="Ed25519"),
            published(RSA, "encrypts", use="enc"),
            published(RSA, "other", alg="RS512"),
            published(RSA, "list", alg=["RS256"]),
            published(SHARED, "secret", k="c2VjcmV0"),
            {"kty": "RSA", "kid": "half"},
            {"kty": "RSA", "kid": "odd", "n": 7, "e": []},
            {"kty": "EC", "crv": "P-256", "kid": "bad", "x": "a", "y": "b"},
            {"kty": ["RSA"], "kid": "kind"},
            {},
        ]
    }
    found = usable_keys(msgspec.json.encode(document))
    assert set(found) == {("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")}
    assert not found["ES256", "ec"].is_private


async def _settled(keys: PublishedKeys) -> None:
    call = keys._fetching
    assert call is not None
    await call
