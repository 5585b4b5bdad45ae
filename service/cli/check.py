"""``tidegate check``: every fault of the configuration, or what it would serve."""

from typing import Final

import typer

from actors.llm_gateway.defaults import KNOWN, usable
from protocol.base_urls import base_url_of, lacks_path, shown_url
from protocol.upstream import BASE_URLS
from service.config.check import Checked, check_configuration

FAULTY: Final = 1  # the exit code of a configuration with faults


def print_check() -> int:
    """Print the faults, or what would be served, without any secret; returns the exit code."""
    checked = check_configuration()
    typer.echo(f"files: {', '.join(checked.files) or 'none'}")
    for notice in checked.notices:
        typer.echo(f"ignored: {notice.path}: {notice.message}")
    for fault in checked.faults:
        typer.echo(f"fault: {fault.path}: {fault.message}" if fault.path else f"fault: {fault.message}")
    if checked.faults:
        count = len(checked.faults)
        typer.echo(f"{count} {'fault' if count == 1 else 'faults'}: the service does not start")
        return FAULTY
    for name, text in _served(checked):
        typer.echo(f"{name}: {text}")
    for warning in _pathless(checked):
        typer.echo(f"warning: {warning}")
    return 0


def _served(checked: Checked) -> list[tuple[str, str]]:
    """Return what a service of this configuration would serve, in rows."""
    settings, routes = checked.settings, checked.file.routes
    config = settings.gateway(routes)
    builtin = [name for name in KNOWN if usable(config)[name] and name not in routes.providers]
    default = routes.default or settings.default_llm_model or f"the default model of {config.provider}"
    callers = [f"{len(settings.api_keys)} of API_KEYS", f"{len(checked.file.keys)} of {checked.file.path}"]
    tokens = ["signed tokens"] if settings.tokens().enabled else []
    open_to_all = not (settings.api_keys or checked.file.keys or tokens)
    rows = [
        ("address", f"{settings.host}:{settings.port} ({settings.environment})"),
        (
            "keys",
            "none: every caller on this machine may do everything" if open_to_all else ", ".join(callers + tokens),
        ),
        ("default", default),
        ("providers", ", ".join(sorted([*builtin, *routes.providers]))),
    ]
    rows += [(f"provider {name}", url or "on this machine") for name, url in sorted(_addresses(checked).items())]
    for alias, route in routes.routes.items():
        targets = (target if isinstance(target, str) else target.model for target in route.targets)
        rows.append((f"route {alias}", ", ".join(targets)))
    rows += [(f"embeddings {alias}", ", ".join(route.targets)) for alias, route in routes.embeddings.items()]
    return rows


def _addresses(checked: Checked) -> dict[str, str]:
    """Return each provider's base URL; empty for one on this machine."""
    settings, routes = checked.settings, checked.file.routes
    config = settings.gateway(routes)
    given = {"openai": config.openai_base_url, "anthropic": config.anthropic_base_url}
    builtin = {name: shown_url(given.get(name) or BASE_URLS.get(name, "")) for name in KNOWN if usable(config)[name]}
    return builtin | {name: base_url_of(spec) for name, spec in routes.providers.items()}


def _pathless(checked: Checked) -> list[str]:
    """Return a warning for each provider of OpenAI's dialect whose base URL has no path."""
    providers = checked.file.routes.providers
    places = {"openai": "OPENAI_BASE_URL"} | {
        name: f"{checked.file.path}: providers.{name}.base_url" for name, spec in providers.items()
    }
    return [
        f"{places[name]}: {url} has no path; most services of OpenAI's dialect want {url}/v1"
        for name, url in sorted(_addresses(checked).items())
        if lacks_path(url) and (providers[name].kind if name in providers else name) == "openai"
    ]
