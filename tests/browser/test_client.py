"""The browser client beyond the playground: channels, credentials, calls across reconnects."""

from typing import TYPE_CHECKING, Any

import pytest

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
