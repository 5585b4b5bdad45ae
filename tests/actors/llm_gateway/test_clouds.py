"""Azure, Bedrock and Vertex: the requests they send, their credentials, and failures to get those."""

import asyncio
import json
import logging
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from actors.llm_gateway.provider import AnswerStream
from actors.llm_gateway.providers.azure import AzureProvider
from actors.llm_gateway.providers.bedrock import BedrockProvider
from actors.llm_gateway.providers.sdk import Connected, SdkProvider
from actors.llm_gateway.providers.vertex import VertexProvider
from actors.testing import Data, End, Fault, Received, Reply, Say, ScriptedUpstream, Send, Stall
from actors.testing.eventstream import event_message
from actors.testing.script import RESPONSE_ID, USAGE
from actors.wire.client import WireClient
from protocol.anthropic.upstream import BETAS
from protocol.errors import ProviderError
from protocol.events import Delta
from protocol.llm import ChatMessage, ChatRequest
from protocol.routes import ProviderSpec

KEY = "cloud-key"
TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
REQUEST = ChatRequest(model="m", messages=(ChatMessage(role="user", content="Grüße?"),), max_tokens=9)
CLAUDE = "anthropic.claude-haiku-4-5-20251001-v1:0"


class Cloud(Protocol):
    """A provider of either kind."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def stream(
        self, request: ChatRequest, model: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[AnswerStream]: ...


@asynccontextmanager
async def opened(provider: Cloud) -> AsyncIterator[Cloud]:
    """Open it, and close it."""
    await provider.open()
    try:
        yield provider
    finally:
        await provider.close()


async def answer(provider: Cloud, model: str) -> str:
    """Send a request, and return the text."""
    text = ""
    async with provider.stream(REQUEST, model, TRACE) as stream:
        async for pieces in stream:
            text += "".join(piece.text for piece in pieces if isinstance(piece, Delta))
    return text


async def failure(provider: Cloud, model: str = "m") -> str:
    """Send a request, and return the code of its failure."""
    with pytest.raises(ProviderError) as failed:
        await answer(provider, model)
    return failed.value.code


def azure(upstream: ScriptedUpstream, key: str = KEY) -> AzureProvider:
    """Return a provider in front of the upstream."""
    spec = ProviderSpec(kind="azure", base_url=upstream.cloud_url, api_version="2024-10-21")
    return AzureProvider(WireClient(), spec, api_key=key)


def bedrock(upstream: ScriptedUpstream, region: str, key: str = "", profile: str = "") -> BedrockProvider:
    """Return a provider in front of the upstream; AWS's package caches by region, so each has its own."""
    spec = ProviderSpec(kind="bedrock", base_url=upstream.cloud_url, region=region, profile=profile)
    return BedrockProvider(WireClient(), spec, api_key=key)


def vertex(upstream: ScriptedUpstream, key: str = KEY) -> VertexProvider:
    """Return a provider in front of the upstream."""
    spec = ProviderSpec(kind="vertex", base_url=f"{upstream.cloud_url}/v1", project="p", region="us-east5")
    return VertexProvider(WireClient(), spec, api_key=key)


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Hide the credentials of the user and of the machine."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def said(received: Received) -> dict[str, Any]:
    """Return the part of the body that all clouds share."""
    assert received.headers["traceparent"] == TRACE["traceparent"]
    assert received.headers["accept-encoding"] == "identity"
    assert received.headers["x-stainless-retry-count"] == "0"
    assert received.body["messages"] == [{"role": "user", "content": "Grüße?"}]
    return received.body


async def test_azure_by_key(upstream: ScriptedUpstream) -> None:
    """The deployment is in the path, the version in the query, the key in its header."""
    async with opened(azure(upstream)) as provider:
        assert await answer(provider, "my deployment/1") == "Hello world"
    (received,) = upstream.received
    assert received.path == "/openai/deployments/my deployment/1/chat/completions"
    assert received.query == {"api-version": "2024-10-21"}
    assert received.headers["api-key"] == KEY
    body = said(received)
    assert (body["max_completion_tokens"], body["stream"]) == (9, True)


async def test_vertex_by_token(upstream: ScriptedUpstream) -> None:
    """Project, region and model are in the path; the version is in the body."""
    async with opened(vertex(upstream)) as provider:
        assert await answer(provider, "claude-haiku-4-5@20251001") == "Hello world"
    (received,) = upstream.received
    place = "/v1/projects/p/locations/us-east5/publishers/anthropic/models"
    assert received.path == f"{place}/claude-haiku-4-5@20251001:streamRawPredict"
    assert received.headers["authorization"] == f"Bearer {KEY}"
    body = said(received)
    assert (body["anthropic_version"], body["stream"], "model" in body) == ("vertex-2023-10-16", True, False)


async def test_bedrock_by_key(upstream: ScriptedUpstream) -> None:
    """The model and the streaming are in the path."""
    async with opened(bedrock(upstream, "us-east-1", KEY)) as provider:
        assert await answer(provider, CLAUDE) == "Hello world"
    (received,) = upstream.received
    assert received.path == f"/model/{CLAUDE}/invoke-with-response-stream"
    assert received.headers["authorization"] == f"Bearer {KEY}"
    assert received.headers["accept"] == "application/vnd.amazon.eventstream"
    body = said(received)
    assert (body["anthropic_version"], "stream" in body) == ("bedrock-2023-05-31", False)


@pytest.mark.parametrize("model", [CLAUDE, "arn:aws:bedrock:eu-west-3:1:inference-profile/eu.anthropic.claude-v1:0"])
async def test_what_is_signed_is_what_goes_out(monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """AWS's own signer, given the received bytes, makes the same signature."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    signed: list[str] = []

    async def check(request: web.Request) -> web.Response:
        body = await request.read()
        scheme, _, fields = request.headers["Authorization"].partition(" ")
        given = dict(field.strip().split("=", 1) for field in fields.split(","))
        names = given["SignedHeaders"].split(";")
        url = f"http://{request.host}{request.raw_path}"
        again = AWSRequest("POST", url, {name: request.headers[name] for name in names}, body)
        again.context["timestamp"] = request.headers["X-Amz-Date"]
        signer = SigV4Auth(Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI"), "bedrock", "eu-west-3")
        canonical = signer.canonical_request(again)
        assert given["Signature"] == signer.signature(signer.string_to_sign(again, canonical), again)
        signed.append(scheme)
        return web.Response(status=529)

    async with serving("/{tail:.*}", check) as address:
        spec = ProviderSpec(kind="bedrock", base_url=address, region="eu-west-3")
        async with opened(BedrockProvider(WireClient(), spec)) as provider:
            assert await failure(provider, model) == "provider_unavailable"
    assert signed == ["AWS4-HMAC-SHA256"]


async def test_a_profile_of_awss_configuration(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Its keys sign."""
    (tmp_path / "credentials").write_text("[team]\naws_access_key_id = AKTEAM\naws_secret_access_key = s\n")
    async with opened(bedrock(upstream, "eu-west-1", profile="team")) as provider:
        assert await answer(provider, CLAUDE) == "Hello world"
    assert "Credential=AKTEAM/" in upstream.received[0].headers["authorization"]


async def test_credentials_are_got_once_for_all_who_wait(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ten requests get one token from Google's endpoint, and the loop is not blocked."""
    asked: list[str] = []

    async def token(request: web.Request) -> web.Response:
        asked.append(str((await request.post())["grant_type"]).rpartition(":")[2])
        return web.json_response({"access_token": "from-google", "expires_in": 3600, "token_type": "Bearer"})

    async with serving("/token", token) as address:
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account(tmp_path, f"{address}/token")))
        async with opened(vertex(upstream, key="")) as provider:
            texts = await asyncio.gather(*(answer(provider, "claude") for _ in range(10)))
    assert texts == ["Hello world"] * 10
    assert asked == ["jwt-bearer"]
    assert {received.headers["authorization"] for received in upstream.received} == {"Bearer from-google"}


async def test_entra_id(upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key, a token of the managed identity, got once."""
    asked: list[str] = []

    async def token(request: web.Request) -> web.Response:
        asked.append(request.query["resource"])
        return web.json_response(
            {"access_token": "from-entra", "expires_on": "4102444800", "resource": "r", "token_type": "Bearer"}
        )

    async with serving("/token", token) as address:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{address}/token")
        monkeypatch.setenv("IDENTITY_HEADER", "h")
        async with opened(azure(upstream, key="")) as provider:
            for _ in range(2):
                assert await answer(provider, "d") == "Hello world"
    assert asked == ["https://cognitiveservices.azure.com"]
    assert {received.headers["authorization"] for received in upstream.received} == {"Bearer from-entra"}


async def test_no_credentials_are_said_once(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """No request is sent; the log says why once, until requests work again; they do once there are credentials."""
    caplog.set_level(logging.WARNING, "tidegate.gateway")
    async with opened(bedrock(upstream, "eu-central-1")) as provider:
        assert [await failure(provider, CLAUDE) for _ in range(2)] == ["provider_credentials"] * 2
        assert upstream.calls == 0
        assert [record.getMessage()[:26] for record in caplog.records] == ["bedrock has no credentials"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AK")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
        assert await answer(provider, CLAUDE) == "Hello world"


async def test_credentials_whose_source_is_out_of_reach(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The provider is unavailable: another attempt makes sense."""
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(service_account(tmp_path, "http://127.0.0.1:1/token")))
    async with opened(vertex(upstream, key="")) as provider:
        assert await failure(provider) == "provider_unavailable"


async def test_nobody_waits_for_credentials_after_having_left(
    upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancellation ends the wait at once, and does not delay the next request."""
    entered, hold = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    provider = azure(upstream)
    connect: Callable[[], Connected] = provider._connect

    def slow() -> Connected:
        loop.call_soon_threadsafe(entered.set)
        hold.wait(10)
        return connect()

    monkeypatch.setattr(provider, "_connect", slow)
    async with opened(provider):
        waiting = asyncio.ensure_future(answer(provider, "d"))
        await entered.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        monkeypatch.setattr(provider, "_connect", connect)
        assert await answer(provider, "d") == "Hello world"
        hold.set()


async def test_features_that_a_client_asks_for_beside_the_body(upstream: ScriptedUpstream) -> None:
    """Vertex gets them in a header, Bedrock in the body."""
    request = msgspec.structs.replace(REQUEST, dialect="anthropic", extra={BETAS: ["one", "two"]})
    for provider in (vertex(upstream), bedrock(upstream, "us-east-1", KEY)):
        async with opened(provider), provider.stream(request, CLAUDE, {}) as stream:
            assert [pieces async for pieces in stream]
    first, second = upstream.received
    assert (first.headers["anthropic-beta"], second.body["anthropic_beta"]) == ("one,two", ["one", "two"])


@pytest.mark.parametrize("make", [azure, lambda upstream: bedrock(upstream, "us-east-1", KEY), vertex])
async def test_leaving_closes_the_connection(
    upstream: ScriptedUpstream, make: Callable[[ScriptedUpstream], Cloud]
) -> None:
    """As for any other provider."""
    upstream.script(Reply(steps=(Say("Hel"), Stall())))
    async with opened(make(upstream)) as provider:
        async with provider.stream(REQUEST, "m", {}) as stream:
            async for pieces in stream:
                if pieces:
                    break
        await upstream.abandoned()
        assert await answer(provider, "m") == "Hello world"


async def test_a_closed_provider_makes_no_client(upstream: ScriptedUpstream) -> None:
    """Closing is idempotent; opened again, it answers again."""
    provider = azure(upstream)
    assert await failure(provider) == "provider_unavailable"
    for _ in range(2):
        async with opened(provider):
            assert await answer(provider, "d") == "Hello world"
        await provider.close()
        assert await failure(provider) == "provider_unavailable"
    assert upstream.calls == 2


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("rate_limit_error", "provider_rate_limited"),
        ("overloaded_error", "provider_unavailable"),
        ("timeout_error", "provider_timeout"),
        ("invalid_request_error", "provider_rejected"),
        ("api_error", "provider_error"),
    ],
)
async def test_bedrocks_exceptions(upstream: ScriptedUpstream, kind: str, code: str) -> None:
    """Each has the code of the same error of Anthropic's."""
    upstream.script(Reply(steps=(Say("Hel"), Fault(kind=kind))))
    async with opened(bedrock(upstream, "us-east-1", KEY)) as provider:
        assert await failure(provider) == code


async def test_the_vendors_own_clients_read_what_the_upstream_writes(upstream: ScriptedUpstream) -> None:
    """Streamed and whole, at each cloud's address: the scripted upstream is tested, not our code."""
    from anthropic import AsyncAnthropicBedrock, AsyncAnthropicVertex  # noqa: PLC0415 - as in the providers
    from openai import AsyncAzureOpenAI  # noqa: PLC0415 - the same

    url = upstream.cloud_url
    async with (
        AsyncAzureOpenAI(azure_endpoint=url, api_version="2024-10-21", api_key=KEY) as azure,
        AsyncAnthropicBedrock(base_url=url, aws_region="us-east-1", api_key=KEY) as bedrock,
        AsyncAnthropicVertex(base_url=f"{url}/v1", region="global", project_id="p", access_token=KEY) as vertex,
    ):
        whole = await azure.chat.completions.create(model="d", messages=[{"role": "user", "content": "hi"}])
        chunks = await azure.chat.completions.create(
            model="d", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        texts = [whole.choices[0].message.content]
        texts.append("".join([c.choices[0].delta.content or "" async for c in chunks if c.choices]))
        for messages in (bedrock.messages, vertex.messages):
            message = await messages.create(model=CLAUDE, max_tokens=9, messages=[{"role": "user", "content": "hi"}])
            assert (message.model, message.usage.output_tokens) == (CLAUDE, 3)
            texts.append("".join(block.text for block in message.content if block.type == "text"))
            events = await messages.create(
                model=CLAUDE, max_tokens=9, messages=[{"role": "user", "content": "hi"}], stream=True
            )
            deltas = [event.delta async for event in events if event.type == "content_block_delta"]
            texts.append("".join(delta.text for delta in deltas if delta.type == "text_delta"))
    assert texts == ["Hello world"] * 6


async def test_what_azure_adds_to_a_stream(upstream: ScriptedUpstream) -> None:
    """Results of its content filters, in chunks of their own."""
    before = {"id": "", "model": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]}
    choice = {"index": 0, "finish_reason": None, "content_filter_offsets": {"end_offset": 5}}
    after = {"id": "", "model": "", "choices": [choice], "usage": None}
    upstream.script(
        Reply(steps=(Data(json.dumps(before).encode()), Say("Hi"), Data(json.dumps(after).encode()), End()))
    )
    async with opened(azure(upstream)) as provider, provider.stream(REQUEST, "d", {}) as stream:
        texts = [piece.text async for pieces in stream for piece in pieces if isinstance(piece, Delta)]
        assert (texts, stream.answer.response_id, stream.answer.usage) == (["Hi"], RESPONSE_ID, USAGE)


async def test_what_bedrock_adds_to_a_stream(upstream: ScriptedUpstream) -> None:
    """Its own metrics at the end, and events that are no chunks."""
    other = event_message({":message-type": "event", ":event-type": "initial-response"}, b"{}")
    end = {"type": "message_stop", "amazon-bedrock-invocationMetrics": {"inputTokenCount": 7}}
    steps = (Send(other), Say("Hi"), End(marker=False), Data(json.dumps(end).encode()))
    upstream.script(Reply(steps=steps))
    async with opened(bedrock(upstream, "us-east-1", KEY)) as provider, provider.stream(REQUEST, "m", {}) as stream:
        texts = [piece.text async for pieces in stream for piece in pieces if isinstance(piece, Delta)]
        assert (texts, stream.answer.ended, stream.answer.usage) == (["Hi"], True, USAGE)


@pytest.mark.parametrize("make", [azure, vertex])
def test_a_model_is_a_part_of_an_address(make: Callable[[ScriptedUpstream], SdkProvider]) -> None:
    """A name that would change the path is no model."""
    provider = make(ScriptedUpstream())
    assert [provider.accepts(name) for name in ("", ".", "..", "..;x", "a/../b", "gpt-4o")] == [False] * 4 + [True] * 2


def test_nothing_is_imported_before_the_first_request(root: Path) -> None:
    """A gateway with all three opens without the vendors' packages."""
    program = """
import asyncio, sys
from actors.llm_gateway import GatewayConfig, build_gateway
from actors.runtime import System
from protocol.gateway import GetProviders
from protocol.routes import ProviderSpec, Routes

specs = {
    "a": ProviderSpec(kind="azure", base_url="http://127.0.0.1:1", api_version="2024-10-21"),
    "b": ProviderSpec(kind="bedrock", region="us-east-1"),
    "v": ProviderSpec(kind="vertex", region="us-east5", project="p"),
}

async def main():
    async with System() as system:
        config = GatewayConfig(openai_api_key="k", routes=Routes(providers=specs))
        gateway = system.spawn(build_gateway(config), name="gateway")
        names = [status.name for status in await gateway.ask(GetProviders(), timeout=30)]
        heavy = {"openai", "anthropic", "httpx2", "boto3", "botocore", "google.auth", "azure.identity"}
        print(names, sorted(heavy & set(sys.modules)))

asyncio.run(main())
"""
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=root
    )
    assert (done.stdout, done.stderr) == ("['openai', 'local', 'a', 'b', 'v'] []\n", "")


@asynccontextmanager
async def serving(path: str, handler: Callable[[web.Request], Any]) -> AsyncIterator[str]:
    """Serve ``path`` on loopback, and return the address."""
    application = web.Application()
    application.router.add_route("*", path, handler)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def service_account(folder: Path, token_uri: str) -> Path:
    """Write the file of a service account with a new key."""
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - for this alone
    from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415 - for this alone

    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "p",
        "private_key": key.decode(),
        "private_key_id": "1",
        "client_email": "a@b",
        "token_uri": token_uri,
    }
    file = folder / "account.json"
    file.write_text(json.dumps(account))
    return file
