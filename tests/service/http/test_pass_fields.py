"""``pass_fields`` of keys and routes, on every surface: what the upstream gets, and what the caller learns."""

from typing import Any

import pytest

from protocol.identity import Principal
from protocol.llm import ChatMessage, ChatRequest
from protocol.routes import EmbeddingRoute, Route, Routes
from service.auth.keys import KeySpec, principal_of
from service.auth.passing import Passing
from service.config.routes_file import parse

ROUTES = Routes(
    default="open",
    routes={
        "open": Route(targets=("a/b",), pass_fields=("default", "provider")),
        "shut": Route(targets=("a/b",), pass_fields=()),
        "plain": Route(targets=("a/b",)),
    },
    embeddings={"vectors": EmbeddingRoute(targets=("a/b",), pass_fields=("models",))},
)
FIELDS: dict[str, Any] = {"top_k": 1, "provider": {"order": ["x"]}, "models": ["dear"]}


@pytest.mark.parametrize(
    ("model", "key", "passed"),
    [
        ("open", None, {"top_k", "provider"}),
        ("default", None, {"top_k", "provider"}),
        ("shut", None, set()),
        ("plain", None, {"top_k"}),
        ("a/b", None, {"top_k"}),
        ("plain", ("models",), {"models"}),
        ("open", ("models", "provider"), {"provider"}),
        ("shut", ("*", "models"), set()),
    ],
)
def test_the_key_and_the_route_say_what_passes(model: str, key: tuple[str, ...] | None, passed: set[str]) -> None:
    """Each list that is there has to let a field pass."""
    chat = ChatRequest(
        model=model, messages=(ChatMessage(role="user", content="hi"),), extra=dict(FIELDS), dialect="openai"
    )
    request, left_out = Passing(ROUTES).request(Principal(pass_fields=key), chat)
    assert request.extra.keys() == passed
    assert {*left_out} == FIELDS.keys() - passed


def test_other_routes_count_from_now_on() -> None:
    """The routes' file is watched."""
    passing = Passing(ROUTES)
    assert passing.lists_for_embeddings(Principal(), "vectors")[0].passes("models")
    passing.replace(Routes())
    assert not passing.lists_for_embeddings(Principal(), "vectors")[0].passes("models")


def test_both_are_read_from_the_file() -> None:
    """A list of names; anything else is a fault with its place."""
    table: dict[str, Any] = {
        "providers": {"a": {"kind": "openai", "base_url": "http://127.0.0.1:9/v1"}},
        "routes": {"r": {"targets": ["a/b"], "pass_fields": ["default", "x_*"]}},
        "keys": {"k": {"hash": "0" * 64, "pass_fields": []}},
    }
    routes, keys, faults = parse(table)
    assert not faults
    assert routes.routes["r"].pass_fields == ("default", "x_*")
    assert principal_of("k", keys["k"]).pass_fields == ()
    assert principal_of("k", KeySpec(hash="0" * 64)).pass_fields is None
    table["routes"]["r"]["pass_fields"] = "models"
    assert [fault.path for fault in parse(table)[2]] == ["routes.r.pass_fields"]
