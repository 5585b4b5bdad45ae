"""Fingerprints: which requests count as identical."""

import pytest
from msgspec.structs import replace

from actors.requests.fingerprint import body_digest, fingerprint
from protocol.errors import InvalidRequest
from protocol.llm import ChatMessage, ChatRequest
from protocol.requests import Delivery, Submit

HELLO = ChatRequest(model="m", messages=(ChatMessage(role="user", content="hello"),), schema={"a": 1, "b": 2})


def test_the_same_request_has_the_same_fingerprint_whatever_the_order_of_its_keys() -> None:
    """JSON objects have no order, so the order of a schema's keys does not count."""
    assert fingerprint("t", HELLO) == fingerprint("t", replace(HELLO, schema={"b": 2, "a": 1}))


def test_the_same_request_in_two_dialects_is_shared() -> None:
    """The dialect counts only for requests that pass fields through to the upstream."""
    assert fingerprint("t", HELLO) == fingerprint("t", replace(HELLO, dialect="openai"))
    openai = replace(HELLO, dialect="openai", extra={"x": 1})
    assert fingerprint("t", openai) != fingerprint("t", replace(openai, dialect="anthropic"))


def test_restart_and_repair_are_part_of_the_fingerprint() -> None:
    """A stream of a compatible dialect never joins or replays a log whose answer may begin anew."""
    assert fingerprint("t", HELLO, restart=True) == fingerprint("t", HELLO, restart=True) != fingerprint("t", HELLO)
    kinds = [(restart, repair) for restart in (False, True) for repair in (False, True)]
    assert len({fingerprint("t", HELLO, restart=restart, repair=repair) for restart, repair in kinds}) == len(kinds)


def test_without_a_schema_there_is_nothing_to_repair() -> None:
    """`repair` counts only for a request with a schema."""
    text = replace(HELLO, schema=None)
    assert fingerprint("t", text, repair=True) == fingerprint("t", text)


@pytest.mark.parametrize(
    "other",
    [replace(HELLO, seed=1), replace(HELLO, model="n"), replace(HELLO, temperature=0.0), replace(HELLO, stop=("x",))],
)
def test_whatever_shapes_the_answer_counts(other: ChatRequest) -> None:
    """A request that may get another answer has another fingerprint."""
    assert fingerprint("t", HELLO) != fingerprint("t", other)


def test_tenants_and_prompt_versions_are_separate() -> None:
    """Nothing is shared between tenants or prompt versions."""
    assert len({fingerprint("a", HELLO), fingerprint("b", HELLO), fingerprint("a", HELLO, "v2")}) == 3


def test_an_idempotency_key_binds_the_delivery_too() -> None:
    """The same request with other options is another body."""
    one = Submit(request=HELLO)
    assert body_digest(one) == body_digest(Submit(request=HELLO, trace_id="f" * 32))
    assert body_digest(one) != body_digest(Submit(request=HELLO, delivery=Delivery(timeout=1.0)))


def test_a_request_that_can_not_be_encoded_is_refused() -> None:
    """An embedder may pass integers beyond 64 bits, which can not be encoded."""
    with pytest.raises(InvalidRequest, match="integer beyond 64 bits"):
        fingerprint("t", replace(HELLO, schema={"maximum": 1 << 70}))
