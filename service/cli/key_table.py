"""The table of a key as text: for the routes' file, and for a list."""

import json
import tomllib
from collections.abc import Mapping
from typing import Any

from protocol.budgets import Budget
from protocol.identity import ALL_RIGHTS, ChannelGrant
from service.auth.keys import KeySpec
from service.config.routes_file import parse_keys


def table_text(name: str, fields: Mapping[str, Any]) -> str:
    """Return the TOML table of a key, without its empty fields.

    Raises:
        ConfigurationError: the key is invalid; the message names the field.
    """
    table = {field: value for field, value in fields.items() if value}
    wanted = parse_keys({"keys": {name: table}})
    lines = (f"{field} = {toml_value(value)}" for field, value in table.items())
    text = "\n".join((f"[keys.{name}]", *lines, ""))
    if parse_keys(tomllib.loads(text)) != wanted:
        raise AssertionError("the table does not say what was asked for")
    return text


def toml_value(value: object) -> str:
    """Return a value of TOML on one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:_}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def listed_key(name: str, spec: KeySpec) -> dict[str, Any]:
    """Return what a list shows of a key: all but its digest."""
    return {
        "name": name,
        "disabled": spec.disabled,
        "env": spec.env or None,
        "tenant": spec.tenant,
        "scopes": spec.scopes,
        "models": spec.models,
        "default": spec.default or None,
        "plan": spec.plan or None,
        "limits": spec.limits,
        "budgets": spec.budgets,
        "channels": spec.channels,
    }


def budget_text(budget: Budget) -> str:
    """Return a budget as the option of ``key create`` has it; both limits of one budget are two words."""
    usd = [] if budget.usd is None else [f"{budget.usd}usd/{budget.per}"]
    tokens = [] if budget.tokens is None else [f"{budget.tokens:_}tokens/{budget.per}"]
    return " ".join(usd + tokens)


def grant_text(grant: ChannelGrant) -> str:
    """Return rights in channels as the option of ``key create`` has them."""
    if set(grant.rights) == set(ALL_RIGHTS):
        return grant.pattern
    return f"{grant.pattern}={','.join(grant.rights)}"
