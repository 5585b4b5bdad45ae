"""Estimate of the size of a regular expression, from its text: linear, and nothing is compiled.

The unit is about a state of the automaton for plain ASCII: 0.2 µs and 60 bytes when the engine compiles it.
"""

import re
from typing import Final

MOST: Final = 1 << 40  # where the estimate stops: products of nested repetitions have no end

_LITERAL: Final = 1
_ASCII_CLASS: Final = 2
_WIDE_CLASS: Final = 50  # of any character but some: every length of UTF-8
_UNICODE_CLASS: Final = 1500  # a class of Unicode has hundreds of ranges

_PART: Final = re.compile(
    r"\\[pP](?:\{[^}]*\}|.)"  # a class of Unicode
    r"|\\u\{[^}]*\}|\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}|\\k<[^>]*>|\\."  # other escapes
    r"|\(\?(?:P?<(?![=!])[^>]*>|<?[=!:]|>|[a-zA-Z]*(?:-[a-zA-Z]+)?[:)])|\("  # the start of a group, or flags
    r"|\{\d+(?:,\d*)?\}|[\s\S]"  # a counted repetition; any other character
)
_FANCY: Final = re.compile(r"\(\?(?:<?[=!]|>|P=|\()|\\[1-9kgKGzZ]|[*+?}]\+")
_DIGITS: Final = re.compile(r"\d{1,9}")


def is_fancy(pattern: str) -> bool:
    """Whether a pattern looks around or back: the engine then backtracks, and takes more than linear time."""
    return _FANCY.search(pattern) is not None


def pattern_cost(pattern: str) -> int:
    """Return the estimate for a pattern. Repetitions multiply, also nested ones; ``(?i)`` doubles."""
    groups = [0]  # the cost of each open group
    last = 0  # the cost of what a repetition would repeat; it is in its group's cost already
    brackets: list[int] = []  # the cost of each open class
    for found in _PART.finditer(pattern):
        part = found[0]
        if brackets or part == "[":
            cost = _within_class(part, brackets)
            if cost:
                last = cost
                groups[-1] += cost
        elif part == "(" or (part.startswith("(?") and not part.endswith(")")):
            groups.append(_LITERAL)
        elif part == ")" and len(groups) > 1:
            last = groups.pop()
            groups[-1] += last
        elif part[0] == "{" and len(part) > 1:
            more = min(last * (_repetitions(part) - 1), MOST)
            groups[-1] = min(groups[-1] + more, MOST)
            last = min(last + more, MOST)
        elif part not in "*+?|":
            last = _atom(part)
            groups[-1] += last
    total = min(sum(groups) + sum(brackets), MOST)
    return total * 2 if "(?i" in pattern or re.search(r"\(\?[a-zA-Z]+i", pattern) else total


def _within_class(part: str, brackets: list[int]) -> int:
    """Count one part of a class; return the class's cost at its end, otherwise 0."""
    if part == "[":
        brackets.append(_ASCII_CLASS)
    elif part == "]" and brackets[-1] >= _ASCII_CLASS:
        cost = brackets.pop()
        if not brackets:
            return cost
        brackets[-1] += cost
    elif part == "^":
        brackets[-1] += _WIDE_CLASS
    elif part[0] == "\\" or part > "\x7f":
        brackets[-1] += _atom(part)
    return 0


def _atom(part: str) -> int:
    if part[:2] in ("\\p", "\\P"):
        return _UNICODE_CLASS
    if part in ("\\S", "\\D", "\\W", "\\s", "."):
        return _WIDE_CLASS
    if part in ("\\d", "\\w"):
        return _ASCII_CLASS
    return _LITERAL if part <= "\x7f" else 4 * _LITERAL


def _repetitions(part: str) -> int:
    return max(1, *map(int, _DIGITS.findall(part)))
