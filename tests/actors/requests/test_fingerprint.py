"""Which requests are the same."""

import pytest
from msgspec.structs import replace

from actors.requests.fingerprint import body_digest, fingerprint
from protocol.errors import InvalidRequest
from protocol.llm import ChatMessage, ChatRequest
from protocol.requests import Delivery, Submit

HELLO = ChatRequest(model="m", messages=(ChatMessage(role="user", content="hello"),), schema={"a": 1, "b": 2})


def test_the_same_request_has_the_same_fingerprint_whatever_the_order_of_its_keys() -> None:
    """JSON objects have no order, so neither has a schema."""
    assert fingerprint("t", HELLO) == fingerprint("t", replace(HELLO, schema={"b": 2, "a": 1}))


def test_two_dialects_that_ask_the_same_share() -> None:
    """Only fields that are passed through bind an answer to its dialect."""
    assert fingerprint("t", HELLO) == fingerprint("t", replace(HELLO, dialect="openai"))
    openai = replace(HELLO, dialect="openai", extra={"x": 1})
    assert fingerprint("t", openai) != fingerprint("t", replace(openai, dialect="anthropic"))


def test_only_those_who_can_take_content_back_share_an_answer_that_may_begin_anew() -> None:
    """A stream of a compatible dialect never joins or replays such a log."""
    assert fingerprint("t", HELLO, restart=True) == fingerprint("t", HELLO, restart=True) != fingerprint("t", HELLO)
    kinds = [(restart, repair) for restart in (False, True) for repair in (False, True)]
    assert len({fingerprint("t", HELLO, restart=restart, repair=repair) for restart, repair in kinds}) == len(kinds)


def test_without_a_schema_there_is_nothing_to_repair() -> None:
    """So whoever could have an answer repaired shares it with everybody."""
    text = replace(HELLO, schema=None)
    assert fingerprint("t", text, repair=True) == fingerprint("t", text)


@pytest.mark.parametrize(
    "other",
    [replace(HELLO, seed=1), replace(HELLO, model="n"), replace(HELLO, temperature=0.0), replace(HELLO, stop=("x",))],
)
def test_whatever_shapes_the_answer_counts(other: ChatRequest) -> None:
    """A request that may get another answer is another request."""
    assert fingerprint("t", HELLO) != fingerprint("t", other)


def test_tenants_and_prompt_versions_are_apart() -> None:
    """Nothing is shared across tenants, nor across versions of a prompt."""
    assert len({fingerprint("a", HELLO), fingerprint("b", HELLO), fingerprint("a", HELLO, "v2")}) == 3


def test_an_idempotency_key_binds_the_delivery_too() -> None:
    """The same question with other options is another body."""
    one = Submit(request=HELLO)
    assert body_digest(one) == body_digest(Submit(request=HELLO, trace_id="f" * 32))
    assert body_digest(one) != body_digest(Submit(request=HELLO, delivery=Delivery(timeout=1.0)))


def test_what_can_not_be_told_apart_is_refused() -> None:
    """An embedder's numbers may be larger than any wire's."""
    with pytest.raises(InvalidRequest, match="integer beyond 64 bits"):
        fingerprint("t", replace(HELLO, schema={"maximum": 1 << 70}))
