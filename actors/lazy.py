"""Public names of a package that are imported at their first use (PEP 562)."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, modules: Mapping[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package.

    Args:
        package: its name.
        modules: from the full name of each module to the names that the package takes from it.
    """
    origins = {name: module for module, names in modules.items() for name in names}

    def get(name: str) -> Any:  # noqa: ANN401 - any public name
        if name not in origins:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(origins[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    return get
