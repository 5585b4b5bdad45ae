"""Permissions over HTTP: keys of the file, tokens and tickets against the whole service."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import anthropic
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from actors.testing import ScriptedUpstream, say
from protocol.budgets import Account, Budget
from protocol.errors import PROBLEMS, ConfigurationError
from protocol.identity import ChannelGrant, Principal
from service.auth.keys import digest_of
from service.config.settings import load_settings
from service.container import open_container
from tests.service.bench import Service, answered, open_service
from tests.service.config.test_routes_file import write
from tests.service.issuer import EC, SECRET, Issuer, claims, published, sign

Start = Callable[..., Awaitable[Any]]

FILE = f"""
[keys.some]
hash = "{digest_of("some").hex()}"
tenant = "acme"
scopes = ["inference"]
models = ["m", "text-*"]

[keys.own]
hash = "{digest_of("own").hex()}"
tenant = "acme"
models = ["gpt-*"]
default = "m"
budgets = [{{ per = "day", tokens = 1_000_000 }}]

[keys.boss]
hash = "{digest_of("boss").hex()}"
tenant = "acme"
scopes = ["inference", "channels", "admin"]

[keys.poor]
hash = "{digest_of("poor").hex()}"
budgets = [{{ per = "month", tokens = 1 }}]

[keys.chat]
hash = "{digest_of("chat").hex()}"
scopes = ["channels"]

[keys.old]
hash = "{digest_of("old").hex()}"
disabled = true
"""
MESSAGES: Any = [{"role": "user", "content": "hi"}]
PLACES: dict[str, dict[str, Any]] = {
    "/api/requests": {"messages": MESSAGES},
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/responses": {"input": "hi"},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 9},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
    "/v1/embeddings": {"input": "hi"},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with keys of every kind."""
    path = tmp_path / "tidegate.toml"
    path.write_text(FILE, encoding="utf-8")
    return path


@pytest.fixture
async def service(file: Path) -> AsyncIterator[Service]:
    """A service with these keys, tokens, and a gateway that the test scripts."""
    async with open_service(routes_file=file, jwt_secret=SECRET) as running:
        yield running


def bearer(key: str) -> dict[str, str]:
    """Return the header with a key."""
    return {"Authorization": f"Bearer {key}"}


@pytest.mark.parametrize("place", PLACES)
async def test_a_model_that_is_not_allowed(service: Service, place: str) -> None:
    """403 in the route's dialect, whether or not the model exists; without an upstream call."""
    for model in ("default", "n", "unknown", "openai/m"):
        response = await service.post(place, PLACES[place] | {"model": model}, authorization="Bearer some")
        body = await response.json()
        assert response.status == 403, place
        if place.startswith("/v1/messages"):
            assert (body["error"]["type"], body["error"]["details"]) == (
                "permission_error",
                {"error_code": "model_not_allowed"},
            )
        elif place.startswith("/v1/"):
            assert (body["error"]["code"], body["error"]["param"]) == ("model_not_allowed", "model")
        else:
            assert (body["code"], body["errors"][0]["path"]) == ("model_not_allowed", "$.model")
        assert model in str(body)
    assert service.calls.empty()


async def test_a_model_that_is_allowed_is_asked(service: Service) -> None:
    """Patterns match the requested name."""
    ask = service.post(
        "/v1/chat/completions", PLACES["/v1/chat/completions"] | {"model": "m"}, authorization="Bearer some"
    )
    response, call = await answered(service, ask, "Hello")
    assert response.status == 200
    assert call.complete.request.model == "m"
    assert call.complete.tenant == "acme"


async def test_a_key_may_have_a_default_of_its_own(service: Service) -> None:
    """A key's `default` is another model, in every dialect, even one that it may not name; its account pays."""
    for place in ("/api/requests", "/v1/chat/completions", "/v1/responses", "/v1/messages"):
        body = PLACES[place] | {"model": "default", "temperature": 0.5}
        body = body if place != "/api/requests" else PLACES[place] | {"model": "default"}
        response, call = await answered(service, service.post(place, body, authorization="Bearer own"), "Hello")
        assert response.status < 300, place
        assert call.complete.request.model == "m"
        assert call.complete.account == Account("own", (Budget(per="day", tokens=1_000_000),))
    counted = await service.post(
        "/v1/messages/count_tokens", PLACES["/v1/messages"] | {"model": "default"}, authorization="Bearer own"
    )
    assert counted.status == 200
    refused = await service.post("/api/requests", PLACES["/api/requests"] | {"model": "m"}, authorization="Bearer own")
    assert refused.status == 403
    embedded = PLACES["/v1/embeddings"] | {"model": "default"}
    assert (await service.post("/v1/embeddings", embedded, authorization="Bearer own")).status == 403


@pytest.mark.parametrize(("key", "models"), [("some", ["m"]), ("own", ["default"]), ("boss", ["default", "m"])])
async def test_models_are_listed_for_those_who_may_ask_for_them(service: Service, key: str, models: list[str]) -> None:
    """The list has only allowed models."""
    listed = await (await service.get("/v1/models", authorization=f"Bearer {key}")).json()
    assert [model["id"] for model in listed["data"] if "/" not in model["id"]] == models


async def test_a_socket_is_no_way_around(service: Service) -> None:
    """A model that is not allowed is refused in a frame; without `inference` no request command is allowed."""
    async with service.client.ws_connect(f"{service.base}/ws", headers=bearer("some")) as socket:
        await socket.send_json({"type": "submit", "id": 1, "messages": MESSAGES, "model": "n"})
        frame = await socket.receive_json()
        assert (frame["id"], frame["error"]["code"]) == (1, "model_not_allowed")
    async with service.client.ws_connect(f"{service.base}/ws", headers=bearer("chat")) as socket:
        said: list[dict[str, Any]] = [{"type": kind, "requestId": "r"} for kind in ("subscribe", "cancel")]
        for number, words in enumerate([{"type": "submit", "messages": MESSAGES}, *said]):
            await socket.send_json({"id": number, **words})
            frame = await socket.receive_json()
            assert (frame["id"], frame["error"]["code"]) == (number, "forbidden")


async def test_scopes_open_parts_of_the_service(service: Service) -> None:
    """Without `inference` no model route is allowed; health is public, and unknown paths are 404 for all."""
    for place, body in PLACES.items():
        response = await service.post(place, body | {"model": "m"}, authorization="Bearer chat")
        assert response.status == 403, place
    assert (
        "`inference`"
        in (await (await service.get("/api/requests/req_1", authorization="Bearer chat")).json())["detail"]
    )
    assert (await service.get("/v1/models", authorization="Bearer chat")).status == 403
    assert (await service.get("/api/health", authorization="Bearer chat")).status == 200
    assert (await service.get("/nowhere", authorization="Bearer chat")).status == 404


async def test_tenants_are_kept_apart(service: Service) -> None:
    """Keys and tokens of one tenant share requests; others don't find them."""
    ask = service.post("/api/requests", PLACES["/api/requests"] | {"model": "m"}, authorization="Bearer some")
    response, _ = await answered(service, ask, "Hello")
    address = (await response.json())["links"]["self"]
    for credential, status in (
        ("own", 200),
        ("boss", 200),
        (sign(claims()), 200),
        (sign(claims(tenant="other")), 404),
        (sign(claims(tenant=None)), 404),
    ):
        assert (await service.get(address, authorization=f"Bearer {credential}")).status == status
        cancelled = await service.post(f"{address}/cancel", None, authorization=f"Bearer {credential}")
        assert cancelled.status == (202 if status == 200 else 404)


async def test_a_disabled_key_is_none(service: Service) -> None:
    """A disabled key is refused like an unknown one."""
    response = await service.get("/v1/models", authorization="Bearer old")
    assert (response.status, (await response.json())["error"]["code"]) == (401, "unauthenticated")


async def test_the_sdks_raise_what_their_users_expect(service: Service) -> None:
    """A missing permission and an expired token raise the vendors' exceptions, without a retry."""
    async with (
        openai.AsyncOpenAI(base_url=f"{service.base}/v1", api_key="some", max_retries=2) as client,
        anthropic.AsyncAnthropic(base_url=service.base, api_key="some", max_retries=2) as other,
    ):
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await client.chat.completions.create(model="n", messages=MESSAGES)
        assert (refused.value.code, refused.value.param) == ("model_not_allowed", "model")
        with pytest.raises(openai.PermissionDeniedError):
            await client.embeddings.create(model="n", input="hi")
        with pytest.raises(anthropic.PermissionDeniedError):
            await other.messages.create(model="n", messages=MESSAGES, max_tokens=9)
        assert [model.id async for model in client.models.list()] == ["m"]
    ended = sign(claims(exp=1_000_000_000))
    async with openai.AsyncOpenAI(base_url=f"{service.base}/v1", api_key=ended, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as unknown:
            await client.models.list()
        assert unknown.value.code == "token_expired"


@pytest.mark.parametrize("place", ["/api/requests", "/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_a_budget_is_the_keys(start: Start, upstream: ScriptedUpstream, file: Path, place: str) -> None:
    """A used-up budget refuses its key, in every dialect, and no other; without an upstream call."""
    running = await start(routes_file=file)
    body = PLACES[place] | {"model": "gpt-5"}
    refused = await running.client.post(place, json=body, headers=bearer("poor"))
    if place == "/api/requests":
        state = await running.client.get(f"{refused.headers['Location']}/events", headers=bearer("poor"))
        assert "budget_exceeded" in await state.text()
    else:
        assert refused.status == PROBLEMS["budget_exceeded"].status
        assert "budget_exceeded" in await refused.text()
    assert upstream.received == []
    assert (await running.client.post(place, json=body, headers=bearer("boss"))).status < 300


async def test_a_key_of_the_file_comes_and_goes(
    start: Start, upstream: ScriptedUpstream, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An added key is accepted; a removed one is refused, and its sockets closed; an invalid file changes nothing."""
    monkeypatch.setattr("service.config.routes_watcher.CHECK_INTERVAL", 0.01)
    running = await start(routes_file=file)
    socket = await running.client.ws_connect("/ws", headers=bearer("boss"))
    ticket = (await (await running.client.post("/api/tickets", headers=bearer("boss"))).json())["ticket"]
    for text, key, status in (
        (FILE + f'[keys.new]\nhash = "{digest_of("new").hex()}"\n', "new", 200),
        (FILE + '[keys.new]\nhash = "broken"\n', "new", 200),
        (FILE, "new", 401),
        ("", "boss", 401),
    ):
        write(file, text)
        while (await running.client.get("/v1/models", headers=bearer(key))).status != status:
            pass
    assert (await running.client.get("/v1/models")).status == 401
    assert (await socket.receive_json())["data"]["code"] == 4507
    assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
    with pytest.raises(aiohttp.WSServerHandshakeError, match="401"):
        await running.client.ws_connect(f"/ws?ticket={ticket}")


async def test_published_keys_open_the_service(start: Start, upstream: ScriptedUpstream) -> None:
    """Tokens verified by the issuer's JWKS alone; where that is down the response is 503."""
    upstream.script(say("Hello"))
    async with Issuer.open() as issuer:
        issuer.publish(published(EC, "k"))
        running = await start(jwt_jwks_url=issuer.url, fetch_allowed=("127.0.0.1",), jwt_issuer="me", jwt_audience="us")
        token = sign(claims(iss="me", aud="us"), "ES256", kid="k")
        body = {"model": "gpt-5", "messages": MESSAGES}
        for headers, status in ((bearer(token), 200), ({"x-api-key": token}, 200), ({}, 401)):
            assert (await running.client.post("/v1/chat/completions", json=body, headers=headers)).status == status
    down = await start(jwt_jwks_url=issuer.url, fetch_allowed=("127.0.0.1",))
    response = await down.client.get("/api/requests/req_1", headers=bearer(token))
    assert (response.status, (await response.json())["code"]) == (503, "auth_unavailable")
    assert int(response.headers["Retry-After"]) >= 1


async def test_a_ticket_opens_one_socket_as_its_caller(service: Service) -> None:
    """A ticket has exactly the caller's rights; its second use is refused."""
    response = await service.post("/api/tickets", None, authorization="Bearer some")
    body = await response.json()
    assert response.headers["Cache-Control"] == "no-store"
    assert body["expiresAt"].endswith("Z")
    address = f"{service.base}/ws?ticket={body['ticket']}"
    async with service.client.ws_connect(address) as socket:
        await socket.send_json({"type": "submit", "id": 1, "messages": MESSAGES, "model": "n"})
        assert (await socket.receive_json())["error"]["code"] == "model_not_allowed"
    with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
        await service.client.ws_connect(address)
    assert refused.value.status == 401
    assert (await service.post("/api/tickets", None)).status == 401


async def test_no_secret_is_written_down(service: Service) -> None:
    """No key, token or ticket is in the log or in a response."""
    secrets = ["some", "tg_wrong-secret", sign(claims()), sign(claims(exp=1)), "tk_made-up-secret"]
    with capture_logs() as logs:
        said = []
        for secret in secrets:
            for headers in (bearer(secret), {"x-api-key": secret}):
                response = await service.client.get(f"{service.base}/ws?ticket={secret}", headers=headers)
                said.append(await response.text())
            said.append(await (await service.client.get(f"{service.base}/ws?ticket={secret}")).text())
    written = str((logs, said))
    assert [secret for secret in secrets[1:] if secret in written] == []


async def test_the_service_does_not_start_with_a_key_that_is_none(file: Path) -> None:
    """The message names the file and the key."""
    write(file, '[keys.web]\nenv = "NOT_SET_ANYWHERE"\n')
    with pytest.raises(ConfigurationError, match=r"tidegate\.toml:2: keys\.web\.env: the variable NOT_SET_ANYWHERE"):
        async with open_container(load_settings(None, routes_file=file)):
            pytest.fail("it must not open")


async def test_a_public_key_is_refused_as_the_secret() -> None:
    """A public key as the secret is refused: with it everybody could sign."""
    pem = EC.as_pem(private=False).decode()
    with pytest.raises(ConfigurationError, match="JWT_SECRET"):
        async with open_container(load_settings(None, jwt_secret=pem)):
            pytest.fail("it must not open")


async def test_who_calls_is_whole_at_the_handlers(service: Service) -> None:
    """The caller has every right in the key's spec."""
    principal = await service.container.auth.authenticate("some")
    assert principal == Principal(
        tenant="acme",
        subject="some",
        scopes=("inference",),
        models=("m", "text-*"),
        channels=(ChannelGrant("*"),),
        account=principal.account,
        credential=principal.credential,
    )
    assert principal.account is not None
    assert principal.account.name == "some"


WORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=40)
BYTES = st.lists(st.integers(32, 255).filter(lambda byte: byte != 127), max_size=40).map(bytes)
SENT = st.tuples(
    st.sampled_from([b"Authorization", b"x-api-key"]),
    st.one_of(
        WORDS.map(str.encode),
        st.tuples(WORDS, WORDS, WORDS).map(lambda parts: b"Bearer " + ".".join(parts).encode()),
        BYTES,
        BYTES.map(lambda data: b"Bearer " + data),
        BYTES.map(lambda data: b"Bearer " + data + b".." + data),
    ),
)
ABSURD = [
    b"Bearer",
    b"Bearer .",
    b"Bearer " + b"x" * 7000,
    b"Bearer " + b"." * 2,
    b"Bearer null",
    b"Basic dXNlcjpwYXNz",
    b"Bearer Bearer some",
    b"bearer\tsome",
    b"Bearer some,some",
    b"Bearer \xff\xfe",
]


async def test_any_header_that_is_no_credential_is_a_401_with_a_body(service: Service) -> None:
    """Random `Authorization` and `x-api-key` headers: never a 500, and never authenticated."""
    sent = [(b"Authorization", value) for value in ABSURD]

    @settings(max_examples=200, database=None, deadline=None)
    @given(SENT)
    def collect(header: tuple[bytes, bytes]) -> None:
        sent.append(header)

    collect()
    for name, value in sent:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        head = b"GET /api/requests/req_1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        writer.write(head + name + b": " + value + b"\r\n\r\n")
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 401 "), (name, value, answer)
        assert b'"code":"' in answer
        writer.close()
        await writer.wait_closed()
