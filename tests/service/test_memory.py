"""What the process holds of ended requests."""

import gc
from pathlib import Path

from tests.service.bench import open_service

MIB = 1024 * 1024
INPUT = MIB - 10_000
BOUND = 16 * MIB
REQUESTS = 120


def resident() -> int:
    """Return the bytes of memory that the process has now."""
    gc.collect()
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("there is no such line")


async def test_large_inputs_of_ended_requests_are_bounded() -> None:
    """A hundred and twenty requests of 1 MiB hold about ``REQUESTS_MAX_BYTES``, and not their sum."""
    async with open_service(max_body_bytes=2 * INPUT, requests_max_bytes=BOUND) as service:
        ids = [await service.answered("Hello", messages=[{"role": "user", "content": "warm" + "x" * INPUT}])]
        before = resident()
        for number in range(REQUESTS):
            content = f"{number} " + "x" * INPUT
            ids.append(await service.answered("Hello", messages=[{"role": "user", "content": content}]))
        grown = resident() - before
        statuses = [(await service.get(f"/api/requests/{request_id}")).status for request_id in ids]
    assert BOUND // INPUT - 2 <= statuses.count(200) <= BOUND // INPUT
    assert statuses[-1] == 200
    assert grown < 4 * BOUND, f"{grown // MIB} MiB"
