"""Many requests at once, of which many fail: each ends, what was used adds up, and nothing is left."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterable, Iterator

import msgspec
import pytest

from actors.llm_gateway.pricing import Prices
from actors.llm_gateway.provider import Deadlines
from actors.testing import End, Received, Reply, Say
from protocol.llm import Usage
from protocol.requests import RequestState
from tests.conformance.adapters import ADAPTERS, Adapter
from tests.conformance.faults import ATTEMPTS, CASES, TOTAL
from tests.conformance.rig import Rig, open_rig
from tests.conformance.surfaces import SURFACES, Surface

REQUESTS = int(os.environ.get("CONFORMANCE_REQUESTS", "1000"))
BOUND = 50 + REQUESTS // 20  # seconds
TOGETHER = 32
FAULTY = 0.3  # of the upstream's replies
SEED = 20
DEADLINES = Deadlines(connect=5, first_token=2, between_chunks=2)  # far beyond what a good answer may take

Asked = Iterator[tuple[Adapter, Surface, str]]


@pytest.mark.timeout(BOUND)
async def test_every_request_ends_and_the_tokens_add_up() -> None:
    """Any surface, provider and fault: each ends once, and the states say what the upstream has served and no more."""
    dice = random.Random(SEED)
    async with open_rig(ADAPTERS, deadlines=DEADLINES, total=TOTAL) as rig:
        before = await rig.footprint()
        good = replies(rig, dice)
        asked = iter([(dice.choice(ADAPTERS), dice.choice(SURFACES), f"question {n}") for n in range(REQUESTS)])
        states: dict[str, RequestState] = {}
        async with asyncio.TaskGroup() as group:
            for _ in range(TOGETHER):
                group.create_task(ask_on(rig, asked, states))
        ends = Counter(state.assistant_status for state in states.values())
        assert ends["completed"] + ends["failed"] == REQUESTS
        assert min(ends.values()) > REQUESTS // 20
        await check_accounts(rig, good, states)
        await rig.becomes(before)
        await rig.rested()


def replies(rig: Rig, dice: random.Random) -> dict[int, Reply]:
    """Let the upstream give as many replies as there can be calls, and return the good ones by their identity."""
    seen = asyncio.Event()
    seen.set()
    faults = [case.script(seen)[0] for case in CASES if case.code and not case.deaf and case.total == TOTAL]
    script = [dice.choice(faults) if dice.random() < FAULTY else answer(dice) for _ in range(REQUESTS * ATTEMPTS)]
    rig.upstream.script(*script)
    return {id(reply): reply for reply in script if reply not in faults}


def answer(dice: random.Random) -> Reply:
    """A good answer of some size, cut anywhere, which perhaps says its end twice."""
    tokens = dice.randrange(1, 4000)
    usage = Usage(input_tokens=tokens, cached_input_tokens=dice.randrange(tokens), output_tokens=dice.randrange(1, 500))
    ends = (End(usage=usage),) * dice.choice((1, 1, 2))
    return Reply(steps=(*map(Say, "Many words." * dice.randrange(1, 4)), *ends), split=dice.choice((0, 0, 0, 150)))


async def ask_on(rig: Rig, asked: Asked, states: dict[str, RequestState]) -> None:
    """Take one question after the other, and keep the state that its request ends in."""
    for adapter, surface, text in asked:
        seen = await surface.ask(rig.client, adapter.target, text)
        where = surface.name, seen.raw
        assert (seen.ends, "secret" in seen.raw) == (1, False), where
        state = (await rig.record_of(seen.request_id)).state()
        assert seen.code == (state.error.code if state.error is not msgspec.UNSET else ""), where
        if seen.usage is not None:
            assert seen.usage == surface.usage(state.usage), where
        states[text] = state


async def check_accounts(rig: Rig, good: dict[int, Reply], states: dict[str, RequestState]) -> None:
    """By provider: as many answers, tokens and dollars in the states as the upstream has served."""
    prices = Prices()
    answered = [(question(received), reply) for received, reply in rig.upstream.answered if id(reply) in good]
    done = {text for text, state in states.items() if state.assistant_status == "completed"}
    lost = {text: states[text].attempts for text, _ in answered if text not in done}
    assert (lost, len(answered)) == ({}, len(done))
    for adapter in ADAPTERS:
        mine = [state for state in states.values() if state.provider == adapter.name]
        served = [_usage(reply) for text, reply in answered if states[text].provider == adapter.name]
        assert _sum(state.usage for state in mine) == _sum(served)
        costs = [await prices.cost(adapter.price_id, adapter.model, usage) for usage in served]
        told = [state.cost and state.cost.usd for state in mine if state.assistant_status == "completed"]
        assert sorted(map(str, told)) == sorted(map(str, costs))
        assert (None in told) == (not adapter.price_id)


def question(received: Received) -> str:
    """What the upstream was asked."""
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
