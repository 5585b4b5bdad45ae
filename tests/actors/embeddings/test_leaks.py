import asyncio
import random
from typing import TypeGuard

from actors.embeddings import EmbedderLimits, EmbeddingBounds, EmbeddingsActor, EmbeddingsConfig, build_embeddings
from actors.llm_gateway import RetryPolicy
from actors.runtime import System
from actors.testing import Cut, Reply, ScriptedUpstream, Send, refuse, scripted_vector
from protocol.embeddings import Embed, Embedded, floats
from protocol.errors import ProviderError
from protocol.upstream import Refusal

REQUESTS = 600
FAULTS = (
    refuse(400),
    refuse(429, retry_after="0"),
    refuse(500, retry_after="0"),
    Reply(before=(Cut(),)),
    Reply(steps=(Send(b'{"data":'), Cut()), content_type="application/json"),
    Reply(steps=(Send(b"{nonsense"),), content_type="application/json"),
)


async def test_whatever_happens_nothing_is_left_behind(upstream: ScriptedUpstream) -> None:
    """Faults, cancellations, shared texts: each request ends with its own vectors or a typed failure."""
    chance = random.Random(3)
    upstream.script(*(chance.choice(FAULTS) if chance.random() < 0.4 else Reply() for _ in range(REQUESTS)))
    config = EmbeddingsConfig(
        openai_base_url=upstream.openai_url,
        limits=EmbedderLimits(inputs=4),
        bounds=EmbeddingBounds(window=0.0005, concurrency=4, queue=1000, cache_bytes=2000),
        retry=RetryPolicy(jitter=lambda: 0.0),
    )
    made: list[EmbeddingsActor] = []

    def make() -> EmbeddingsActor:
        made.append(build_embeddings(config)())
        return made[-1]

    asked, leaving = [], []
    async with System() as system:
        embeddings = system.spawn(make, name="embeddings")
        for _ in range(REQUESTS):
            texts = tuple(f"text {chance.randrange(40)}" for _ in range(chance.randrange(1, 6)))
            message = Embed(model="default", inputs=texts, tenant=chance.choice("ab"), dedupe=chance.random() < 0.8)
            task = asyncio.ensure_future(embeddings.ask(message, timeout=30))
            asked.append((texts, task))
            if chance.random() < 0.2:
                leaving.append(task)
            if chance.random() < 0.3:
                await asyncio.sleep(0)
                for gone in leaving:
                    gone.cancel()
                leaving.clear()
        outcomes = await asyncio.gather(*(task for _, task in asked), return_exceptions=True)
        (actor,) = made
        await system.drain(embeddings, deadline=system.clock.time() + 5)
        assert len(system._core.tasks) == 0
        assert (actor._on_way, actor._gathering) == ({}, {})
        assert (actor._inputs.total, actor._bytes.total) == (0, 0)
        endpoints = actor._endpoints._builtin.values()
        assert [(endpoint.limiter.in_flight, endpoint.idle) for endpoint in endpoints] == [(0, True)] * 2
    vectors = [(texts, outcome.vectors) for (texts, _), outcome in zip(asked, outcomes, strict=True) if good(outcome)]
    assert all([floats(vector) for vector in found] == [*map(scripted_vector, texts)] for texts, found in vectors)
    failures = {type(outcome) for outcome in outcomes} - {Embedded}
    assert failures == {Refusal, ProviderError, asyncio.CancelledError}
    assert len(vectors) > REQUESTS / 4


def good(outcome: object) -> TypeGuard[Embedded]:
    """Whether there are vectors."""
    return isinstance(outcome, Embedded)
