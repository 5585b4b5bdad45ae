"""Attributes of a package that are imported at their first use (PEP 562)."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def lazy_attributes(
    package: str, modules: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return ``__getattr__``, ``__dir__`` and ``__all__`` for a package that imports its names when they are used.

    Args:
        package: the name of the package.
        modules: from each module to the names that the package takes from it.

    Raises:
        ValueError: a name is in two modules.
    """
    origins = {name: module for module, names in modules.items() for name in names}
    if len(origins) < sum(map(len, modules.values())):
        raise ValueError(f"a name of {package} is taken from two modules")

    def get(name: str) -> Any:  # noqa: ANN401 - whatever the name stands for
        if name not in origins:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(origins[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *origins})

    return get, names, sorted(origins)
