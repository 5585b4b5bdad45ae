"""Every fault of an answer in one piece, at the surface of embeddings."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pytest

from actors.embeddings import EmbeddingsActor, EmbeddingsConfig, build_embeddings
from actors.fair_shares import Tenants
from actors.resilience.retry import RetryPolicy
from actors.testing import Cut, Reply, Reset, Send, Stall, Step, refuse, scripted_vector
from actors.wire.unary import MAX_BODY_BYTES
from protocol.ledger import Ledger
from service import container
from tests.contracts.conformance.adapters import ADAPTERS
from tests.contracts.conformance.faults import ATTEMPTS, HALF_A_HEAD, PATIENT, TOTAL
from tests.contracts.conformance.rig import SOON, Rig, open_rig
from tests.contracts.conformance.surfaces import OPENAI

HASTE = 0.3  # seconds for an attempt, in a case that is about silence
TEXTS = ["a", "b"]
BODY = {"model": "m", "input": TEXTS, "encoding_format": "float"}
HUGE = b" " * (MAX_BODY_BYTES + 1)


def raw(*steps: Step, content_type: str = "application/json") -> Reply:
    """A reply with these bytes."""
    return Reply(steps=steps, content_type=content_type)


@dataclass(frozen=True)
class Case:
    """A fault.

    Attributes:
        name: in the test's id.
        replies: the upstream's, one per attempt.
        code: of the failure; empty for an answer.
        hasty: whether an attempt has a short deadline.
        deaf: no upstream listens.
    """

    name: str
    replies: tuple[Reply, ...]
    code: str = ""
    hasty: bool = False
    deaf: bool = False


def twice(name: str, reply: Reply, code: str, *, hasty: bool = False) -> Case:
    """The same reply to every attempt."""
    return Case(name, (reply,) * ATTEMPTS, code, hasty=hasty)


CASES = (
    Case("refused", (), "provider_unavailable", deaf=True),
    twice("reset", Reply(before=(Reset(),)), "provider_unavailable"),
    twice("closed_without_a_word", Reply(before=(Cut(),)), "provider_unavailable"),
    Case("no_http", (Reply(before=(Send(b"nonsense\r\n\r\n"), Stall())),), "provider_bad_response"),
    twice("408", refuse(408), "provider_timeout"),
    twice("429", refuse(429, retry_after="0"), "provider_rate_limited"),
    Case("429_for_long", (refuse(429, retry_after="600"),), "provider_rate_limited"),
    twice("500", refuse(500), "provider_error"),
    twice("503", refuse(503), "provider_unavailable"),
    twice("529", refuse(529), "provider_unavailable"),
    twice("no_headers", Reply(before=(Stall(),)), "provider_timeout", hasty=True),
    twice("half_a_head", Reply(before=(Send(HALF_A_HEAD), Stall())), "provider_timeout", hasty=True),
    twice("half_a_body", raw(Send(b'{"data": ['), Stall()), "provider_timeout", hasty=True),
    twice("cut_in_the_body", raw(Send(b'{"data": ['), Cut()), "provider_stream_broken"),
    twice("reset_in_the_body", raw(Send(b'{"data": ['), Reset()), "provider_stream_broken"),
    twice("in_band_error", raw(Send(b'{"error": {"message": "a secret"}}')), "provider_error"),
    Case("malformed_json", (raw(Send(b"{nonsense")),), "provider_bad_response"),
    Case("no_utf8", (raw(Send(b"\xff\xfe")),), "provider_bad_response"),
    Case("wrong_content_type", (raw(Send(b"<html>"), content_type="text/html"),), "provider_bad_response"),
    Case("too_few", (raw(Send(b'{"data":[{"index":0,"embedding":[1]}]}')),), "provider_bad_response"),
    Case("huge", (raw(Send(HUGE)),), "response_too_large"),
    Case("split_bytes", (Reply(split=1),)),
    Case("503_then_an_answer", (refuse(503), Reply())),
    Case("reset_then_an_answer", (Reply(before=(Reset(),)), Reply())),
    Case("silence_then_an_answer", (Reply(before=(Stall(),)), Reply()), hasty=True),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_fault_ends_once_and_leaves_nothing(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure comes in time, in OpenAI's words, without the upstream's; and the next request is answered."""

    def hasty(
        config: EmbeddingsConfig, *, ledger: Ledger | None = None, tenants: Tenants | None = None
    ) -> Callable[[], EmbeddingsActor]:
        limits = msgspec.structs.replace(config.limits, timeout=HASTE) if case.hasty else config.limits
        retry = RetryPolicy(attempts=ATTEMPTS, base=0.0)
        changed = msgspec.structs.replace(config, retry=retry, limits=limits)
        return build_embeddings(changed, ledger=ledger, tenants=tenants)

    monkeypatch.setattr(container, "build_embeddings", hasty)
    async with asyncio.timeout(SOON), open_rig(ADAPTERS[:1], deadlines=PATIENT, total=TOTAL) as rig:
        before = await rig.footprint()
        rig.upstream.script(*case.replies)
        if case.deaf:
            await rig.upstream.stop_listening()
            rig.upstream.hang_up()
        await check(rig, case)
        assert rig.upstream.calls == len(case.replies)
        if case.deaf:
            await rig.upstream.listen_again()
        await answered(rig)
        await rig.wait_for(before)


async def check(rig: Rig, case: Case) -> None:
    """Send a request, and check its end."""
    if not case.code:
        await answered(rig)
        return
    async with rig.client.post("/v1/embeddings", json=BODY) as response:
        said = await response.text()
    error, failure = msgspec.json.decode(said)["error"], OPENAI[case.code]
    assert (response.status, error["type"], error["code"]) == (failure.status, failure.kind, case.code), said
    assert "secret" not in said


async def answered(rig: Rig) -> None:
    """Send a request, and check its vectors."""
    async with rig.client.post("/v1/embeddings", json=BODY, headers={"x-tidegate-dedupe": "off"}) as response:
        assert response.status == 200
        data = (await response.json())["data"]
    assert [item["embedding"] for item in data] == [[*scripted_vector(text)] for text in TEXTS]
