"""The page at ``/``: errors where they happen, sharing only where it is wanted, the keyboard, the phone and the eye."""

import asyncio
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from protocol.errors import TidegateError
from service.http import pages
from service.http.pages import ASSET
from tests.browser.refusing_front import RefusingFront
from tests.browser.visitor import PLUG, ask, button, ticked, until, view, visiting
from tests.service.bench import open_service

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

IMPORT: Final = re.compile(r'^import .* from "([^"]+)";$', re.MULTILINE)
WEB: Final = Path(pages.__file__).parent.parent / "web"
KEY: Final = "a-key-of-the-tests"
pytestmark = pytest.mark.timeout(60)

CONTRASTS: Final = """
() => {
    const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const rgba = (color) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const light = ([r, g, b]) => [r, g, b].map((value) => value / 255)
        .map((value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
        .reduce((sum, value, index) => sum + value * [0.2126, 0.7152, 0.0722][index], 0);
    const ground = (node) => {
        for (; node; node = node.parentElement) {
            const color = rgba(getComputedStyle(node).backgroundColor);
            if (color[3] === 255) return color;
        }
        return [255, 255, 255];
    };
    const poor = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const node = texts.currentNode.parentElement;
        if (!texts.currentNode.data.trim() || !node.checkVisibility()) continue;
        if (node.closest("svg, .unseen, template, script")) continue;
        const [one, two] = [light(rgba(getComputedStyle(node).color)), light(ground(node))].sort((a, b) => b - a);
        const ratio = (one + 0.05) / (two + 0.05);
        if (ratio < 4.5) poor.push(`${texts.currentNode.data.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
    }
    return poor;
}
"""

FOCUSED: Final = "() => document.activeElement.ariaLabel || document.activeElement.textContent"
ADD_UNKNOWN: Final = "() => document.querySelector('#model').append(new Option('unknown', 'unknown', true, true))"
KEEP: Final = "([text]) => localStorage.setItem('tidegate-recent', text)"
CARET: Final = "(text) => getComputedStyle(text, '::after').animationName"
WIDE: Final = "\n\n".join(
    (
        "# T",
        "`code` and **bold** " + "x" * 200,
        "|a|b|\n|-|-|\n|" + "y" * 300 + "|2|",
        "> quote",
        "```\n" + "z" * 300 + "\n```",
        "end",
    )
)
"""Markdown that is wider than a phone."""

NAMELESS: Final = """
() => [...document.querySelectorAll("button, input, select, textarea, a[href], summary, [tabindex='0']")]
    .filter((node) => node.checkVisibility())
    .filter((node) => !(node.textContent.trim() || node.ariaLabel || node.labels?.length || node.title))
    .map((node) => node.outerHTML.slice(0, 80))
"""


def imported(path: str) -> set[str]:
    """Return the addresses of a module and of all that it imports."""
    found, waiting = {path}, [path]
    while waiting:
        name = waiting.pop().rpartition("/")[2].replace("client.js", "tidegate.js")
        fresh = set(IMPORT.findall((WEB / name).read_text())) - found
        found |= fresh
        waiting += fresh
    return found


async def focused(page: "Page") -> str:
    """Return the name of what has the focus."""
    return str(await page.evaluate(FOCUSED))


async def test_a_repeated_prompt_is_a_call_of_its_own(chromium: "Browser") -> None:
    """The same prompt streams again, with a plug to pull; with ``share`` it is a replay, and the view says so."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        for text in ("first", "second"):
            call = await ask(page, service, "the same")
            newest = page.locator(".request").first
            await call.say(text)
            await until(newest.locator(".text"), text)
            assert await newest.get_by_role("button", name=PLUG).is_enabled()
            await call.end()
            await until(newest.locator(".status"), "complete")
            assert await newest.locator(".source").inner_text() == "upstream"
        await page.get_by_label("Share with identical prompts").check()
        call = await ask(page, service, "the same")
        await call.say("third")
        await call.end()
        await until(page.locator(".request").first.locator(".status"), "complete")
        await page.get_by_role("button", name="Send").click()
        await until(page.locator(".request").first.locator(".note"), "A replay")
        assert await page.locator(".request").first.locator(".text").text_content() == "third"
        assert service.calls.empty()


async def test_an_error_stands_in_its_view(chromium: "Browser") -> None:
    """A call that fails, and an unknown model, are said where they were asked, with the remedy; the rest goes on."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        good = await ask(page, service, "good")
        await good.say("fine")
        bad = await ask(page, service, "bad")
        await bad.fail(TidegateError("It is down", code="provider_unavailable"))
        failed, other = page.locator(".request").first, page.locator(".request").last
        await until(failed.locator(".problem"), "It is down")
        assert await failed.locator(".problem .remedy").inner_text() != ""
        assert await failed.locator(".problem .code").get_attribute("href") == "/errors/provider_unavailable"
        assert await failed.locator(".status").inner_text() == "failed"
        assert await other.locator(".problem").is_hidden()
        assert await other.locator(".status").inner_text() == "streaming"
        await failed.get_by_role("button", name="Try again").click()
        again = await service.call()
        await again.say("now it works")
        await until(page.locator(".request").first.locator(".text"), "now it works")
        assert await page.locator(".request").count() == 2
        await asyncio.gather(again.end(), good.end())
        await page.evaluate(ADD_UNKNOWN)
        await page.get_by_role("button", name="Send").click()
        await until(page.locator(".request").first.locator(".problem"), "model_not_found")
        assert await page.locator(".request").first.locator(".status").inner_text() == "not sent"
        assert await page.locator(".request").first.locator(".timeline").is_hidden()
        assert await other.locator(".timeline").is_visible()


async def test_an_unknown_request_is_said_in_its_view(chromium: "Browser") -> None:
    """A link that leads nowhere shows why, and is not remembered."""
    async with open_service() as service, visiting(chromium, f"{service.base}/?request=req_gone") as page:
        await until(view(page, 1).locator(".problem"), "request_not_found")
        assert "kept for a limited time" in await view(page, 1).locator(".remedy").inner_text()
        assert await page.locator("#recent").is_hidden()
        assert await page.locator(".timeline").is_hidden()


async def test_a_refused_socket_is_said_in_its_view(chromium: "Browser") -> None:
    """A refused upgrade has no reason in a browser: the page gets it over HTTP, and does not try for ever."""
    problem = {
        "title": "This origin may not connect",
        "detail": "http://here is not among the allowed origins",
        "code": "origin_not_allowed",
        "remedy": "Add the origin to WS_ALLOWED_ORIGINS.",
    }
    async with (
        open_service() as service,
        RefusingFront(service.base, 403, problem) as front,
        visiting(chromium, front.url) as page,
    ):
        await page.get_by_role("button", name="Send").click()
        call = await service.call()
        shown = view(page, 1).locator(".problem")
        await until(shown, "This origin may not connect: http://here is not among the allowed origins")
        await until(shown, "Add the origin to WS_ALLOWED_ORIGINS.")
        assert await view(page, 1).locator(".status").inner_text() == "not connected"
        assert front.upgrades <= 2  # at times the browser sends a second one; it does not go on
        front.refusing = False
        await call.say("still here")
        await button(page, "Try again")
        await until(view(page, 1).locator(".text"), "still here")
        await call.end()


async def test_a_socket_that_is_refused_for_a_while_comes_back(chromium: "Browser") -> None:
    """A temporary reason is shown while the page goes on trying."""
    problem = {"title": "Stopping", "detail": "The service is stopping", "code": "shutting_down", "remedy": "Wait."}
    async with (
        open_service() as service,
        RefusingFront(service.base, 503, problem) as front,
        visiting(chromium, front.url) as page,
    ):
        await page.get_by_role("button", name="Send").click()
        call = await service.call()
        await until(view(page, 1).locator(".note"), "Stopping. The service is stopping. Wait.")
        assert await view(page, 1).locator(".problem").is_hidden()
        front.refusing = False
        await call.say("here again")
        await until(view(page, 1).locator(".text"), "here again")
        assert await view(page, 1).locator(".note").is_hidden()
        await call.end()


async def test_a_missing_key_is_asked_for(chromium: "Browser") -> None:
    """The row of the key opens with the reason; with a key the request goes out, and the key stays in the tab."""
    async with open_service(api_keys=(KEY,)) as service, visiting(chromium, service.base) as page:
        await until(page.locator("#key-problem"), "This service wants a key")
        await page.get_by_role("button", name="Send").click()
        await until(view(page, 1).locator(".problem"), "unauthenticated")
        await button(page, "Enter a key")
        assert await page.evaluate("() => document.activeElement.id") == "key"
        await page.keyboard.type(KEY)
        await page.keyboard.press("Tab")
        await button(page, "Try again")
        call = await service.call()
        await call.say("come in")
        await until(view(page, 1).locator(".text"), "come in")
        assert await page.locator("#key-problem").inner_text() == ""
        await call.end()


async def test_a_link_without_a_key_is_said_to_a_person(chromium: "Browser") -> None:
    """The view of a link has the words of the form, and not those for programs."""
    async with open_service(api_keys=(KEY,)) as service, visiting(chromium, f"{service.base}/?request=req_a") as page:
        shown = view(page, 1).locator(".problem")
        await until(shown, "unauthenticated")
        assert await shown.locator(".what").inner_text() == "This service wants a key."
        assert "Enter a key" in await shown.locator(".remedy").inner_text()
        assert await page.locator("#key-problem").inner_text() == "This service wants a key."
        assert await page.locator(".timeline").is_hidden()


async def test_recent_requests_are_few_and_forgotten(chromium: "Browser") -> None:
    """The newest come first, in this browser only; a strange storage does no harm."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        for number in range(13):
            call = await ask(page, service, f"prompt {number}")
            await call.end()
        assert await page.locator("#recent li").count() == 12
        assert await page.locator(".request").count() == 12
        await page.locator("#recent summary").click()
        assert "prompt 12" in await page.locator("#recent li").first.inner_text()
        await page.reload()
        await page.locator("#recent summary").click()
        await page.locator("#recent a", has_text="prompt 5").press("Enter")
        await until(view(page, 1).locator(".status"), "complete")
        assert await focused(page) == "View 1 of prompt 5"
        await page.get_by_role("button", name="Forget them all").press("Enter")
        assert await page.locator("#recent").is_hidden()
        await page.evaluate(KEEP, ['[{"id": 7}, null, {"id": "a", "title": "<b>", "at": 1}]'])
        await page.reload()
        assert await page.locator("#recent li").count() == 1
        await page.evaluate(KEEP, ["{"])
        await page.reload()
        assert await page.locator("#recent").is_hidden()


async def test_what_is_copied_is_said(chromium: "Browser") -> None:
    """A copy button says what came of it, for a moment, to the eye and to the ear."""
    rights = ["clipboard-read", "clipboard-write"]
    async with open_service() as service, visiting(chromium, service.base, permissions=rights) as page:
        call = await ask(page, service)
        await call.say("the answer")
        await until(view(page, 1).locator(".text"), "the answer")
        for name, fact in (("copy-id", ".id"), ("copy-trace", ".trace"), ("copy-text", ".text")):
            await view(page, 1).locator(f".{name}").press("Enter")
            await view(page, 1).locator(f".{name}[data-feedback='copied ✓']").wait_for()
            wanted = await view(page, 1).locator(fact).text_content()
            assert await page.evaluate("() => navigator.clipboard.readText()") == wanted
        assert await page.locator("#said").text_content() == "Copied"
        await call.end()


async def test_the_keyboard_suffices(chromium: "Browser") -> None:
    """From the prompt to the last step of the hint with the keyboard alone; the focus is never lost."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        await page.keyboard.press("Tab")
        while await page.evaluate("() => document.activeElement.id") != "prompt":
            await page.keyboard.press("Tab")
        await page.keyboard.press("Control+Enter")
        call = await service.call()
        assert await focused(page) == "View 1 of Tell me a story about the sea and the moon."
        await view(page, 1).and_(page.locator("[data-state='running']")).wait_for()
        await call.say("a")
        await until(view(page, 1).locator(".text"), "a")

        async def press(name: str) -> None:
            for _ in range(20):
                await page.keyboard.press("Tab")
                if await focused(page) == name:
                    break
            assert await focused(page) == name
            await page.keyboard.press("Enter")

        await press(PLUG)
        await page.locator('#hint [data-step="unplug"][data-done]').wait_for()
        await page.keyboard.press("Enter")  # the same button is the way back
        await page.locator('#hint [data-step="replug"][data-done]').wait_for()
        await press("Second view")
        await until(view(page, 2).locator(".text"), "a")
        assert await ticked(page) == ["ask", "unplug", "replug", "second"]
        assert (await focused(page)).startswith("View 2 of")
        await press("Cancel")
        await until(view(page, 2).locator(".status"), "cancelled")
        assert (await focused(page)).startswith("View 2 of")
        assert call.cancelled.is_set()
        assert await view(page, 2).locator(".problem").is_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_can_be_read_by_everybody(chromium: "Browser", scheme: Any) -> None:  # noqa: ANN401 - a literal of the browser's
    """Each text has a contrast of 4.5 : 1, each control a name, and a phone of 390 px needs no horizontal scrolling."""
    context = {"viewport": {"width": 390, "height": 844}, "color_scheme": scheme, "reduced_motion": "reduce"}
    async with open_service() as service, visiting(chromium, service.base, **context) as page:
        await page.get_by_label("JSON by a schema").check()
        await page.get_by_label("Text").check()
        call = await ask(page, service)
        await call.say(WIDE)
        await until(view(page, 1).locator(".text"), "end")
        await button(page, PLUG)
        await button(page, "Second view")
        await call.say("a", "b")
        await until(view(page, 1).locator(".note"), "2 entries wait")
        failing = await ask(page, service, "w" * 300)
        await failing.fail(TidegateError("v" * 300, code="provider_error"))
        await page.locator(".problem:visible").wait_for()
        await page.locator(".events summary").first.click()
        await page.locator("#key-row summary").click()
        assert await page.evaluate(CONTRASTS) == []
        assert await page.evaluate(NAMELESS) == []
        assert await page.evaluate("() => document.documentElement.scrollWidth") <= 390
        assert await page.locator(".view[data-state=running] .text").first.evaluate(CARET) == "none"
        await call.end()


async def test_everything_is_from_here(chromium: "Browser") -> None:
    """The page, its modules and styles come from the service, with a policy that allows nothing else."""
    async with open_service() as service:
        page = await (await chromium.new_context()).new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(service.base)
        await page.locator("#prompt").wait_for()
        assert await page.locator("#model option").count() >= 1
        assert all(url.startswith((service.base, "data:")) for url in asked)
        scripts = {url.removeprefix(service.base) for url in asked if url.endswith(".js")}
        assert scripts == imported("/web/playground.js"), "index.html preloads what is imported, and nothing else"
        assert len(asked) == len(set(asked))
        for url in asked:
            if not url.startswith(service.base) or "/v1/" in url:
                continue
            response = await service.get(url.removeprefix(service.base))
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            again = await service.get(url.removeprefix(service.base), If_None_Match=response.headers["ETag"])
            assert again.status == 304
        for name in ("nothing.js", "index.html", "tidegate.js", "%2e%2e/index.html"):
            assert (await service.get(ASSET.format(name=name))).status == 404
