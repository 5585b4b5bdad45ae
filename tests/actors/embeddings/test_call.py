import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from actors.embeddings import EmbeddingBounds, EmbeddingsConfig, build_embeddings
from actors.embeddings.call import shares
from actors.runtime.testing import TestSystem as HeldSystem  # by another name pytest does not collect it
from actors.testing import ScriptedUpstream, refuse
from protocol import spans
from protocol.embeddings import Embed
from tests.actors.embeddings.recording import RecordingPolicy


@given(tokens=st.integers(0, 10**6), sizes=st.lists(st.integers(1, 10**6), min_size=1, max_size=50))
def test_shares_add_up(tokens: int, sizes: list[int]) -> None:
    """The shares add up to the total, and each is less than one token from its exact value."""
    given = shares(tokens, sizes)
    assert sum(given) == tokens
    assert all(abs(share - tokens * size / sum(sizes)) < 1 for share, size in zip(given, sizes, strict=True))


async def test_each_attempt_is_a_span(upstream: ScriptedUpstream) -> None:
    """It is a child of the first request and linked to the others; the upstream gets the trace."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    upstream.script(refuse(503, retry_after="0"))
    retry = RecordingPolicy()
    config = EmbeddingsConfig(openai_base_url=upstream.openai_url, retry=retry)
    async with HeldSystem(tracer_provider=provider) as system:
        embeddings = system.spawn(build_embeddings(config), name="embeddings")
        messages = [Embed(model="m", inputs=(text,), dimensions=2) for text in ("a", "b")]
        waiting = [asyncio.ensure_future(embeddings.ask(message, timeout=60)) for message in messages]
        await system.advance(EmbeddingBounds().window)
        assert await retry.delays.get() == 0
        await system.advance(0)
        await asyncio.gather(*waiting)
    finished: list[Any] = list(exporter.get_finished_spans())
    failed, good = (span for span in finished if span.kind is SpanKind.CLIENT)
    first, second = (span for span in finished if span.kind is SpanKind.CONSUMER)
    assert failed.name == good.name == "embeddings m"
    assert failed.attributes[spans.ERROR_TYPE] == "provider_unavailable"
    assert spans.ERROR_TYPE not in good.attributes
    assert good.attributes[spans.GEN_AI_OPERATION] == "embeddings"
    assert good.attributes[spans.GEN_AI_PROVIDER] == "openai"
    assert good.attributes[spans.GEN_AI_INPUT_TOKENS] == 2
    assert good.attributes[spans.GEN_AI_DIMENSIONS] == 2
    assert (good.attributes[spans.INPUTS], good.attributes[spans.ATTEMPT]) == (2, 2)
    assert {good.parent.span_id, good.links[0].context.span_id} == {first.context.span_id, second.context.span_id}
    assert upstream.received[1].headers["traceparent"].split("-")[2] == f"{good.context.span_id:016x}"
