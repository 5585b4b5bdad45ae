"""Many requests at once, many of which fail: each ends, usage adds up, and nothing is left."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal

import msgspec
import pytest

from actors.llm_gateway.provider import ProviderDeadlines
from actors.requests.record import RequestRecord
from actors.testing import End, Received, Reply, Say
from actors.upstream.pricing import Prices
from protocol.events import AttemptFailed, Failed
from protocol.llm import Usage
from tests.contracts.conformance.adapters import ADAPTERS, Adapter
from tests.contracts.conformance.faults import ATTEMPTS, BEGUN, CASES, TOTAL
from tests.contracts.conformance.rig import Rig, open_rig
from tests.contracts.conformance.surfaces import SURFACES, Surface

REQUESTS = int(os.environ.get("CONFORMANCE_REQUESTS", "1000"))
BOUND = 50 + REQUESTS // 20  # seconds
TOGETHER = 32
UNSEEN = ("provider_stream_broken", "provider_bad_response")  # failures with content that nobody saw
FAULTY = 0.3  # of the upstream's replies
SEED = 20
DEADLINES = ProviderDeadlines(connect=5, first_token=2, between_chunks=2)  # far beyond what a good answer may take

Asked = Iterator[tuple[Adapter, Surface, str]]


@pytest.mark.timeout(BOUND)
async def test_every_request_ends_and_the_tokens_add_up() -> None:
    """With any surface, provider and fault each request ends once, and the states have the usage of the upstream."""
    dice = random.Random(SEED)
    async with open_rig(ADAPTERS, deadlines=DEADLINES, total=TOTAL) as rig:
        before = await rig.footprint()
        good = replies(rig, dice)
        asked = iter([(dice.choice(ADAPTERS), dice.choice(SURFACES), f"question {n}") for n in range(REQUESTS)])
        records: dict[str, RequestRecord] = {}
        async with asyncio.TaskGroup() as group:
            for _ in range(TOGETHER):
                group.create_task(send_all(rig, asked, records))
        ends = Counter(record.state().assistant_status for record in records.values())
        assert ends["completed"] + ends["failed"] == REQUESTS
        assert min(ends.values()) > REQUESTS // 20
        await rig.wait_for(before)
        await check_accounts(rig, good, records)


def replies(rig: Rig, dice: random.Random) -> dict[int, Reply]:
    """Script as many replies as there may be calls, and return the good ones by their identity."""
    seen = asyncio.Event()
    seen.set()
    faults = [case.script(seen)[0] for case in CASES if case.code and not case.deaf and case.total == TOTAL]
    script = [dice.choice(faults) if dice.random() < FAULTY else answer(dice) for _ in range(REQUESTS * ATTEMPTS)]
    rig.upstream.script(*script)
    return {id(reply): reply for reply in script if reply not in faults}


def answer(dice: random.Random) -> Reply:
    """A good answer of some size, split anywhere, perhaps with a repeated end."""
    tokens = dice.randrange(1, 4000)
    usage = Usage(input_tokens=tokens, cached_input_tokens=dice.randrange(tokens), output_tokens=dice.randrange(1, 500))
    ends = (End(usage=usage),) * dice.choice((1, 1, 2))
    return Reply(steps=(*map(Say, "Many words." * dice.randrange(1, 4)), *ends), split=dice.choice((0, 0, 0, 150)))


async def send_all(rig: Rig, asked: Asked, records: dict[str, RequestRecord]) -> None:
    """Send one request after another, and collect their records."""
    for adapter, surface, text in asked:
        seen = await surface.ask(rig.client, adapter.target, text)
        where = surface.name, seen.raw
        assert (seen.ends, "secret" in seen.raw) == (1, False), where
        record = records[text] = await rig.record_of(seen.request_id)
        state = record.state()
        assert seen.code == (state.error.code if state.error is not msgspec.UNSET else ""), where
        if seen.usage is not None and not seen.code:
            assert seen.usage == surface.usage(state.usage), where


async def check_accounts(rig: Rig, good: dict[int, Reply], records: dict[str, RequestRecord]) -> None:
    """By provider: the answers, tokens and dollars in the states are those of the upstream, and our estimates."""
    prices = Prices()
    states = {text: record.state() for text, record in records.items()}
    answered = [(question(received), reply) for received, reply in rig.upstream.answered if id(reply) in good]
    done = {text for text, state in states.items() if state.assistant_status == "completed"}
    lost = {text: states[text].attempts for text, _ in answered if text not in done}
    assert (lost, len(answered)) == ({}, len(done))
    for text, record in records.items():
        check_estimates(text, record)
    for adapter in ADAPTERS:
        mine = [state for state in states.values() if state.provider == adapter.name]
        attempts = [attempt for state in mine for attempt in state.attempts if attempt.usage is not None]
        counted = [attempt for attempt in attempts if not attempt.estimated]
        served = [_usage(reply) for text, reply in answered if states[text].provider == adapter.name]
        guessed = [attempt.usage or Usage() for attempt in attempts if attempt.estimated]
        assert _sum(attempt.usage or Usage() for attempt in counted) == _sum(served)
        assert _sum(state.usage for state in mine) == _sum((*served, *guessed))
        costs = [await prices.cost(adapter.price_id, adapter.model, usage) for usage in served]
        told = [attempt.cost and attempt.cost.usd for attempt in counted]
        assert sorted(map(str, told)) == sorted(map(str, costs))
        assert (None in told) == (not adapter.price_id)
        costs += [await prices.cost(adapter.price_id, adapter.model, usage) for usage in guessed]
        spent = [state.cost.usd for state in mine if state.cost is not None]
        assert sum(spent, Decimal(0)) == sum((cost for cost in costs if cost is not None), Decimal(0))


def check_estimates(text: str, record: RequestRecord) -> None:
    """A call that broke off after content is estimated by its length; one before it has used nothing.

    Content that came in one read with the end marker, and without a finish reason or the calls that it names, was shown
    to nobody: such a call is estimated, and sent again where that may help.
    """
    estimates = [attempt for attempt in record.attempts if attempt.estimated]
    said = record.stream.snapshot().text
    broken = isinstance(record.stream.since(record.stream.offset - 1)[-1].event, Failed)
    shown = [attempt for attempt in estimates if broken and said and attempt is record.attempts[-1]]
    assert len(shown) == (1 if broken and said else 0), text
    ends = [entry for entry in record.stream.since(0) if isinstance(entry.event, AttemptFailed)]
    assert len(ends) == len(shown), text  # of content that was shown, and of no other
    for attempt in estimates:
        content = said if attempt in shown else BEGUN
        assert attempt in shown or attempt.error in UNSEEN, text
        assert attempt.usage == Usage(input_tokens=-(-len(text) // 4), output_tokens=-(-len(content) // 4))
    if broken:
        assert [attempt.usage for attempt in record.attempts if not attempt.estimated].count(None) == (
            len(record.attempts) - len(estimates)
        )


def question(received: Received) -> str:
    """The text of the request to the upstream."""
    content = received.body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _usage(reply: Reply) -> Usage:
    last = reply.steps[-1]
    return (last.usage if isinstance(last, End) else None) or Usage()


def _sum(usages: Iterable[Usage]) -> Usage:
    total = Counter[str]()
    for usage in usages:
        total.update(msgspec.structs.asdict(usage))
    return Usage(**total)
