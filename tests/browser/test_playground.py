"""The page at ``/`` in a real browser, with the real local model, over a network that fails."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from service.client import Client
from service.client.following import Following, Update
from tests.cutting_proxy import CuttingProxy

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.timeout(120)

COMPLETE: Final = '.view[data-state="completed"]'
ENTRIES: Final = "(count) => parseInt(document.querySelector('.row .told').textContent) >= count"
PATIENCE: Final = 60_000  # ms: an answer takes long on a small machine
MISSED: Final = 25  # updates that the page misses while it is disconnected


async def ask(page: "Page", address: str, prompt: str, tokens: int = 200) -> str:
    """Submit a prompt in the page, and return the request's id once the answer has begun."""
    page.set_default_timeout(PATIENCE)
    await page.goto(address)
    await page.fill("#prompt", prompt)
    await page.fill("#tokens", str(tokens))
    await page.press("#prompt", "Control+Enter")
    await page.locator('.view[data-state="running"] .text:not(:empty)').first.wait_for()
    return await page.locator(".id").first.inner_text()


async def entries(page: "Page", count: int) -> None:
    """Wait until the log is known to have so many entries."""
    await page.wait_for_function(ENTRIES, arg=count)


async def texts(page: "Page") -> list[str]:
    """Return the text of each view as the log has it, once all are complete."""
    count = await page.locator(".view").count()
    await page.locator(COMPLETE).nth(count - 1).wait_for()
    for button in await page.locator("button.raw[aria-pressed=false]").element_handles():
        await button.click()
    return await page.locator(".text").all_text_contents()


async def read(following: Following, *, updates: int = 0) -> str:
    """Return the text of the first ``count`` updates; of all by default."""
    text = ""
    async for event in following:
        if isinstance(event, Update):
            text = event.text if event.replaces else text + event.text
            updates -= 1
            if updates == 0:
                break
    return text


async def test_a_cut_network_loses_nothing(chromium: "Browser", playground: str) -> None:
    """The model goes on while the network is down; then two tabs have the text of a client that stayed connected."""
    async with CuttingProxy(playground) as proxy, Client(playground) as client:
        context = await chromium.new_context(viewport={"width": 1200, "height": 860})
        page, other = await context.new_page(), await context.new_page()
        other.set_default_timeout(PATIENCE)
        request_id = await ask(page, proxy.url, "Tell me a long story about the sea.", tokens=250)
        async with client.follow(request_id) as staying:
            proxy.cut(refusing=True)
            await page.locator('.view[data-state="waiting"], .view[data-state="connecting"]').wait_for()
            await page.get_by_role("button", name="Raw").click()
            shown = await page.locator(".text").text_content()
            whole = await read(staying, updates=MISSED + len(shown or ""))
            proxy.refusing = False
            await other.goto(f"{proxy.url}/?request={request_id}")
            await asyncio.gather(page.locator(COMPLETE).wait_for(), other.locator(COMPLETE).wait_for())
            whole += await read(staying)
        assert await texts(page) == await texts(other) == [whole]
        assert len(whole) > len(shown or "")
        assert await page.locator(".source").text_content() == "upstream"
        assert await page.locator(".rows path.mark.left").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_plug_is_a_button(chromium: "Browser", playground: str, pictures: Path, scheme: Any) -> None:  # noqa: ANN401 - a literal of the browser's
    """Unplugged, a view stops while a second one goes on; plugged in again, both have the same text."""
    page = await chromium.new_page(viewport={"width": 1100, "height": 980}, color_scheme=scheme)
    await ask(page, playground, "Tell me a story about the moon and a fox.")
    await entries(page, 40)
    await page.get_by_role("button", name="Pull the plug").click()
    cut = page.locator('.view[data-state="cut"]')
    await cut.wait_for()
    before = await cut.locator(".text").text_content()
    await page.get_by_role("button", name="Second view").click()
    await entries(page, 110)
    await page.evaluate("() => scrollTo(0, 0)")
    await page.screenshot(path=pictures / f"playground-{scheme}.png")
    await page.locator(COMPLETE).wait_for()
    assert await cut.locator(".text").text_content() == before
    await page.get_by_role("button", name="Plug it back in").click()
    first, second = await texts(page)
    assert first == second
    assert len(first) > len(before or "")
    assert await page.locator(".trace").first.text_content() == await page.locator(".trace").last.text_content()


async def test_it_is_read_on_a_phone_in_the_dark(chromium: "Browser", playground: str, pictures: Path) -> None:
    """Nothing is wider than the screen; the keyboard suffices to submit, cut, come back, cancel and close."""
    context = await chromium.new_context(viewport={"width": 390, "height": 844}, color_scheme="dark")
    page = await context.new_page()
    await ask(page, playground, "Tell me a long story about a lighthouse.", tokens=400)
    await entries(page, 30)
    await page.get_by_role("button", name="Pull the plug").press("Enter")
    await entries(page, 60)
    await page.get_by_role("button", name="Plug it back in").press("Enter")
    await page.locator(".note").filter(has_text="caught up on, none missing").wait_for()
    await entries(page, 90)
    await page.get_by_role("button", name="Cancel").press("Enter")
    await page.locator('.view[data-state="cancelled"]').wait_for()
    await page.locator(".request").evaluate("(request) => request.scrollIntoView()")
    await page.screenshot(path=pictures / "playground-phone.png")
    box = await page.locator("html").bounding_box()
    assert box is not None
    assert box["width"] <= 390
    assert (await page.locator("main").bounding_box() or {"width": 999})["width"] <= 390
    await page.get_by_role("button", name="Close View 1").press("Enter")
    assert await page.locator(".view").count() == 0
    assert await page.evaluate("() => document.activeElement.id") == "prompt"
