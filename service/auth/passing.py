"""Which fields of a call go upstream: what its key and its route say."""

from collections.abc import Mapping

import msgspec

from protocol.identity import Principal
from protocol.llm import ChatRequest
from protocol.pass_fields import PassList, pass_lists, passed_request
from protocol.requests import Submit
from protocol.routes import Routes
from service.auth.permissions import DEFAULT_MODEL


class Passing:
    """What the routes let pass. The routes' file replaces it.

    Args:
        routes: the routes in force.
    """

    __slots__ = ("_default", "_embeddings", "_routes")

    def __init__(self, routes: Routes | None = None) -> None:
        self._default = ""
        self._routes: Mapping[str, tuple[str, ...] | None] = {}
        self._embeddings: Mapping[str, tuple[str, ...] | None] = {}
        self.replace(routes or Routes())

    def replace(self, routes: Routes) -> None:
        """Take other routes, for calls from now on."""
        self._default = routes.default
        self._routes = {alias: route.pass_fields for alias, route in routes.routes.items()}
        self._embeddings = {alias: route.pass_fields for alias, route in routes.embeddings.items()}

    def request(self, principal: Principal, request: ChatRequest) -> tuple[ChatRequest, tuple[str, ...]]:
        """Return a request with what may pass, and the names of what is left out."""
        if not request.extra and not request.tools:
            return request, ()
        alias = self._default if request.model == DEFAULT_MODEL else request.model
        return passed_request(request, pass_lists(principal.pass_fields, self._routes.get(alias)))

    def submit(self, principal: Principal, message: Submit) -> tuple[Submit, tuple[str, ...]]:
        """Return a submission with what may pass, and the names of what is left out."""
        request, left_out = self.request(principal, message.request)
        return (msgspec.structs.replace(message, request=request) if left_out else message), left_out

    def lists_for_embeddings(self, principal: Principal, model: str) -> tuple[PassList, ...]:
        """Return the lists that hold for embeddings."""
        return pass_lists(principal.pass_fields, self._embeddings.get(model))
