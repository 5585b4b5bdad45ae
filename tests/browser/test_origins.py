"""Pages of this and of other origins in a real browser, against a service as it runs in production."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.service.bench import Service, open_service

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.timeout(60)

KEY: Final = "a-key-of-the-tests"
NOBODY: Final = "https://nobody.example"

# As OpenAI's JavaScript SDK does with `dangerouslyAllowBrowser`, and Anthropic's.
OPENAI: Final = """
async ([base, key]) => {
    const headers = {
        authorization: `Bearer ${key}`, "content-type": "application/json", "x-stainless-lang": "js",
        "x-stainless-os": "Unknown", "x-stainless-retry-count": "0", "x-stainless-runtime": "browser:chrome",
    };
    const body = JSON.stringify({ model: "m", messages: [{ role: "user", content: "hi" }] });
    const response = await fetch(`${base}/v1/chat/completions`, { method: "POST", headers, body });
    const answer = await response.json();
    const { headers: got } = response;
    return [answer.choices[0].message.content, got.get("x-request-id"), got.get("x-tidegate-source")];
}
"""
ANTHROPIC: Final = """
async ([base, key]) => {
    const headers = {
        "x-api-key": key, "anthropic-version": "2023-06-01", "content-type": "application/json",
        "anthropic-dangerous-direct-browser-access": "true", "x-stainless-lang": "js",
    };
    const response = await fetch(`${base}/v1/messages`, { method: "POST", headers, body: "{}" });
    return [response.status, (await response.json()).error.type];
}
"""
TALK: Final = """
async ([base, key]) => {
    const { Tidegate } = await import(`${base}/client.js`);
    const tidegate = new Tidegate(base, { token: key });
    const room = tidegate.channel("room:7");
    try {
        return (await room.publish("said", "a")).position?.offset ?? "published";
    } finally {
        tidegate.close();
    }
}
"""
REFUSED: Final = """
async ([base, key]) => {
    const { Tidegate } = await import("/client.js");
    const tidegate = new Tidegate(base, { token: key });
    const began = performance.now();
    const error = await tidegate.submit({ messages: [{ role: "user", content: "hi" }] }).catch((one) => one);
    return [error.code, error.message, error.remedy !== "", performance.now() - began];
}
"""
SOCKET: Final = """
([base]) => new Promise((resolve) => {
    const socket = new WebSocket(`${base.replace("http", "ws")}/ws`);
    socket.onopen = () => resolve("open");
    socket.onclose = () => resolve("refused");
})
"""
REASON: Final = """
async ([base]) => {
    const { status, code, detail } = await (await fetch(`${base}/ws`)).json();
    return [status, code, detail];
}
"""
FAILS: Final = "([base]) => fetch(`${base}/v1/models`).then(() => 'read', (error) => error.name)"


@asynccontextmanager
async def visiting(chromium: "Browser", **settings: Any) -> AsyncIterator[tuple["Page", Service]]:  # noqa: ANN401 - any setting
    """A page of one origin, and a service of another one; ``PAGE`` in a setting is the page's origin."""
    async with open_service() as host:
        given: dict[str, Any] = {
            name: tuple(part.replace("PAGE", host.base) for part in value) for name, value in settings.items()
        }
        async with open_service(environment="production", **given) as service:
            page = await (await chromium.new_context(bypass_csp=True)).new_page()  # as another server's page is
            await page.goto(f"{host.base}/api/health/live")
            yield page, service


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_the_playground_of_production(chromium: "Browser", name: str) -> None:
    """With a key, and without a setting of origins, the page shows an answer, by each name of the service."""
    async with open_service(environment="production", api_keys=(KEY,)) as service:
        page = await (await chromium.new_context()).new_page()
        await page.goto(f"http://{name}:{service.port}/")
        await page.evaluate("([key]) => { document.querySelector('#key').value = key; }", [KEY])
        await page.fill("#prompt", "hi")
        await page.press("#prompt", "Control+Enter")
        call = await service.call()
        await call.say("Hel", "lo")
        await call.end()
        await page.locator('.view[data-state="completed"]').wait_for()
        assert await page.locator(".text").text_content() == "Hello"


async def test_a_listed_page(chromium: "Browser") -> None:
    """It calls as the vendors' SDKs do, reads answers, errors and headers, and opens sockets."""
    async with visiting(chromium, api_keys=(KEY,), cors_allowed_origins=("PAGE",)) as (page, service):
        asking = await page.evaluate_handle(f"(given) => ({{ answer: ({OPENAI})(given) }})", [service.base, KEY])
        call = await service.call()
        await call.say("Hello")
        await call.end()
        text, request_id, source = await page.evaluate("({ answer }) => answer", asking)
        assert (text, source) == ("Hello", "upstream")
        assert request_id
        assert await page.evaluate(ANTHROPIC, [service.base, KEY]) == [400, "invalid_request_error"]
        assert await page.evaluate(TALK, [service.base, KEY]) == 1
        assert (await page.evaluate(REASON, [service.base]))[:2] == [426, "upgrade_required"]


@pytest.mark.parametrize("keys", [(), (KEY,)])
async def test_a_page_that_is_not_listed(chromium: "Browser", keys: tuple[str, ...]) -> None:
    """It neither reads an answer nor opens a socket, with a key or not; it may read why."""
    async with visiting(chromium, api_keys=keys, cors_allowed_origins=(NOBODY,)) as (page, service):
        for script in (OPENAI, ANTHROPIC):
            answer = f"(given) => ({script})(given).then(() => 'read', (error) => error.name)"
            assert await page.evaluate(answer, [service.base, KEY]) == "TypeError"
        assert await page.evaluate(FAILS, [service.base]) == "TypeError"
        assert await page.evaluate(SOCKET, [service.base]) == "refused"
        status, code, detail = await page.evaluate(REASON, [service.base])
        assert (status, code) == (403, "origin_not_allowed")
        assert "CORS_ALLOWED_ORIGINS" in detail
        assert await page.evaluate("() => location.origin") in detail
        assert service.calls.empty()


async def test_a_page_that_is_not_listed_learns_why_at_once(chromium: "Browser") -> None:
    """`submit` asks the address of the socket for the reason that the browser hides, and tries nothing again."""
    async with visiting(chromium, cors_allowed_origins=(NOBODY,)) as (page, service):
        code, message, has_remedy, took = await page.evaluate(REFUSED, [service.base, ""])
        assert (code, has_remedy) == ("origin_not_allowed", True)
        assert await page.evaluate("() => location.origin") in message
        assert took < 5_000
        assert service.calls.empty()


async def test_sockets_alone(chromium: "Browser") -> None:
    """`WS_ALLOWED_ORIGINS` allows sockets and no calls."""
    async with visiting(chromium, api_keys=(KEY,), ws_allowed_origins=("PAGE",)) as (page, service):
        assert await page.evaluate(SOCKET, [service.base]) == "open"
        assert await page.evaluate(FAILS, [service.base]) == "TypeError"


async def test_everybody(chromium: "Browser") -> None:
    """`*` allows any page, also without keys."""
    async with visiting(chromium, cors_allowed_origins=("*",)) as (page, service):
        assert await page.evaluate(SOCKET, [service.base]) == "open"
        assert await page.evaluate(FAILS, [service.base]) == "read"
        assert await page.evaluate(TALK, [service.base, ""]) == 1
