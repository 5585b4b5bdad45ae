"""Who may send: every surface, with and without keys, by what a browser says of the page that calls."""

from collections.abc import AsyncIterator
from itertools import product
from typing import Any, Final
from unittest.mock import Mock

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import AccessDenied
from service.auth.origin_config import OriginConfig, parse_network
from service.auth.origins import OriginPolicy, shown
from service.client import Client
from tests.service.bench import BODY, CHAT, Service, open_service

KEY: Final = "a-key-of-the-tests"
LISTED: Final = "https://listed.example"
FOREIGN: Final = "https://evil.example"
OWN: Final = "http://127.0.0.1:3000"
HOST: Final = "127.0.0.1:3000"
PROXY: Final = "10.1.2.3"

FORWARDED: Final = {"Host": "inside:3000", "X-Forwarded-Host": "gate.example", "X-Forwarded-Proto": "https"}
NAVIGATION: Final = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
UPGRADE: Final = {"Upgrade": "websocket"}
FULL_UPGRADE: Final = UPGRADE | {
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}

PAGES: Final = OriginConfig(pages=frozenset({LISTED}))
EVERY: Final = OriginConfig(pages=frozenset({"*"}))
SOCKETS: Final = OriginConfig(pages=frozenset({FOREIGN}), sockets=frozenset({LISTED}))
OPEN: Final = OriginConfig(open_sockets=True)
TRUSTING: Final = OriginConfig(
    proxies=(parse_network("10.0.0.0/8"), parse_network("::1")), hosts=frozenset({"gate.example"})
)
NAMED: Final = OriginConfig(hosts=frozenset({"gate.example", "exact.example:8443"}))

Headers = dict[str, str]


def judged(
    config: OriginConfig,
    route: str,
    headers: Headers,
    *,
    keys: bool = False,
    method: str = "GET",
    peer: str = PROXY,
) -> str:
    """Return the code with which a call without a key is refused; empty where it is allowed."""
    transport = Mock()
    transport.get_extra_info.return_value = (peer, 4711)
    request = make_mocked_request(method, route, headers={"Host": HOST} | headers, transport=transport)
    policy = OriginPolicy(config)
    try:
        policy.check_host(request, keys=keys)
        policy.check(request, route, keys=keys)
    except AccessDenied as error:
        return error.code
    return ""


NO: Final = "origin_not_allowed"
NO_HOST: Final = "host_not_allowed"
API: Final = "/api/requests"
V1: Final = "/v1/chat/completions"


@pytest.mark.parametrize(
    "route", [API, V1, "/api/requests/{id}/events", "/api/health", "/v1/messages", "/playground.js"]
)
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, ""),  # curl, SDKs
        ({"Origin": OWN}, ""),
        ({"Origin": LISTED}, ""),
        ({"Origin": FOREIGN}, NO),
        ({"Origin": "null"}, NO),
        ({"Origin": "https://127.0.0.1:3000", "Host": "127.0.0.1:3000"}, ""),  # TLS ends in front of the service
        ({"Origin": "http://127.0.0.1:3001"}, NO),
        ({"Origin": "http://localhost:3000"}, NO),
        ({"Origin": "http://localhost", "Host": "localhost:80"}, ""),
        ({"Origin": "https://localhost", "Host": "LOCALHOST:443"}, ""),
        ({"Origin": "https://localhost", "Host": "localhost:80"}, NO),
        ({"Origin": "http://[::1]:3000", "Host": "[::1]:3000"}, ""),
        ({"Origin": FOREIGN, "Sec-Fetch-Site": "same-origin"}, NO),
        ({"Origin": OWN, "Sec-Fetch-Site": "cross-site"}, ""),
        ({"Sec-Fetch-Site": "same-origin"}, ""),
        ({"Sec-Fetch-Site": "none"}, ""),
        ({"Sec-Fetch-Site": "same-site"}, NO),
        ({"Sec-Fetch-Site": "cross-site"}, NO),
        (NAVIGATION, NO),
        ({"Origin": "http://evil.example:3000", "Host": "evil.example:3000"}, NO_HOST),  # a name that points here
        ({"Host": "evil.example:3000"}, NO_HOST),
        ({"Origin": "https://gate.example"} | FORWARDED, NO_HOST),
    ],
)
def test_without_keys(route: str, headers: Headers, code: str) -> None:
    """The service's own pages, the listed ones and programs may call; other pages may not."""
    assert judged(PAGES, route, headers) == code
    assert judged(PAGES, route, headers, method="POST") == code
    if code == "":
        assert judged(EVERY, route, headers) == ""


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Origin": FOREIGN}, ""),  # the caller has no key: it is refused for that
        ({"Origin": FOREIGN, "Cookie": "a=b"}, NO),
        ({"Origin": LISTED, "Cookie": "a=b"}, ""),
        ({"Origin": OWN, "Cookie": "a=b"}, ""),
        ({"Cookie": "a=b"}, ""),
        ({"Cookie": "a=b", "Sec-Fetch-Site": "same-site"}, NO),
        ({"Host": "any.example"}, ""),
        ({"Host": "any.example", "Cookie": "a=b", "Origin": "https://any.example"}, ""),
    ],
)
def test_with_keys_only_a_cookie_is_sent_by_itself(headers: Headers, code: str) -> None:
    """A call without a key and without a cookie has nothing that a browser has added."""
    assert judged(PAGES, API, headers, keys=True, method="POST") == code


@pytest.mark.parametrize("keys", [False, True])
@pytest.mark.parametrize("route", ["/", "/docs", "/openapi.json", "/errors/{code}"])
def test_a_link_of_another_site_opens_a_page(route: str, *, keys: bool) -> None:
    """A GET navigation to a page is allowed; a form that is posted there, or an embedding by `fetch`, is not."""
    assert judged(PAGES, route, NAVIGATION | {"Cookie": "a=b"}, keys=keys) == ""
    for headers in ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, {"Sec-Fetch-Site": "cross-site"}):
        assert judged(PAGES, route, headers | {"Cookie": "a=b"}, keys=keys) == NO
    assert judged(PAGES, route, NAVIGATION | {"Cookie": "a=b"}, keys=keys, method="POST") == NO


@pytest.mark.parametrize(
    "headers", [{"Origin": FOREIGN}, {"Sec-Fetch-Site": "cross-site"}, {"Cookie": "a=b", "Origin": "null"}]
)
def test_any_page_loads_the_client(headers: Headers) -> None:
    """`/client.js` is a file without data."""
    assert judged(PAGES, "/client.js", headers) == ""


@pytest.mark.parametrize(
    ("config", "keys", "headers", "code"),
    [
        (PAGES, True, UPGRADE, ""),
        (PAGES, True, {"Origin": OWN} | UPGRADE, ""),
        (PAGES, True, {"Origin": LISTED} | UPGRADE, ""),
        (PAGES, True, {"Origin": FOREIGN} | UPGRADE, NO),
        (PAGES, True, {"Origin": "https://gate.example", "Host": "gate.example"} | UPGRADE, ""),
        (PAGES, False, UPGRADE, ""),
        (PAGES, False, {"Origin": OWN} | UPGRADE, ""),
        (PAGES, False, {"Origin": FOREIGN} | UPGRADE, NO),
        (PAGES, False, {"Sec-Fetch-Site": "cross-site"} | UPGRADE, NO),
        (PAGES, False, {"Origin": OWN, "Sec-Fetch-Site": "cross-site"} | UPGRADE, ""),
        (EVERY, True, {"Origin": FOREIGN} | UPGRADE, ""),
        (EVERY, False, {"Origin": "null"} | UPGRADE, ""),
        (SOCKETS, True, {"Origin": LISTED} | UPGRADE, ""),
        (SOCKETS, True, {"Origin": FOREIGN} | UPGRADE, NO),
        (SOCKETS, True, {"Origin": OWN} | UPGRADE, ""),
        (OPEN, True, {"Origin": FOREIGN} | UPGRADE, ""),
        (OPEN, False, {"Origin": FOREIGN} | UPGRADE, NO),
        (OPEN, False, {"Origin": OWN} | UPGRADE, ""),
        # a plain call, by which a page learns why its upgrade was refused
        (PAGES, True, {"Origin": FOREIGN}, NO),
        (PAGES, True, {"Referer": f"{FOREIGN}/app?a=b", "Sec-Fetch-Site": "same-origin"}, NO),
        (PAGES, True, {"Referer": f"{OWN}/", "Sec-Fetch-Site": "same-origin"}, ""),
        (PAGES, True, {"Referer": f"{OWN}/", "Sec-Fetch-Site": "cross-site"}, ""),
        (PAGES, False, {"Sec-Fetch-Site": "cross-site"}, ""),
        (PAGES, False, {"Referer": "https://[", "Sec-Fetch-Site": "same-origin"}, ""),
        (PAGES, False, {"Origin": "http://evil.example:3000", "Host": "evil.example:3000"} | UPGRADE, NO_HOST),
    ],
)
def test_the_socket(config: OriginConfig, *, keys: bool, headers: Headers, code: str) -> None:
    """The page's own socket opens without any setting; another page's where it is listed, or has to send a key."""
    assert judged(config, "/ws", headers, keys=keys) == code


@pytest.mark.parametrize(
    ("peer", "headers", "code"),
    [
        (PROXY, {}, ""),
        ("::ffff:10.9.9.9", {}, ""),
        ("::1", {}, ""),
        ("192.0.2.1", {}, NO_HOST),
        ("", {}, NO_HOST),
        (PROXY, {"X-Forwarded-Proto": "http"}, NO),
        (PROXY, {"X-Forwarded-Proto": "wss"}, ""),
        (PROXY, {"X-Forwarded-Host": "evil.example, gate.example"}, ""),  # the client wrote the first
        (PROXY, {"X-Forwarded-Host": "gate.example, evil.example"}, NO_HOST),
        (PROXY, {"X-Forwarded-Host": ""}, NO_HOST),
        (PROXY, {"Origin": FOREIGN}, NO),
    ],
)
@pytest.mark.parametrize("route", [API, "/ws"])
def test_a_trusted_proxy_says_where_the_browser_called(route: str, peer: str, headers: Headers, code: str) -> None:
    """`X-Forwarded-*` counts from a trusted network alone."""
    sent = FORWARDED | {"Origin": "https://gate.example"} | UPGRADE | headers
    assert judged(TRUSTING, route, sent, peer=peer) == code


@pytest.mark.parametrize(
    ("host", "keys", "code"),
    [
        ("gate.example", False, ""),
        ("GATE.example:3000", False, ""),
        ("exact.example:8443", False, ""),
        ("exact.example", False, NO_HOST),
        ("evil.example", False, NO_HOST),
        ("evil.example", True, NO_HOST),
        ("localhost:3000", True, ""),
        ("app.localhost", False, ""),
        ("localhost.", False, ""),
        ("127.9.9.9", False, ""),
        ("localhost.evil.example", False, NO_HOST),
        ("127.0.0.1.evil.example", False, NO_HOST),
        ("[", False, NO_HOST),
        ("", False, ""),
    ],
)
def test_the_names_of_the_service(host: str, *, keys: bool, code: str) -> None:
    """This machine's names, and those of `ALLOWED_HOSTS`."""
    assert judged(NAMED, API, {"Host": host}, keys=keys) == code
    assert judged(OriginConfig(hosts=frozenset({"*"})), API, {"Host": host}, keys=keys) == ""


def test_a_name_that_was_accepted_once_is_not_all() -> None:
    """The name that is kept from the call before is compared as a whole."""
    policy = OriginPolicy(NAMED)
    for host, accepted in (
        ("gate.example", True),
        ("gate.example", True),
        ("evil.example", False),
        ("gate.example", True),
    ):
        request = make_mocked_request("GET", API, headers={"Host": host})
        assert policy.accepts_host(request, keys=False) == accepted


@given(st.text(max_size=400), st.text(max_size=40))
def test_any_origin_and_host_is_judged_and_shown(origin: str, host: str) -> None:
    """Made-up headers are refused, or equal to each other; the message is short, printable ASCII."""
    assert judged(PAGES, API, {"Origin": origin, "Host": "localhost"}) in ("", NO)
    assert judged(PAGES, API, {"Host": host}) in ("", NO_HOST)
    assert shown(origin).isascii()
    assert len(shown(origin)) <= 200


# --------------------------------------------------------------------------------------------------- the whole service


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    """A service in production, with a key."""
    async with open_service(api_keys=(KEY,), environment="production", cors_allowed_origins=(LISTED,)) as running:
        yield running


async def test_a_key_in_a_header_passes_from_any_page(service: Service) -> None:
    """`Origin` and `Sec-Fetch-Site` are not looked at; a page whose origin is not listed can't read the answer."""
    for page, key in product(({"origin": FOREIGN}, {"sec_fetch_site": "cross-site"}), ("authorization", "x_api_key")):
        sent = {key: f"Bearer {KEY}" if key == "authorization" else KEY}
        response = await service.post("/api/requests", BODY, **page, **sent)
        assert response.status in (200, 202)
        assert "Access-Control-Allow-Origin" not in response.headers
    headers = {"Authorization": f"Bearer {KEY}", "Origin": FOREIGN}
    async with service.client.ws_connect(f"{service.base}/ws", headers=headers) as socket:
        await socket.send_json({"type": "ping"})
        assert (await socket.receive_json())["type"] == "pong"


async def test_without_keys_a_made_up_key_is_none() -> None:
    """A service without keys has no key to believe."""
    async with open_service() as service:
        for sent in ({}, {"authorization": "Bearer unused"}, {"x_api_key": "unused"}):
            response = await service.post("/v1/chat/completions", CHAT, origin=FOREIGN, **sent)
            assert response.status == 403
            assert FOREIGN in (await response.json())["error"]["message"]
            assert (await response.json())["error"]["code"] == NO
        assert service.calls.empty()
        assert (await service.get("/api/health/live", host="10.0.0.7:3000")).status == 200
        assert (await service.get("/v1/models", host="10.0.0.7:3000")).status == 403


async def test_the_page_of_production_opens_its_socket(service: Service) -> None:
    """By each name of the service, without any setting of origins."""
    for name in (f"127.0.0.1:{service.port}", f"localhost:{service.port}", "gate.example"):
        headers = {"Host": name, "Origin": f"http://{name}", "Sec-Fetch-Site": "same-origin"}
        async with service.client.ws_connect(f"{service.base}/ws", headers=headers) as socket:
            await socket.send_json({"type": "authenticate", "id": 1, "token": KEY})
            assert (await socket.receive_json())["type"] == "ack"


async def test_a_refused_upgrade_says_why_and_so_does_a_plain_call(service: Service) -> None:
    """Both are the same problem, which any page can read; where the origin is fine, a plain call is 426."""

    async def problem(**headers: str) -> dict[str, Any]:
        response = await service.get("/ws", **headers)
        assert response.content_type == "application/problem+json"
        assert "Origin" not in headers or response.headers["Access-Control-Allow-Origin"] in ("*", LISTED)
        body: dict[str, Any] = await response.json()
        return {name: body[name] for name in ("status", "code", "detail", "remedy")}

    refused = await problem(**FULL_UPGRADE, Origin=FOREIGN)
    assert (refused["status"], refused["code"]) == (403, NO)
    assert FOREIGN in refused["detail"]
    assert "CORS_ALLOWED_ORIGINS" in refused["detail"]
    assert "TRUSTED_PROXIES" in refused["remedy"]
    assert await problem(Origin=FOREIGN) == refused
    assert await problem(Origin=FOREIGN, Sec_Fetch_Site="cross-site") == refused
    assert await problem(Referer=f"{FOREIGN}/", Sec_Fetch_Site="same-origin") == refused
    fine = [
        await problem(Origin=f"http://127.0.0.1:{service.port}"),
        await problem(Origin=LISTED, Sec_Fetch_Site="cross-site"),
        await problem(Referer=f"{service.base}/", Sec_Fetch_Site="same-origin"),
        await problem(),
    ]
    assert {answer["code"] for answer in fine} == {"upgrade_required"}
    assert "`Upgrade`" in fine[0]["remedy"]


async def test_the_python_client_raises_the_reason() -> None:
    """A refused upgrade is raised with the service's own words."""
    async with open_service(allowed_hosts=("gate.example",)) as service:
        elsewhere = f"http://0.0.0.0:{service.port}"
        async with Client(elsewhere) as client:
            with pytest.raises(AccessDenied, match=f"The host 0.0.0.0:{service.port} is neither") as refused:
                await anext(client.listen("room:7"))
        assert refused.value.code == NO_HOST
        assert "ALLOWED_HOSTS" in refused.value.problem.remedy
