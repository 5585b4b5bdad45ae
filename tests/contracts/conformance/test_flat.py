"""Memory does not depend on the number of past requests, good or failed."""

import asyncio
import gc
import logging
import os
import random
import sys
from collections.abc import Iterator
from itertools import pairwise

import pytest
import structlog

from actors.testing import Reply
from tests.contracts.conformance.adapters import ADAPTERS
from tests.contracts.conformance.faults import ATTEMPTS, CASES, HASTY, TOTAL
from tests.contracts.conformance.rig import Rig, open_rig
from tests.contracts.conformance.surfaces import SURFACES
from tests.contracts.conformance.test_bulk import FAULTY, SEED, answer

REQUESTS = int(os.environ.get("CONFORMANCE_REQUESTS", "1000")) // 8  # a round
ROUNDS = 5
KEPT = 64  # requests, so that all places are taken before the first count
TOGETHER = 16
BLOCKS = 10  # of memory for each request of a round; one that is kept holds a hundred and more
BOUND = 50 + REQUESTS // 4  # seconds


@pytest.fixture(autouse=True)
def _no_logs() -> Iterator[None]:
    """Log nothing: pytest holds every record, with the objects of its traceback."""
    logging.disable(logging.CRITICAL)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.reset_defaults()
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(BOUND)
async def test_memory_is_flat() -> None:
    """Once the store is full, one more request takes the place of an ended one, whatever its end."""
    dice = random.Random(SEED)
    script = replies(dice)
    bounds = {"max_requests": KEPT, "cache_max_entries": KEPT}
    async with open_rig(ADAPTERS, deadlines=HASTY, total=TOTAL, **bounds) as rig:
        before = await rig.footprint()
        counts = []
        for number in range(ROUNDS):
            rig.upstream.script(*script)
            await run_round(rig, dice, number)
            await rig.wait_for(before)
            rig.upstream.received.clear()
            rig.upstream.answered.clear()
            gc.collect()
            counts.append(sys.getallocatedblocks())
        growth = [after - first for first, after in pairwise(counts[1:])]
        assert min(growth) < BLOCKS * REQUESTS, f"blocks of memory that {REQUESTS} requests have left: {growth}"


def replies(dice: random.Random) -> list[Reply]:
    """The replies of a round; they are the same in each round, and so is their memory."""
    seen = asyncio.Event()
    seen.set()
    faults = [case.script(seen)[0] for case in CASES if case.code and not case.deaf and case.total == TOTAL]
    return [dice.choice(faults) if dice.random() < FAULTY else answer(dice) for _ in range(REQUESTS * ATTEMPTS)]


async def run_round(rig: Rig, dice: random.Random, number: int) -> None:
    """Send the requests of one round."""
    questions = iter([f"question {number}.{n}" for n in range(REQUESTS)])

    async def ask() -> None:
        for text in questions:
            surface, adapter = dice.choice(SURFACES), dice.choice(ADAPTERS)
            assert (await surface.ask(rig.client, adapter.target, text)).ends == 1

    async with asyncio.TaskGroup() as group:
        for _ in range(TOGETHER):
            group.create_task(ask())
