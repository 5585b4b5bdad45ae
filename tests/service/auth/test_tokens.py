"""Signed tokens: what is verified, and the permissions in their claims."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import AccessDenied, TryAgainLater
from protocol.identity import ChannelGrant, Principal
from service.auth.authenticator import Authenticator
from service.auth.keys import KeyRing, digest_of, tenant_of
from service.auth.token_config import TokenConfig
from service.auth.tokens import CACHE_TTL, TokenVerifier
from tests.service.issuer import EC, KEYS, RSA, SECRET, SHARED, Issuer, claims, published, sign


class Clock:
    """Unix seconds that the test sets."""

    def __init__(self) -> None:
        self.now = float(int(time.time()))

    def __call__(self) -> float:
        return self.now


def shared(clock: Callable[[], float] = time.time, **fields: Any) -> TokenVerifier:  # noqa: ANN401 - of the configuration
    """Return a verifier with the shared secret."""
    return TokenVerifier(TokenConfig(secret=SECRET.encode(), **fields), clock=clock)


async def verify(tokens: TokenVerifier, token: str) -> Principal:
    """Return who holds ``token``."""
    return await tokens.verify(token, digest_of(token))


async def refusal(tokens: TokenVerifier, token: str) -> AccessDenied:
    """Return why ``token`` is refused."""
    with pytest.raises(AccessDenied) as caught:
        await verify(tokens, token)
    return caught.value


@pytest.mark.parametrize("algorithm", KEYS)
async def test_each_algorithm_has_its_key(algorithm: str) -> None:
    """HS256 is verified by the secret, the others by the published key of that name."""
    async with Issuer.open() as issuer:
        issuer.publish(*(published(key, name) for name, key in KEYS.items() if key is not SHARED))
        tokens = shared(jwks_url=issuer.url, fetch_allowed=("127.0.0.1",))
        assert (await verify(tokens, sign(claims(), algorithm, kid=algorithm))).tenant == "acme"
        await tokens.close()


async def test_claims_say_what_the_holder_may_do() -> None:
    """Unknown scopes are ignored; a pattern alone grants every right."""
    token = sign(
        claims(
            scope="openid channels",
            scopes=["admin"],
            models=["fast", "gpt-*"],
            channels=["user:ann", {"pattern": "room:*", "rights": ["subscribe"]}],
            email="ann@example.com",
            budgets=[{"per": "day", "usd": 1000}],
        )
    )
    found = await verify(shared(), token)
    assert found == Principal(
        tenant="acme",
        subject="ann",
        scopes=("channels", "admin"),
        models=("fast", "gpt-*"),
        channels=(ChannelGrant("user:ann"), ChannelGrant("room:*", ("subscribe",))),
        expires=found.expires,
        credential=found.credential,
    )
    assert found.credential


async def test_what_a_token_does_not_say() -> None:
    """The defaults: all models, the default scopes, no channel, no account, a tenant of its own."""
    found = await verify(shared(), sign(claims(tenant=None, iss="https://issuer.example")))
    assert (found.scopes, found.models) == (("inference", "channels"), ("*",))
    assert (found.channels, found.account) == ((), None)
    assert found.tenant == tenant_of("token", "https://issuer.example", "ann")
    assert found.tenant != (await verify(shared(), sign(claims(tenant=None, iss="other")))).tenant
    assert (await verify(shared(), sign(claims(scope="")))).scopes == ()


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"exp": None}, "missing required field `exp`"),
        ({"exp": "soon"}, "Expected `float`"),
        ({"exp": True}, "Expected `float`"),
        ({"exp": 10**30}, "Expected `float` <="),
        ({"nbf": 10**11}, "not valid yet"),
        ({"sub": None, "tenant": None}, "neither `tenant` nor `sub`"),
        ({"sub": 7}, "Expected `str`"),
        ({"tenant": ""}, "$.tenant"),
        ({"tenant": "~0123456789abcdef"}, "$.tenant"),
        ({"tenant": ["acme"]}, "$.tenant"),
        ({"aud": "somebody"}, "somebody else"),
        ({"aud": ["somebody"]}, "somebody else"),
        ({"aud": {"a": 1}}, "$.aud"),
        ({"scope": ["inference"]}, "$.scope"),
        ({"models": "gpt-*"}, "$.models"),
        ({"models": ["m"] * 65}, "$.models"),
        ({"models": ["m" * 257]}, "$.models"),
        ({"channels": [{"pattern": "a", "rights": ["write"]}]}, "$.channels"),
        ({"channels": [7]}, "$.channels"),
    ],
)
async def test_a_claim_that_cannot_be(said: dict[str, Any], reason: str) -> None:
    """An invalid token is refused with the reason."""
    error = await refusal(shared(), sign(claims(**said)))
    assert error.code == "invalid_token"
    assert reason in error.detail


async def test_who_made_it_and_for_whom_must_be_as_configured() -> None:
    """One of several audiences suffices; a token without the claims is refused."""
    tokens = shared(issuer="https://issuer.example", audience="tidegate")
    good = {"iss": "https://issuer.example", "aud": ["other", "tidegate"]}
    assert (await verify(tokens, sign(claims(**good)))).subject == "ann"
    wrongs: list[dict[str, Any]] = [
        {"iss": "https://issuer.example.evil"},
        {"iss": None},
        {"aud": "tidegate2"},
        {"aud": []},
        {"aud": None},
    ]
    for wrong in wrongs:
        assert (await refusal(tokens, sign(claims(**{**good, **wrong})))).code == "invalid_token"


async def test_a_token_ends() -> None:
    """An expired token is refused, with the leeway, also from the cache."""
    clock = Clock()
    tokens = shared(clock=clock, leeway=30)
    token = sign(claims(exp=clock.now + 60))
    found = await verify(tokens, token)
    assert found.expires == clock.now + 90
    clock.now += 89
    assert tokens.known(digest_of(token)) is found
    clock.now += 1
    assert tokens.known(digest_of(token)) is None
    assert (await refusal(tokens, token)).code == "token_expired"


async def test_a_token_may_begin_a_little_early() -> None:
    """A token is not valid before ``nbf``, with the leeway."""
    clock = Clock()
    tokens = shared(clock=clock, leeway=30)
    assert (await verify(tokens, sign(claims(nbf=clock.now + 30)))).subject == "ann"
    assert "not valid yet" in (await refusal(tokens, sign(claims(nbf=clock.now + 31)))).detail


async def test_a_good_token_is_remembered_for_a_short_time() -> None:
    """A cached token is verified again after the cache's TTL: its key may have been withdrawn."""
    clock = Clock()
    tokens = shared(clock=clock)
    token = sign(claims(exp=clock.now + 86_400))
    await verify(tokens, token)
    assert tokens.known(digest_of(token)) is not None
    clock.now += CACHE_TTL
    assert tokens.known(digest_of(token)) is None


async def test_a_public_key_is_no_secret() -> None:
    """The known attacks on the algorithm's choice are refused."""
    async with Issuer.open() as issuer:
        issuer.publish(published(RSA, "rsa"), published(EC, "ec"), published(SHARED, "oct", k=SHARED.as_dict()["k"]))
        tokens = TokenVerifier(TokenConfig(jwks_url=issuer.url, fetch_allowed=("127.0.0.1",)))
        unsigned = ".".join((_part({"alg": "none"}), _part(claims()), ""))
        public = json.dumps(published(RSA)).encode()
        forged = [
            unsigned,
            unsigned.replace(_part({"alg": "none"}), _part({"alg": "NONE"})),
            _forge(public),
            _forge(RSA.as_pem(private=False)),
            sign(claims(), "HS256", kid="oct"),
            sign(claims(), "ES256", kid="rsa"),
            sign(claims(), "RS256", kid="ec"),
            sign(claims(), "RS256", kid="rsa", jwk=published(RSA))[:-8] + "AAAAAAAA",
            sign(claims(), "PS256", RSA, kid="rsa"),
        ]
        for token in forged:
            assert (await refusal(tokens, token)).code == "invalid_token", token
        await tokens.close()


async def test_a_token_of_another_algorithm_than_is_configured() -> None:
    """With only the secret, other algorithms are refused, HS512 included."""
    for token in (sign(claims(), "RS256"), sign(claims(), "HS512", SHARED), sign(claims(), crit=["kid"], kid="k")):
        assert (await refusal(shared(), token)).code == "invalid_token"


async def test_where_keys_cannot_be_had_nobody_is_refused() -> None:
    """Without keys a token can't be verified: 503, and the same token is accepted once the keys are fetched."""
    tokens = TokenVerifier(TokenConfig(jwks_url="http://127.0.0.1:1/jwks.json", fetch_allowed=("127.0.0.1",)))
    with pytest.raises(TryAgainLater) as caught:
        await verify(tokens, sign(claims(), "ES256", kid="k"))
    assert (caught.value.code, caught.value.problem.status) == ("auth_unavailable", 503)
    await tokens.close()


async def test_keys_and_tokens_live_side_by_side() -> None:
    """A key in the form of a token is still a key; tokens work without any configured key."""
    auth = Authenticator(KeyRing(["a.b.c", "one"]), shared())
    assert (await auth.authenticate("a.b.c")).tenant == tenant_of("a.b.c")
    assert (await auth.authenticate("one")).tenant == tenant_of("one")
    token = sign(claims())
    assert await auth.authenticate(token) is await auth.authenticate(token)
    assert Authenticator(KeyRing(), shared()).required
    for unknown, code in (("d.e.f", "invalid_token"), ("two", "unauthenticated")):
        with pytest.raises(AccessDenied) as caught:
            await auth.authenticate(unknown)
        assert caught.value.code == code


GOOD = sign({"sub": "ann", "exp": 4_000_000_000})


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60).map(lambda text: f"{text}.{text}.{text}"),
        st.binary(max_size=60).map(sign),
        st.recursive(
            st.none() | st.booleans() | st.floats(allow_nan=True) | st.text(max_size=8),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
            max_leaves=8,
        ).map(sign),
        st.tuples(st.integers(0, len(GOOD) - 2), st.characters()).map(
            lambda change: GOOD[: change[0]] + change[1] + GOOD[change[0] + 1 :]
        ),
        st.dictionaries(st.sampled_from(["alg", "kid", "crit", "b64", "typ", "zip"]), st.text(max_size=8)).map(
            lambda header: f"{_part(header)}.{_part({'sub': 'ann', 'exp': 4_000_000_000})}.AAAA"
        ),
        st.integers(1, 5000).map(lambda depth: sign(b"[" * depth)),
    )
)
async def test_whatever_is_sent_is_refused_by_name(token: str) -> None:
    """Random text never authenticates, and never causes an unnamed error."""
    if token == GOOD:
        return
    assert (await refusal(shared(), token)).code in {"invalid_token", "token_expired"}


def _part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def _forge(public: bytes) -> str:
    """Return a token that is signed with a public value as the secret."""
    signed = f"{_part({'alg': 'HS256', 'kid': 'rsa'})}.{_part(claims())}"
    signature = hmac.digest(public, signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
