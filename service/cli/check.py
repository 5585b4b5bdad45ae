"""``tidegate check``: every fault of the configuration, or what it would serve."""

from typing import Final

import typer

from actors.llm_gateway.defaults import KNOWN, usable
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
    for alias, route in routes.routes.items():
        targets = (target if isinstance(target, str) else target.model for target in route.targets)
        rows.append((f"route {alias}", ", ".join(targets)))
    rows += [(f"embeddings {alias}", ", ".join(route.targets)) for alias, route in routes.embeddings.items()]
    return rows
