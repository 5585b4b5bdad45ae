from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from itertools import cycle

import msgspec
import pytest

from actors.llm_gateway.provider import AnswerStream, ProviderDeadlines
from actors.llm_gateway.provider_endpoint import ProviderEndpoint
from actors.llm_gateway.routing import MAX_FOUND, RoutingTable
from actors.upstream.concurrency import ConcurrencyLimiter
from protocol.errors import ConfigurationError, NotFound
from protocol.gateway import ProviderState
from protocol.llm import ChatMessage, ChatRequest
from protocol.routes import Route, Routes, Target

REQUEST = ChatRequest(model="default", messages=(ChatMessage(role="user", content="hi"),))


class Named:
    """A provider with a name and models, which is never called."""

    def __init__(self, name: str, *models: str) -> None:
        self.name = name
        self.models = models
        self.deadlines = ProviderDeadlines(first_token=20.0)
        self.price_id = ""
        self.base_url = ""
        self.seeds = name == "one"

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def accepts(self, model: str) -> bool:
        return not self.models or model in self.models

    def status(self) -> tuple[ProviderState, str]:
        return "ready", ""

    def stream(
        self, request: ChatRequest, model: str, headers: Mapping[str, str]
    ) -> AbstractAsyncContextManager[AnswerStream]:
        raise AssertionError


UPSTREAMS = {
    provider.name: ProviderEndpoint(provider, ConcurrencyLimiter(provider.name, concurrency=1, queue=0))
    for provider in (Named("any"), Named("one", "m"))
}


def names(table: RoutingTable, name: str, draw: float = 1.0) -> list[str]:
    """Return the targets of a name, in order."""
    return [f"{found.endpoint.provider.name}/{found.model}" for found in table.targets(name, lambda: draw)]


def table(routes: Routes) -> RoutingTable:
    """Return a table over the two providers."""
    return RoutingTable(UPSTREAMS, routes, "any/base")


def test_an_alias_is_its_targets_in_order() -> None:
    """As listed, whatever kind of provider each one is."""
    routes = Routes(routes={"fast": Route(targets=("one/m", Target(model="any/vendor/x")))})
    assert names(table(routes), "fast") == ["one/m", "any/vendor/x"]
    assert table(routes).names == ("default", "any/base", "fast", "one/m")


def test_an_alias_may_look_like_a_model() -> None:
    """A route replaces the model of its name; other direct names stay."""
    routes = Routes(routes={"one/m": Route(targets=("any/x",)), "gpt": Route(targets=("one/m",))})
    assert names(table(routes), "one/m") == ["any/x"]
    assert names(table(routes), "gpt") == ["one/m"]
    assert names(table(routes), "any/gpt") == ["any/gpt"]
    assert names(table(routes), "other") == ["any/other"]


@pytest.mark.parametrize(("default", "targets"), [("", "any/base"), ("fast", "one/m"), ("any/x", "any/x")])
def test_what_default_means(default: str, targets: str) -> None:
    """An alias, a model, or the gateway's default."""
    routes = Routes(default=default, routes={"fast": Route(targets=("one/m",))})
    assert names(table(routes), "default") == [targets]


def test_weights_are_shares_of_first_places() -> None:
    """Every target stays in the list, and comes first as often as its weight says."""
    targets = (Target(model="any/a", weight=3), Target(model="any/b"))
    weighted = table(Routes(routes={"w": Route(targets=targets, order="weighted")}))
    grid = [(index + 0.5) / 60 for index in range(60)]
    firsts: Counter[str] = Counter()
    for one in grid:
        for other in grid:
            draws = cycle((one, other))
            found = weighted.targets("w", lambda draws=draws: next(draws))  # type: ignore[misc]
            assert len(found) == 2
            firsts[found[0].model] += 1
    assert firsts["a"] / firsts.total() == pytest.approx(0.75, abs=0.02)


def test_a_targets_options_fill_what_the_request_leaves_open() -> None:
    """The request's own options win; a target without options changes nothing."""
    target = Target(model="one/m", temperature=0.2, max_tokens=9, seed=3, stop=("END",), first_token_timeout=2)
    found, plain = table(Routes(routes={"r": Route(targets=(target, "any/x"))})).targets("r", lambda: 1.0)
    asked = found.request(ChatRequest(model="r", messages=REQUEST.messages, temperature=0.0))
    assert (asked.temperature, asked.max_tokens, asked.seed, asked.stop, asked.top_p) == (0.0, 9, 3, ("END",), None)
    assert (found.first_token, plain.first_token) == (2, 20.0)
    assert plain.request(REQUEST) is REQUEST


@pytest.mark.parametrize(
    ("routes", "says"),
    [
        (Routes(routes={"r": Route(targets=("any/x", "none/x"))}), r"routes\.r\.targets\[1\].*providers are: any, one"),
        (Routes(routes={"r": Route(targets=("model",))}), r"routes\.r\.targets\[0\].*provider/model"),
        (Routes(routes={"r": Route(targets=("one/x",))}), r"routes\.r\.targets\[0\]: one has no model 'x'"),
        (Routes(routes={"default": Route(targets=("one/m",))}), r"routes\.default"),
        (Routes(default="nothing"), r"default: 'nothing'"),
    ],
)
def test_a_route_that_leads_nowhere_is_a_mistake(routes: Routes, says: str) -> None:
    """The error names the key."""
    with pytest.raises(ConfigurationError, match=says):
        table(routes)


def test_a_model_that_nobody_has() -> None:
    """Neither an alias nor a name that its provider accepts."""
    with pytest.raises(NotFound) as caught:
        table(Routes()).targets("one/x", lambda: 1.0)
    assert caught.value.code == "model_not_found"


def test_a_routes_targets_know_when_another_is_asked_beside_them() -> None:
    """A name that is no alias is not hedged."""
    routes = Routes(routes={"quick": Route(targets=("any/a", "one/m"), hedge_after=2.5)})
    assert [found.hedge_after for found in table(routes).targets("quick", lambda: 1.0)] == [2.5, 2.5]
    assert [found.hedge_after for found in table(routes).targets("any/a", lambda: 1.0)] == [None]


def test_names_that_are_no_routes_are_kept_and_not_all_of_them() -> None:
    """The targets of a name are found once; the table does not grow with ever new names."""
    found = table(Routes())
    targets = found.targets("any/m", lambda: 1.0)
    assert found.targets("any/m", lambda: 1.0) is targets
    for number in range(MAX_FOUND):
        found.targets(f"any/{number}", lambda: 1.0)
    again = found.targets("any/m", lambda: 1.0)
    assert again is not targets
    assert names(found, "any/m") == ["any/m"]


def test_a_made_up_seed_is_for_providers_that_have_seeds() -> None:
    """It is added where neither the request nor the target has one."""
    routes = Routes(routes={"a": Route(targets=("one/m", "any/n", Target(model="one/m", seed=3)))})
    plain, other, own = table(routes).targets("a", lambda: 0.0)
    assert [target.request(REQUEST, 7).seed for target in (plain, other, own)] == [7, None, 3]
    assert plain.request(msgspec.structs.replace(REQUEST, seed=1), 7).seed == 1
    assert plain.request(REQUEST) is REQUEST
