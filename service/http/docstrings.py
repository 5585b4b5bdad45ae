"""Docstrings as descriptions: what a struct is, and each of its attributes."""

import inspect
import re
from typing import Final

DEPTH: Final = 4  # blanks before an attribute's line, in a docstring without its own indentation

_ATTRIBUTES = "Attributes:\n"
_SECTION = re.compile(r"^(?:Attributes|Args|Raises|Returns)[^\n]*:$", re.MULTILINE)


def opening_of(docstring: str | None) -> str:
    """Return a docstring's text before its first section, in Markdown, each paragraph on one line."""
    text = _SECTION.split(inspect.cleandoc(docstring or ""), maxsplit=1)[0]
    return "\n\n".join(_plain(paragraph) for paragraph in text.strip().split("\n\n"))


def attributes_of(docstring: str | None) -> dict[str, str]:
    """Return the description of each attribute in a docstring, by its name."""
    if not docstring or _ATTRIBUTES not in docstring:
        return {}
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in inspect.cleandoc(docstring).partition(_ATTRIBUTES)[2].splitlines():
        if line and not line.startswith(" "):
            break
        if line[:DEPTH].isspace() and line[DEPTH : DEPTH + 1].strip():
            name, _, text = line.strip().partition(": ")
            lines = found[name] = [text]
        else:
            lines.append(line)
    return {name: " ".join(" ".join(text).split()) for name, text in found.items()}


def fields_of(kind: type) -> dict[str, str]:
    """Return the descriptions of a struct's attributes, with those of its bases."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        texts |= attributes_of(base.__doc__)
    return texts


def _plain(paragraph: str) -> str:
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", " ".join(paragraph.split())).replace("``", "`")
