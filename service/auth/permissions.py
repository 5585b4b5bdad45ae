"""What a caller may do: which parts of the service they may use, and which models they may ask for."""

from typing import Final

from protocol.errors import AccessDenied, FieldError
from protocol.identity import ALL_SCOPES, Principal, Scope

DEFAULT_MODEL: Final = "default"
EVERYBODY: Final = frozenset({"", "/ws", "/api/tickets", "/api/usage"})
PARTS: Final[tuple[tuple[str, Scope], ...]] = (
    ("/v1/", "inference"),
    ("/api/requests", "inference"),
    ("/api/channels", "channels"),
)
REST: Final[Scope] = "admin"


def check_route(principal: Principal, route: str) -> None:
    """Let a caller into the part of the service that an address belongs to; what belongs to none is for ``admin``.

    Raises:
        AccessDenied: ``forbidden``.
    """
    if principal.scopes == ALL_SCOPES or route in EVERYBODY:
        return
    needed = REST
    for prefix, scope in PARTS:
        if route.startswith(prefix):
            needed = scope
            break
    check_scope(principal, needed)


def check_scope(principal: Principal, scope: Scope) -> None:
    """Let a caller use a part of the service.

    Raises:
        AccessDenied: ``forbidden``.
    """
    if scope not in principal.scopes:
        raise AccessDenied(f"This needs the scope `{scope}`", code="forbidden")


def model_for(principal: Principal, model: str) -> str:
    """Return which model is asked where a caller asks for ``model``: their own default has another name.

    Raises:
        AccessDenied: ``model_not_allowed``.
    """
    if model == DEFAULT_MODEL and principal.default:
        return principal.default
    check_model(principal, model)
    return model


def check_model(principal: Principal, model: str) -> None:
    """Let a caller ask for a model by this name.

    Raises:
        AccessDenied: ``model_not_allowed``.
    """
    if not principal.may_ask(model):
        fault = FieldError("$.model", "must be one that GET /v1/models lists")
        raise AccessDenied(f"You may not ask for the model {model[:80]!r}", code="model_not_allowed", errors=(fault,))


def listed(principal: Principal, model: str) -> bool:
    """Whether a model is in a caller's list."""
    return principal.may_ask(model) or (model == DEFAULT_MODEL and bool(principal.default))
