"""Every fault, through every provider adapter, at every surface."""

import asyncio
from collections.abc import Iterator, Sequence

import pytest
import structlog

from protocol.events import Completed, Failed
from tests.contracts.conformance.adapters import ADAPTERS, Adapter
from tests.contracts.conformance.faults import ATTEMPTS, CASES, HELLO, Case
from tests.contracts.conformance.rig import SOON, Rig, open_rig
from tests.contracts.conformance.surfaces import SURFACES, Failure, Seen, Surface

TOGETHER = 4  # surfaces


@pytest.fixture(autouse=True)
def _plain_logs() -> Iterator[None]:
    """Log plain lines."""
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
    yield
    structlog.reset_defaults()


@pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_fault_ends_once_and_leaves_nothing(case: Case, adapter: Adapter) -> None:
    """Every surface has one end, in time, with its code, in its own words; and its next request is answered."""
    async with asyncio.timeout(SOON), open_rig([adapter], deadlines=case.deadlines, total=case.total) as rig:
        before = await rig.footprint()
        for surfaces in groups(case, adapter):
            for surface, seen in zip(surfaces, await run_case(rig, case, adapter, surfaces), strict=True):
                await check_end(rig, case, surface, seen)
                await check_state(rig, case, seen)
            for surface in surfaces:
                await answered(rig, adapter, surface)
        await rig.wait_for(before)


def groups(case: Case, adapter: Adapter) -> Iterator[tuple[Surface, ...]]:
    """Surfaces that run at once: together they fail too seldom for the breaker, and get the same replies."""
    replies = case.script(asyncio.Event())
    size = TOGETHER if all(reply == replies[0] for reply in replies) else 1
    asked = tuple(surface for surface in SURFACES if surface.name in adapter.surfaces or not adapter.surfaces)
    for start in range(0, len(asked), size):
        yield asked[start : start + size]


async def answered(rig: Rig, adapter: Adapter, surface: Surface) -> None:
    """Send a request, and check its answer."""
    seen = await surface.ask(rig.client, adapter.target, "hi")
    found = seen.status, seen.text, seen.ends, seen.kind, seen.code
    assert found == (surface.status, HELLO, 1, "", ""), (surface.name, seen.raw)


async def run_case(rig: Rig, case: Case, adapter: Adapter, surfaces: Sequence[Surface]) -> list[Seen]:
    """Send a request at each surface while the upstream does what the case says, and return what came."""
    upstream, seen = rig.upstream, asyncio.Event()
    replies = case.script(seen) * len(surfaces)
    upstream.script(*replies)
    if case.deaf:
        await upstream.stop_listening()
        upstream.hang_up()
    calls = upstream.calls + len(replies)
    asking = asyncio.gather(*(surface.ask(rig.client, adapter.target, "hi") for surface in surfaces))
    called = asyncio.ensure_future(upstream.called(calls))
    await asyncio.wait((called, asking), return_when=asyncio.FIRST_COMPLETED)
    called.cancel()
    assert upstream.calls == calls, f"{upstream.calls} of {calls} calls came before the answers"
    if case.begun:
        await rig.until_text(case.text, len(surfaces))
    seen.set()
    came = await asking
    assert upstream.calls == calls
    if case.deaf:
        await upstream.listen_again()
    return came


async def check_end(rig: Rig, case: Case, surface: Surface, seen: Seen) -> None:
    """The client saw the right end, without the upstream's own words, and the log has that end only, at its end."""
    where = surface.name, seen.raw
    failure = surface.failure(case.code, begun=case.begun) if case.code else Failure(surface.status, "")
    assert (seen.status, seen.kind, seen.code) == (failure.status, failure.kind, case.code), where
    assert seen.text == (case.text if surface.streams or not case.code else ""), where
    assert (seen.ends, "secret" in seen.raw) == (1, False), where
    assert seen.retry_after == (case.retry_after if surface.says_when else None), where
    record = await rig.record_of(seen.request_id)
    last = record.run.log.terminal
    assert last is not None
    event = last.event
    code = event.code if isinstance(event, Failed) else "" if isinstance(event, Completed) else None
    assert code == case.code, where


async def check_state(rig: Rig, case: Case, seen: Seen) -> None:
    """The request's state agrees, with every attempt and its usage: counted, estimated, or none."""
    used = expected_usage(case)
    state = await rig.state_of(seen.request_id, usage=used)
    assert state["assistantStatus"] == ("failed" if case.code else "completed")
    assert state.get("error", {}).get("code", "") == case.code
    assert len(state["attempts"]) == (ATTEMPTS if case.deaf else len(case.script(asyncio.Event())))
    last = state["attempts"][-1] if state["attempts"] else {}
    assert ("usage" in last, last.get("estimated", False)) == (used != (0, 0), case.begun)
    assert seen.usage in ((None, used) if case.code else (used,))


def expected_usage(case: Case) -> tuple[int, int]:
    """Tokens in and out: the reported ones, or without a report an estimate of a token per four characters."""
    if case.code:
        return (1, -(-len(case.text) // 4)) if case.begun else (0, 0)
    return 7, 3
