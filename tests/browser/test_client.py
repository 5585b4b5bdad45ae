"""The browser client beyond the playground: channels, credentials, calls across reconnects."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from service.auth.keys import digest_of
from service.client import Client
from tests.browser.refusing_front import RefusingFront
from tests.cutting_proxy import CuttingProxy
from tests.service.bench import open_service

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

KEY = "a-key-of-the-tests"
pytestmark = pytest.mark.timeout(60)

OPEN = """
async ([token]) => {
    const { Tidegate } = await import("/client.js");
    window.tidegate = new Tidegate(location.origin, { token });
    window.room = window.tidegate.channel("room:7");
    window.heard = [];
    window.next = (count) => new Promise((resolve) => {
        const look = () => window.heard.length >= count && resolve(window.heard);
        window.room.addEventListener("message", look);
        look();
    });
    window.room.addEventListener("message", ({ detail }) => window.heard.push(detail.data));
    window.room.addEventListener("gap", () => window.heard.push("gap"));
}
"""


async def visit(browser: "Browser", address: str, token: str = "") -> "Page":
    """Open a page with a client that follows a channel."""
    page = await (await browser.new_context()).new_page()
    await page.goto(f"{address}/docs")
    await page.evaluate(OPEN, [token])
    return page


async def publish(page: "Page", data: object) -> Any:  # noqa: ANN401 - JSON
    """Publish to the channel, and return the position."""
    return await page.evaluate("([data]) => window.room.publish('said', data)", [data])


async def test_two_pages_talk_in_a_channel(chromium: "Browser") -> None:
    """Both clients get each publication once and in order, also across a lost connection."""
    async with open_service(api_keys=(KEY,)) as service, CuttingProxy(service.base) as proxy:
        one, two = await visit(chromium, service.base, KEY), await visit(chromium, proxy.url, KEY)
        await publish(two, "a")
        proxy.cut(refusing=True)
        await publish(one, "b")
        sending = await two.evaluate_handle("() => ({ sent: window.room.publish('said', 'c') })")
        proxy.refusing = False
        await two.evaluate("({ sent }) => sent", sending)
        assert await two.evaluate("() => window.next(3)") == ["a", "b", "c"]
        assert await one.evaluate("() => window.next(2)") in (["a", "b", "c"], ["b", "c"])


async def test_a_wrong_key_ends_it(chromium: "Browser") -> None:
    """A client with an invalid credential reports it, and stops retrying."""
    async with open_service(api_keys=(KEY,)) as service:
        page = await visit(chromium, service.base, "wrong")
        code = await page.evaluate("""() => window.room.publish("said", 1).then(() => "", (error) => error.code)""")
        assert code == "unauthenticated"
        assert await page.evaluate("() => window.tidegate.status") == "closed"


async def test_a_request_is_submitted_once_and_its_end_is_told(chromium: "Browser") -> None:
    """``done`` resolves with the result; iterating yields the pieces, merged for a slow loop."""
    async with open_service() as service:
        page = await visit(chromium, service.base)
        running = await page.evaluate_handle("""
            async () => {
                const request = await window.tidegate.submit({ messages: [{ role: "user", content: "hi" }] });
                const pieces = (async () => {
                    let text = "";
                    for await (const update of request) text = update.replaces ? update.text : text + update.text;
                    return text;
                })();
                return { request, pieces };
            }
        """)
        call = await service.call()
        await call.say("Hel", "lo")
        await call.end()
        assert await page.evaluate("({ pieces }) => pieces", running) == "Hello"
        assert (await page.evaluate("({ request }) => request.done", running))["text"] == "Hello"
        assert await page.evaluate("({ request }) => request.source", running) == "upstream"


async def test_who_is_there_is_said_again_after_a_cut(chromium: "Browser") -> None:
    """With ``presence`` a page gets the channel's members, first and after each reconnect."""
    async with open_service() as service, CuttingProxy(service.base) as proxy:
        page = await visit(chromium, proxy.url)
        told = await page.evaluate_handle("""
            () => {
                const told = [];
                const hall = window.tidegate.channel("hall", { presence: true, member: { name: "Ada" }, client: "a" });
                hall.addEventListener("presence", ({ detail }) => told.push(detail));
                const states = (count) => new Promise((resolve) => {
                    const look = () => {
                        const states = told.filter(({ action, members }) => action === "state" && members.length);
                        if (states.length >= count) resolve(states.map(({ members }) => members[0].info.name));
                    };
                    hall.addEventListener("presence", look);
                    look();
                });
                return { states };
            }
        """)
        await page.evaluate("({ states }) => states(1)", told)
        proxy.cut()
        assert await page.evaluate("({ states }) => states(2)", told) == ["Ada", "Ada"]


ADMINISTRATION = """
[keys.root]
hash = "{root}"
tenant = "acme"
scopes = ["channels", "admin"]

[keys.ann]
hash = "{ann}"
tenant = "acme"
"""


async def test_an_administrator_subscribes_the_page(chromium: "Browser", tmp_path: Path) -> None:
    """The page gets the channel with what has been said in it, keeps it across a cut, and is told of its end."""
    file = tmp_path / "tidegate.toml"
    file.write_text(ADMINISTRATION.format(root=digest_of("root").hex(), ann=digest_of("ann").hex()), encoding="utf-8")
    async with open_service(routes_file=file) as service, CuttingProxy(service.base) as proxy:
        page = await visit(chromium, proxy.url, "ann")
        async with Client(service.base, key="root") as root:
            await publish(page, "begin")
            assert (await root.publish("lobby", "said", 0)).subscribers == 0
            given = await page.evaluate_handle("""
                () => {
                    const said = [];
                    const until = (value) => new Promise((resolve) => {
                        const look = () => said.includes(value) && resolve(said);
                        setInterval(look, 5);
                        look();
                    });
                    window.tidegate.addEventListener("channel", ({ detail }) => {
                        said.push(detail.channel);
                        detail.addEventListener("message", ({ detail: message }) => said.push(message.data));
                        detail.addEventListener("failure", ({ detail: error }) => said.push(error.code));
                    });
                    return { until };
                }
            """)
            assert (await root.admin.subscribe("ann", "lobby", mode="replay")).sockets == 1
            await root.publish("lobby", "said", 1)
            assert await page.evaluate("({ until }) => until(1)", given) == ["lobby", 0, 1]
            proxy.cut()
            await root.publish("lobby", "said", 2)
            assert await page.evaluate("({ until }) => until(2)", given) == ["lobby", 0, 1, 2]
            assert await root.admin.unsubscribe("ann", "lobby") == 1
            assert (await page.evaluate("({ until }) => until('unsubscribed')", given))[-1] == "unsubscribed"


async def test_a_publication_says_how_many_it_reached_and_a_request_is_deleted(chromium: "Browser") -> None:
    """The position is beside the number; a second deletion says that there was nothing."""
    async with open_service() as service:
        page = await visit(chromium, service.base)
        published = await publish(page, "a")
        assert (published["position"]["offset"], published["subscribers"]) == (1, 1)
        deleted = await page.evaluate("""
            async () => {
                const request = await window.tidegate.submit({ messages: [{ role: "user", content: "hi" }] });
                const deleted = [await window.tidegate.delete(request.id), await window.tidegate.delete(request.id)];
                return [...deleted, await request.done.catch((error) => error.code)];
            }
        """)
        assert deleted == [True, False, "cancelled"]


REASON = """
async () => {
    const { Tidegate } = await import("/client.js");
    const client = new Tidegate();
    window.client = client;
    window.followed = client.follow("req_none");
    window.followed.done.catch(() => {});
    const reason = () => client.reason && [client.reason.code, client.reason.title, client.reason.message,
        client.reason.remedy, client.reason.temporary, client.status === "closed"];
    return await new Promise((resolve) => {
        const look = () => reason() && resolve(reason());
        client.addEventListener("status", look);
        look();
    });
}
"""
REFUSALS = {
    "for good": (
        403,
        {"code": "origin_not_allowed", "title": "No", "detail": "Not from here", "remedy": "Allow it."},
        ["origin_not_allowed", "No", "Not from here", "Allow it.", False, True],
    ),
    "for a while": (503, {"code": "overloaded", "detail": "Full"}, ["overloaded", "", "Full", "", True, False]),
    "too often": (429, {"code": "rate_limited", "detail": "Wait"}, ["rate_limited", "", "Wait", "", True, False]),
    "by a proxy": (404, {}, ["unreachable", "", "the address of the socket answers 404", "", True, False]),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refused_upgrade_has_a_reason(chromium: "Browser", name: str) -> None:
    """The client asks over HTTP once for each failed upgrade; only a refusal of the service itself ends it."""
    status, problem, expected = REFUSALS[name]
    async with open_service() as service, RefusingFront(service.base, status, problem) as front:
        page = await (await chromium.new_context()).new_page()
        await page.goto(f"{front.url}/docs")
        assert await page.evaluate(REASON) == expected
        if not expected[-1]:
            front.refusing = False
            assert await page.evaluate("() => window.followed.done.catch(({ code }) => code)") == "request_not_found"
            assert await page.evaluate("() => window.client.reason") is None
        else:
            assert await page.evaluate("() => window.followed.error.code") == problem["code"]
            assert front.upgrades <= 2  # at times the browser sends a second one; it does not go on


async def test_a_socket_that_does_not_open_is_told_from_a_service_that_is_away(chromium: "Browser") -> None:
    """Where HTTP works and the socket does not, the reason names the proxy and the origin; else, the silence."""
    required = {"code": "upgrade_required", "title": "This address speaks WebSocket"}
    async with open_service() as service, RefusingFront(service.base, 426, required) as front:
        page = await (await chromium.new_context()).new_page()
        await page.goto(f"{front.url}/docs")
        code, _, message, remedy, temporary, closed = await page.evaluate(REASON)
        assert (code, temporary, closed) == ("upgrade_required", True, False)
        assert "its socket does not open" in message
        assert "origin" in remedy
    async with open_service() as service, CuttingProxy(service.base) as proxy:
        page = await (await chromium.new_context()).new_page()
        await page.goto(f"{proxy.url}/docs")
        await page.evaluate("() => import('/client.js')")
        proxy.cut(refusing=True)
        assert (await page.evaluate(REASON))[0] == "unreachable"
