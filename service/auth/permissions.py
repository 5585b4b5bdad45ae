"""Permissions: which parts of the service a caller may use, and which models."""

from typing import Final

from protocol.errors import AccessDenied, FieldError
from protocol.identity import ALL_SCOPES, ChannelRight, Principal, Scope

DEFAULT_MODEL: Final = "default"
UNSCOPED: Final = frozenset({"", "/ws", "/api/tickets", "/api/usage", "/api/limits"})
PARTS: Final[tuple[tuple[str, Scope], ...]] = (
    ("/v1/", "inference"),
    ("/api/requests", "inference"),
    ("/api/channels/{name}/subscribers", "admin"),
    ("/api/channels/", "channels"),
)
DEFAULT_SCOPE: Final[Scope] = "admin"


def check_route(principal: Principal, route: str) -> None:
    """Check that a caller has the scope of a route; a route without one needs ``admin``.

    Raises:
        AccessDenied: ``forbidden``.
    """
    if principal.scopes == ALL_SCOPES:
        return
    needed = scope_of(route)
    if needed is not None:
        check_scope(principal, needed)


def scope_of(route: str) -> Scope | None:
    """Return the scope that a route needs; None where any caller may use it."""
    if route in UNSCOPED:
        return None
    for prefix, scope in PARTS:
        if route.startswith(prefix):
            return scope
    return DEFAULT_SCOPE


def check_scope(principal: Principal, scope: Scope) -> None:
    """Check that a caller has a scope.

    Raises:
        AccessDenied: ``forbidden``.
    """
    if scope not in principal.scopes:
        raise AccessDenied(f"This needs the scope `{scope}`", code="forbidden")


def model_for(principal: Principal, model: str) -> str:
    """Return the model to use for ``model``: ``default`` may mean another one for this caller.

    Raises:
        AccessDenied: ``model_not_allowed``.
    """
    if model == DEFAULT_MODEL and principal.default:
        return principal.default
    check_model(principal, model)
    return model


def check_model(principal: Principal, model: str) -> None:
    """Check that a caller may use a model.

    Raises:
        AccessDenied: ``model_not_allowed``.
    """
    if not principal.may_ask(model):
        fault = FieldError("$.model", "must be one that GET /v1/models lists")
        raise AccessDenied(f"You may not ask for the model {model[:80]!r}", code="model_not_allowed", errors=(fault,))


def check_channel(principal: Principal, right: ChannelRight, channel: str) -> None:
    """Check that a caller has a right in a channel.

    Raises:
        AccessDenied: ``channel_denied``.
    """
    if not principal.may(right, channel):
        raise AccessDenied(f"You may not {right} in {channel[:80]!r}", code="channel_denied")


def listed(principal: Principal, model: str) -> bool:
    """Whether a model is listed for a caller."""
    return principal.may_ask(model) or (model == DEFAULT_MODEL and bool(principal.default))
