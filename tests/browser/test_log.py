"""The page's picture of a log, over a network that is cut: who follows, left and is back; and the hint beside it."""

from typing import TYPE_CHECKING, Final

import pytest

from protocol.events import AttemptFailed, Delta
from tests.browser.visitor import BACK, PLUG, ask, button, row, ticked, until, view, visiting
from tests.cutting_proxy import CuttingProxy
from tests.service.bench import open_service

if TYPE_CHECKING:
    from playwright.async_api import Browser

BOXES: Final = "() => [...document.querySelectorAll('.view')].map((view) => view.getBoundingClientRect().toJSON())"
STREAMS: Final = "It streams. Now pull the plug, while it does."
AGAIN: Final = "The answer is complete. Ask again, and pull the plug while it streams."
pytestmark = pytest.mark.timeout(60)


async def test_the_hint_ticks_off_what_was_done(chromium: "Browser") -> None:
    """Each step is ticked when it has happened, and the hint stays."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        assert await ticked(page) == []
        call = await ask(page, service)
        await call.say("one ", "two ")
        await until(view(page, 1).locator(".text"), "one two")
        assert await ticked(page) == ["ask"]
        await button(page, PLUG)
        await page.locator('#hint [data-step="unplug"][data-done]').wait_for()
        await button(page, BACK)
        await page.locator('#hint [data-step="replug"][data-done]').wait_for()
        await button(page, "Second view")
        await page.locator('#hint [data-step="second"][data-done]').wait_for()
        assert await ticked(page) == ["ask", "unplug", "replug", "second"]
        assert await page.locator("#hint").is_visible()
        await call.end()


async def test_a_log_goes_on_while_its_view_is_unplugged(chromium: "Browser") -> None:
    """The page shows how far the log is; back again, the view has caught up on exactly what it missed."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        call = await ask(page, service)
        await call.say("a", "b", "c")
        await until(view(page, 1).locator(".text"), "abc")
        await button(page, PLUG)
        await call.say("d", "e", "f", "g", "h")
        await until(row(page, "View 1"), "away at 4: 5 wait for it")
        await until(view(page, 1).locator(".note"), "5 entries wait for it")
        assert await view(page, 1).locator(".text").text_content() == "abc"
        assert await row(page, "View 1").locator("rect[data-kind=waits]").count() == 1
        assert await row(page, "The log").locator("rect[data-kind=unread]").count() == 1
        await button(page, BACK)
        await until(view(page, 1).locator(".note"), "5 entries caught up on, none missing, none twice")
        assert await view(page, 1).locator(".text").text_content() == "abcdefgh"
        await call.say("i")
        await call.end()
        await until(row(page, "The log"), "11 entries, completed")
        await until(row(page, "View 1"), "has 11")
        spans = [await bar.get_attribute("data-kind") for bar in await row(page, "View 1").locator("rect").all()]
        assert spans[-3:] == ["live", "caught", "live"]
        marks = [await mark.get_attribute("class") for mark in await row(page, "View 1").locator("path").all()]
        assert marks == ["mark joined", "mark left", "mark joined"]
        await page.locator(".events summary").click()
        events = await page.locator(".events li").all_inner_texts()
        for told in ("submitted", "View 1 follows", "View 1: unplugged at offset 4", "View 1 is back, after offset 4"):
            assert any(told in event for event in events), told
        assert any("ends at offset 11: completed" in event for event in events)
        assert any("call to p, m-1: ok" in event for event in events)


async def test_a_lost_connection_is_in_the_picture(chromium: "Browser") -> None:
    """A network that breaks off is no step of the hint; the view says what is the matter, and comes back by itself."""
    async with open_service() as service, CuttingProxy(service.base) as proxy, visiting(chromium, proxy.url) as page:
        call = await ask(page, service)
        await call.say("a", "b")
        await until(view(page, 1).locator(".text"), "ab")
        proxy.cut(refusing=True)
        await until(view(page, 1).locator(".note"), "Lost at offset 3")
        await until(view(page, 1).locator(".status"), "the service does not answer")
        assert await ticked(page) == ["ask"]
        assert await page.locator("#next").inner_text() == STREAMS
        await call.say("c", "d")
        proxy.refusing = False
        await until(view(page, 1).locator(".text"), "abcd")
        await until(view(page, 1).locator(".note"), "2 entries caught up on")
        assert await ticked(page) == ["ask"]
        await page.locator(".events summary").click()
        await until(page.locator(".events li"), "View 1: connection lost at offset 3")
        assert "goes on" not in " ".join(await page.locator(".events li").all_inner_texts())
        await call.end()


async def test_the_hint_knows_when_nothing_streams(chromium: "Browser") -> None:
    """After the end there is no plug to pull: the hint says to ask again, until the next answer streams."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        for prompt in ("one", "two"):
            call = await ask(page, service, prompt)
            await call.say("a")
            await until(page.locator("#next"), STREAMS)
            await call.end()
            await until(page.locator("#next"), AGAIN)


async def test_a_lost_request_is_said(chromium: "Browser") -> None:
    """A service that has begun anew does not know the request: neither the view nor the log says that it goes on."""
    async with open_service() as service, CuttingProxy(service.base) as proxy, visiting(chromium, proxy.url) as page:
        call = await ask(page, service)
        await call.say("a", "b")
        await until(view(page, 1).locator(".text"), "ab")
        proxy.cut(refusing=True)
        await until(view(page, 1).locator(".note"), "Lost at offset 3")
        request_id = await view(page, 1).locator(".id").inner_text()
        await service.client.delete(f"{service.base}/api/requests/{request_id}")
        proxy.refusing = False
        await until(view(page, 1).locator(".status"), "not found")
        await until(row(page, "The log"), "3 entries; the service does not know it any more")
        await until(row(page, "View 1"), "has got 3")
        assert await view(page, 1).locator(".text").text_content() == "ab"


async def test_a_second_view_has_its_facts_at_once(chromium: "Browser") -> None:
    """While the answer is written, the second view shows the request, trace and source, beside the first one."""
    wide = {"width": 1280, "height": 900}
    async with open_service() as service, visiting(chromium, service.base, viewport=wide) as page:
        call = await ask(page, service)
        await call.say("so far")
        await until(view(page, 1).locator(".text"), "so far")
        await button(page, "Second view")
        await until(view(page, 2).locator(".text"), "so far")
        for fact in (".id", ".trace", ".source", ".first", ".model"):
            shown = await view(page, 2).locator(fact).text_content()
            assert shown == await view(page, 1).locator(fact).text_content() != "", fact
        assert await view(page, 2).get_attribute("data-state") == "running"
        assert await page.evaluate("() => document.activeElement.getAttribute('aria-label')") == "View 2 of hi"
        one, two = await page.evaluate(BOXES)
        assert one["y"] == two["y"]
        assert one["x"] + one["width"] < two["x"]
        await page.set_viewport_size({"width": 390, "height": 844})
        one, two = await page.evaluate(BOXES)
        assert one["x"] == two["x"]
        assert one["y"] + one["height"] <= two["y"]
        await until(row(page, "View 2"), "2 of them caught up")
        await call.end()
        await view(page, 2).locator(".tokens").filter(has_text="3 in, 1 out").wait_for()
        assert await service.followers(await view(page, 1).locator(".id").inner_text()) == 0


async def test_a_link_has_its_facts_while_the_answer_is_written(chromium: "Browser") -> None:
    """A page that only follows asks for the facts before the end."""
    async with open_service() as service:
        request_id = await service.submit()
        call = await service.call()
        await call.say("so far")
        async with visiting(chromium, f"{service.base}/?request={request_id}") as page:
            await until(view(page, 1).locator(".text"), "so far")
            await until(view(page, 1).locator(".source"), "upstream")
            assert len(await view(page, 1).locator(".trace").inner_text()) == 32
            assert await ticked(page) == ["second"]
            await call.end()
            await until(view(page, 1).locator(".status"), "complete")


async def test_another_tab_has_a_row_of_its_own(chromium: "Browser") -> None:
    """Tabs of one browser show each other's views of a request, while they last."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        call = await ask(page, service)
        await call.say("a", "b")
        await until(view(page, 1).locator(".text"), "ab")
        address = await view(page, 1).locator(".id").get_attribute("href") or ""
        other = await page.context.new_page()
        await other.goto(service.base + address)
        await until(row(page, "View 1, other tab"), "has 3, 3 of them caught up")
        await until(row(other, "View 1, other tab"), "has 3")
        await button(page, PLUG)
        await until(row(other, "View 1, other tab"), "away at 3")
        await call.say("c")
        await until(row(page, "View 1, other tab"), "has 4")
        await until(row(other, "View 1, other tab"), "away at 3: 1 waits for it")
        await other.close(run_before_unload=False)
        await call.end()


LOG: Final = """
async () => {
    const { Log } = await import("/web/log.js");
    const { Timeline } = await import("/web/timeline.js");
    let now = 0;
    const log = new Log(() => now++);
    const lane = log.lane("View 1");
    lane.joined({ after: 0, offset: 2, epoch: "a", state: "running", recovered: true }, true);
    lane.took({ type: "update", from: 1, offset: 2, data: { delta: "x" } });
    lane.left("unplugged");
    lane.joined({ after: 2, offset: 9, epoch: "b", state: "running", recovered: false }, true);
    lane.took({ type: "update", offset: 9, epoch: "b", snapshot: true, data: { text: "y" } });
    for (let offset = 10; offset < 2010; offset++) {
        lane.took({ type: "update", offset, data: offset % 2 ? { delta: "x" } : { reasoning: "y" } });
        if (offset % 20 === 0) {
            lane.left("unplugged");
            lane.joined({ after: offset, offset, epoch: "b", state: "running", recovered: true }, true);
        }
    }
    log.host("tab", "b", Array.from({ length: 50 }, () => lane).map((one, index) => ({ ...one, name: `${index}` })));
    const { spans, marks, notes, dropped, head, guests } = log;
    return { spans: spans.length, first: spans[0], last: spans.at(-1).to, laneFirst: lane.spans[0],
        kinds: lane.marks.length, notes: notes.length, dropped, head, guests: guests.size };
}
"""


async def test_a_log_is_bounded_and_knows_snapshots(chromium: "Browser") -> None:
    """A snapshot of another epoch begins the picture anew; nothing in it grows for ever."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        log = await page.evaluate(LOG)
        assert log["first"] == {"from": 1, "to": 9, "kind": "unread"}
        assert log["laneFirst"] == {"from": 1, "to": 9, "kind": "snapshot"}
        assert (log["last"], log["head"]) == (2009, 2009)
        assert (log["spans"], log["kinds"], log["notes"], log["guests"]) == (400, 40, 60, 8)
        assert log["dropped"] > 100


async def test_an_attempt_that_broke_off_is_marked(chromium: "Browser") -> None:
    """A restart is a mark in the log, and an event with its reason; the text before it is gone."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        call = await ask(page, service)
        await call.tell(Delta(text="wrong"))
        await until(view(page, 1).locator(".text"), "wrong")
        await call.tell(AttemptFailed(provider="q", model="m", code="provider_stream_broken", restart=True))
        await call.say("right")
        await call.end()
        await until(view(page, 1).locator(".status"), "complete")
        assert await view(page, 1).locator(".text").text_content() == "right"
        assert await row(page, "The log").locator("path.mark.attempt").count() == 1
        await page.locator(".events summary").click()
        told = "an attempt broke off at q: provider_stream_broken; the answer begins again"
        await until(page.locator(".events li"), told)


async def test_a_closed_view_leaves_the_request_alone(chromium: "Browser") -> None:
    """The other view goes on and gets the focus; after the last one the focus is on the prompt."""
    async with open_service() as service, visiting(chromium, service.base) as page:
        call = await ask(page, service)
        await call.say("a")
        await until(view(page, 1).locator(".text"), "a")
        await button(page, "Second view")
        await until(view(page, 2).locator(".text"), "a")
        await view(page, 1).get_by_role("button", name="Close View 1").click()
        assert await page.evaluate("() => document.activeElement.getAttribute('aria-label')") == "View 2 of hi"
        await until(row(page, "View 1"), "closed at 2")
        await call.say("b")
        await until(view(page, 2).locator(".text"), "ab")
        await view(page, 2).get_by_role("button", name="Close View 2").click()
        assert await page.evaluate("() => document.activeElement.id") == "prompt"
        await call.end()
