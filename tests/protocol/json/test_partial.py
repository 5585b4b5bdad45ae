"""The value of JSON that is still being written."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.json.partial import MAX_DEPTH, MAX_NUMBER, PartialJson

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
    max_leaves=20,
)
LAYOUTS = st.sampled_from(
    [{}, {"indent": 2}, {"separators": (",", ":")}, {"indent": "\t", "separators": (" ,", " : ")}]
)


def begins(part: Any, whole: Any) -> bool:  # noqa: ANN401 - free JSON
    """Say whether ``part`` is what ``whole`` is after some of it has been written."""
    if isinstance(part, str) and isinstance(whole, str):
        return whole.startswith(part)
    if isinstance(part, list) and isinstance(whole, list):
        return _row_begins(part, whole)
    if isinstance(part, dict) and isinstance(whole, dict):
        return list(part) == list(whole)[: len(part)] and _row_begins([*part.values()], [*whole.values()])
    return type(part) is type(whole) and bool(part == whole)


def _row_begins(part: Sequence[Any], whole: Sequence[Any]) -> bool:
    if len(part) > len(whole):
        return False
    return part[:-1] == whole[: max(len(part) - 1, 0)] and (not part or begins(part[-1], whole[len(part) - 1]))


def value_of(text: str) -> str | None:
    """Return the value of a text that is read at once."""
    return PartialJson().advance(text)


@given(VALUES, LAYOUTS, st.booleans())
def test_every_prefix_has_a_value(
    value: Any,  # noqa: ANN401 - free JSON
    layout: dict[str, Any],
    ascii_only: bool,
) -> None:
    """The value of each prefix is valid JSON, part of the whole value, never shrinks, and is the whole at the end."""
    text = json.dumps(value, ensure_ascii=ascii_only, **layout) + "\n"
    reader, last = PartialJson(), None
    for length in range(len(text) + 1):
        partial = reader.advance(text[:length])
        if partial is None:
            assert last is None
            continue
        assert "\n" not in partial
        parsed = json.loads(partial)
        msgspec.json.decode(partial)
        assert begins(parsed, value)
        assert last is None or begins(json.loads(last), parsed)
        last = partial
    assert last is not None
    assert json.loads(last) == value


@given(st.text(alphabet='{}[]":,\\ue0d8ct-+.1 \n\ud800tr', max_size=40) | st.text(max_size=40), st.data())
def test_any_text_has_a_value_that_parses_or_none(text: str, data: st.DataObject) -> None:
    """Any text has a value that parses or no value, however it is cut into pieces."""
    reader, length = PartialJson(), 0
    while length < len(text):
        length = data.draw(st.integers(length + 1, len(text)))
        partial = reader.advance(text[:length])
        assert partial == value_of(text[:length])
        if partial is not None:
            json.loads(partial)
            msgspec.json.decode(partial)


@pytest.mark.parametrize(
    ("text", "partial"),
    [
        ("", None),
        (" \n", None),
        ("{", "{}"),
        ('{"na', "{}"),
        ('{"name"', "{}"),
        ('{"name":', "{}"),
        ('{"name": "', '{"name": ""}'),
        ('{"name": "Pi', '{"name": "Pi"}'),
        ('{"name": "Pi\\', '{"name": "Pi"}'),
        ('{"name": "Pi\\n', '{"name": "Pi\\n"}'),
        ('{"name": "\\u00e', '{"name": ""}'),
        ('{"name": "\\ud83d', '{"name": ""}'),
        ('{"name": "\\ud83d\\ude0', '{"name": ""}'),
        ('{"name": "\\ud83d\\ude00', '{"name": "\\ud83d\\ude00"}'),
        ('{"a": 1', "{}"),
        ('{"a": 1,', '{"a": 1}'),
        ('{"a": 1, "b": tru', '{"a": 1}'),
        ('{"a": 1, "b": true', '{"a": 1, "b": true}'),
        ("[1.5e3, [", "[1.5e3, []]"),
        ('[{"a": [null, "x"', '[{"a": [null, "x"]}]'),
        ("[1,\n2]", "[1, 2]"),
        ("12", None),
        ("12 ", "12"),
        ('"a"', '"a"'),
    ],
)
def test_incomplete_parts_are_left_out(text: str, partial: str | None) -> None:
    """A key without its value, and an incomplete number, literal or escape are left out."""
    assert value_of(text) == partial


@pytest.mark.parametrize(
    "text",
    [
        "Here is",
        "```json\n{",
        "{'a'",
        '{"a" 1',
        '{"a": 1 "b"',
        "{1",
        "[1,]",
        "[01,",
        "[1e999,",
        "[--1,",
        "[tr?",
        "[}",
        '["\t',
        '["\\x is no escape',
        '["\\ud83d and more',
        '["\ud83d',
        '{"a": 1} and more',
        "[" * (MAX_DEPTH + 1),
        "1" * (MAX_NUMBER + 1),
    ],
)
def test_text_that_is_not_json_has_no_value(text: str) -> None:
    """Text that is not JSON has no value from the first wrong character on."""
    reader = PartialJson()
    assert reader.advance(text) is None
    assert reader.advance(text + '"}]') is None


def test_depth_is_bounded() -> None:
    """JSON of ``MAX_DEPTH`` levels is closed; deeper JSON has no value."""
    assert value_of("[" * MAX_DEPTH) == "[" * MAX_DEPTH + "]" * MAX_DEPTH
