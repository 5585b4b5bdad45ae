"""Tokens of an attacker: each is a 401 with a code, whatever it says, and costs no more than its size."""

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import AccessDenied, TidegateError
from service.auth.authenticator import LONGEST_CREDENTIAL, Authenticator
from service.auth.keys import KeyRing
from service.auth.token_config import TokenConfig
from service.auth.tokens import TokenVerifier
from tests.service.bench import Service, open_service
from tests.service.issuer import EC, RSA, SECRET, Issuer, claims, published, sign

CODES: Final = {"invalid_token", "token_expired", "unauthenticated"}
GOOD: Final = sign(claims())


def part(value: object) -> str:
    """Return a part of a token."""
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed(payload: object, secret: bytes = SECRET.encode(), **header: object) -> str:
    """Return a token that is signed whatever it says; with ``HS256`` unless the header says otherwise."""
    text = f"{part({'alg': 'HS256', **header})}.{part(payload)}"
    return f"{text}.{part(hmac.new(secret, text.encode(), hashlib.sha256).digest())}"


def said(text: str) -> bytes:
    """Return claims as a text, with what JSON encoders do not write."""
    return f'{{"sub":"ann","tenant":"acme",{text}}}'.encode()


def unsigned(**header: object) -> str:
    """Return a token without a signature."""
    return f"{part(header)}.{part(claims())}."


DEEP: Final = "[" * 2500 + "]" * 2500
HOSTILE: Final[dict[str, str]] = {
    "none": unsigned(alg="none"),
    "None": unsigned(alg="None"),
    "no algorithm": unsigned(),
    "algorithm list": unsigned(alg=["HS256"]),
    "algorithm null": unsigned(alg=None),
    "empty signature": GOOD.rpartition(".")[0] + ".",
    "no signature": GOOD.rpartition(".")[0],
    "wrong signature": GOOD[:-4] + "AAAA",
    "four parts": GOOD + ".x",
    "empty parts": "..",
    "padding": GOOD + "==",
    "white space": GOOD.replace(".", ". "),
    "public key as secret": signed(claims(), RSA.as_pem(private=False)),
    "jwk as secret": signed(claims(), json.dumps(published(RSA)).encode()),
    "empty secret": signed(claims(), b""),
    "HS256 by RS256": sign(claims(), "RS256"),
    "embedded jwk": sign(claims(), "RS256", jwk=published(RSA)),
    "crit": signed(claims(), crit=["b64"], b64=False),
    "crit unknown": signed(claims(), crit=["http://evil.example"]),
    "crit empty": signed(claims(), crit=[]),
    "kid traversal, no such key": sign(claims(), "ES256", kid="../../../../dev/null"),
    "kid query": sign(claims(), "ES256", kid="' OR 1=1 --"),
    "kid huge": signed(claims(), kid="k" * 4000),
    "kid number": signed(claims(), kid=7),
    "header twice": part(b'{"alg":"none","alg":"HS256"}') + f".{part(claims())}.{'A' * 43}",
    "header deep": part(b'{"alg":"HS256","x":' + b"[" * 1000 + b"]" * 1000 + b"}") + f".{part(claims())}.AAAA",
    "header no json": f"{part(b'x')}.{part(claims())}.AAAA",
    "header list": f"{part([])}.{part(claims())}.AAAA",
    "header not utf-8": f"{part(bytes([0xFF, 0xFE]))}.{part(claims())}.AAAA",
    "payload deep": signed(said(f'"exp":9999999999,"x":{DEEP}')),
    "payload list": signed([]),
    "payload empty": signed(b""),
    "payload not utf-8": signed(bytes([0xFF])),
    "payload a number": signed(b"9" * 3000),
    "claim twice": signed(said('"exp":1,"exp":9999999999')),
    "tenant twice": signed(said('"exp":9999999999,"tenant":"other"')),
    "exp text": signed(said('"exp":"9999999999"')),
    "exp NaN": signed(said('"exp":NaN')),
    "exp Infinity": signed(said('"exp":Infinity')),
    "exp 1e308": signed(said('"exp":1e308')),
    "exp 1e999": signed(said('"exp":1e999')),
    "exp huge": signed(said(f'"exp":{"9" * 2000}')),
    "exp negative": signed(said('"exp":-1')),
    "exp past": signed(said('"exp":1.5')),
    "exp null": signed(said('"exp":null')),
    "exp true": signed(said('"exp":true')),
    "exp list": signed(said('"exp":[9999999999]')),
    "no exp": signed(said('"iat":1')),
    "nbf future": signed(claims(nbf=9_999_999_999)),
    "nbf text": signed(claims(nbf="0")),
    "nbf NaN": signed(said('"exp":9999999999,"nbf":NaN')),
    "audiences": signed(claims(aud=["a"] * 1000)),
    "audience objects": signed(claims(aud=[{}])),
    "sub huge": signed(claims(sub="s" * 300)),
    "sub object": signed(claims(sub={"a": 1})),
    "tenant of a key": signed(claims(tenant="~0123456789abcdef")),
    "tenant with a line": signed(claims(tenant="a\nb")),
    "tenant unicode": signed(claims(tenant="acm\u0435")),
    "scopes a text": signed(claims(scopes="admin")),
    "models many": signed(claims(models=["*"] * 65)),
    "channels odd": signed(claims(channels=[{"pattern": "*", "rights": ["all"]}])),
    "too long": GOOD + "A" * LONGEST_CREDENTIAL,
    "dots": "." * 5000,
}


@pytest.fixture(scope="module")
def verifier() -> TokenVerifier:
    """A verifier of the shared secret."""
    return TokenVerifier(TokenConfig(secret=SECRET.encode()))


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service with keys and tokens of both kinds."""
    async with Issuer.open() as issuer:
        issuer.publish(published(EC, "ec"), published(RSA, "rsa"))
        async with open_service(jwt_secret=SECRET, jwt_jwks_url=issuer.url, fetch_allowed=("127.0.0.1",)) as running:
            yield running
        assert issuer.asked <= 1


async def test_each_is_a_401_with_a_code(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    """On HTTP; nothing is logged as an error. RS256 and ES256 with a published key are good: they are no attack."""
    good_elsewhere = {"HS256 by RS256"}  # signed by the published key
    for name, token in HOSTILE.items():
        if len(token) > LONGEST_CREDENTIAL:
            continue  # no header of this length gets so far
        response = await service.get("/v1/models", Authorization=f"Bearer {token}")
        if name in good_elsewhere:
            assert response.status == 200, name
            continue
        assert response.status == 401, name
        assert (await response.json())["error"]["code"] in CODES, name
    assert [record for record in caplog.records if record.levelname in {"ERROR", "CRITICAL"}] == []


@pytest.mark.parametrize("name", HOSTILE)
async def test_none_is_accepted_with_the_secret_alone(verifier: TokenVerifier, name: str) -> None:
    """Each is refused with a code, on every surface: the socket's `authenticate` calls the same."""
    auth = Authenticator(KeyRing(), verifier)
    with pytest.raises(AccessDenied) as caught:
        await auth.authenticate(HOSTILE[name])
    assert caught.value.code in CODES
    assert len(caught.value.detail) < 300


async def test_a_header_chooses_no_address_and_no_key() -> None:
    """`jku`, `x5u`, `jwk` and `x5c` are not looked at: nothing is fetched, and the configured keys alone count."""
    async with Issuer.open() as attacker:
        attacker.publish(published(EC, "evil"))
        tokens = TokenVerifier(TokenConfig(secret=SECRET.encode()))
        auth = Authenticator(KeyRing(), tokens)
        for header in ({"jku": attacker.url}, {"x5u": attacker.url}, {"jwk": published(EC)}, {"x5c": ["AAAA"]}):
            with pytest.raises(AccessDenied):
                await auth.authenticate(sign(claims(), "ES256", kid="evil", **header))
            assert (await auth.authenticate(signed(claims(), **header))).subject == "ann"
        assert attacker.asked == 0


async def test_zip_inflates_nothing(verifier: TokenVerifier) -> None:
    """`zip` is for encrypted tokens: the payload is taken as it is."""
    assert (await Authenticator(KeyRing(), verifier).authenticate(signed(claims(), zip="DEF"))).subject == "ann"


async def test_what_is_too_long_is_not_hashed_or_parsed(
    monkeypatch: pytest.MonkeyPatch, verifier: TokenVerifier
) -> None:
    """The size is looked at first."""
    keys = KeyRing()
    monkeypatch.setattr(KeyRing, "digest", lambda *_: pytest.fail("it was hashed"))
    with pytest.raises(AccessDenied):
        await Authenticator(keys, verifier).authenticate("a.b." + "c" * LONGEST_CREDENTIAL)


_json: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_names: Final = st.sampled_from(
    ["alg", "kid", "crit", "exp", "nbf", "sub", "iss", "aud", "tenant", "scope", "scopes", "models", "channels"]
)


@given(header=st.dictionaries(_names, _json, max_size=5), payload=st.dictionaries(_names, _json, max_size=8))
async def test_whatever_is_said_is_refused_with_a_code_or_is_a_caller(
    verifier: TokenVerifier, header: dict[str, Any], payload: dict[str, Any]
) -> None:
    """A token that the issuer has signed, with anything in it."""
    try:
        found = await Authenticator(KeyRing(), verifier).authenticate(signed(claims() | payload, **header))
    except TidegateError as error:
        assert error.code in CODES  # noqa: PT017 - or it is a caller
    else:
        assert found.tenant
        assert found.expires is not None


@given(text=st.text(max_size=200) | st.text("AQgw.-_=", max_size=400))
async def test_whatever_is_sent_is_refused_with_a_code(verifier: TokenVerifier, text: str) -> None:
    """Any text."""
    with pytest.raises(TidegateError) as caught:
        await Authenticator(KeyRing(), verifier).authenticate(text)
    assert caught.value.code in CODES
