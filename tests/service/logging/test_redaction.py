"""Redaction: no secret in any place of any value, and JSON for whatever a field holds."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from protocol.secret_text import REDACTED
from service.logging.line import MAX_LINE, LogLine, TerminalRenderer
from service.logging.redaction import MAX_DEPTH, MAX_ITEMS, MAX_TEXT, Redactor

OURS = 'our "own" secret \\ é'
WORDS = (
    "api key",
    "password",
    "token",
    "authorization",
    "secret",
    "cookie",
    "access token",
    "private key",
    "set cookie",
)
STYLES: tuple[Callable[[list[str]], str], ...] = (
    "_".join,
    "-".join,
    "".join,
    lambda words: "_".join(words).upper(),
    lambda words: "-".join(word.title() for word in words),
    lambda words: words[0] + "".join(word.title() for word in words[1:]),
    lambda words: "x-" + "-".join(words),
    lambda words: "openai_" + "_".join(words),
)
HIDDEN = "hunter-two-hunter"
SECRETS = (
    "tg_0123456789abcdef",
    "tk_0123456789abcdef",
    "sk-proj-0123456789abc",
    "Bearer abcdef.0123456",
    "bearer\tabcdef0123456",
    "Basic dXNlcjpwYXNzd29yZA==",
    "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl",
    OURS,
    "GET /ws?ticket=abc HTTP/1.1\r\nHost: x\r\nX-Own: veiled-value\r\n\r\n",
    repr(b"POST /v1/x HTTP/1.1\r\nX-Own: veiled-value\r\n\r\n"),
    "Cookie: a=veiled-value; b=c",
    '{"password": "veiled value", "a": 1}',
    "Config(api_key='veiled value', a=1)",
    "http://h/x?key=veiled-value&a=1",
)
LEAKS = ("0123456", "veiled", "dXNlcjpw", "c2lnbmF0", "eyJzdW", OURS, "ticket=abc")


class Shape(msgspec.Struct, rename="camel"):
    api_key: str
    other: Any


@dataclass
class Plain:
    password: str
    other: Any


class Named(NamedTuple):
    token: str
    other: Any


class Model(BaseModel):
    secret: str
    other: Any


SHAPES = (Shape, Plain, Named, lambda secret, other: Model(secret=secret, other=other))

names = st.tuples(st.sampled_from(STYLES), st.sampled_from(WORDS)).map(lambda pair: pair[0](pair[1].split()))
hidden = st.sampled_from([HIDDEN, 7_000_001, [HIDDEN], {"a": HIDDEN}])
leaves = st.one_of(
    st.tuples(names, hidden).map(lambda pair: {pair[0]: pair[1]}),
    st.tuples(names, hidden).map(lambda pair: [{pair[0]: pair[1], "size": 1}]),
    st.tuples(names, st.just(HIDDEN)),
    st.sampled_from(SHAPES).map(lambda make: make(HIDDEN, 1)),
    st.tuples(st.text(max_size=20), st.sampled_from(SECRETS), st.text(max_size=20)).map(" ".join),
    st.integers(0, 9),
)
nested = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.dictionaries(st.text("abz_", min_size=1, max_size=6), inner, max_size=3),
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.tuples(st.sampled_from(SHAPES), inner).map(lambda pair: pair[0]("x", pair[1])),
    ),
    max_leaves=8,
)

anything = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.integers(min_value=2**63, max_value=2**70),
        st.floats(),
        st.text(st.characters(), max_size=30),
        st.binary(max_size=5),
        st.decimals(),
        st.datetimes(),
        st.uuids(),
        st.sampled_from([object, object(), Path("/a"), Exception("no"), enum.Enum("E", "A"), frozenset({1}), 1j]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.text(st.characters(), max_size=5), st.integers(), st.none()), inner, max_size=3),
    ),
    max_leaves=10,
)


def line_of(redactor: Redactor, **fields: Any) -> LogLine:  # noqa: ANN401 - any
    """Return a line with these fields."""
    return LogLine({"timestamp": 1.0, "level": "info", "event": "said", **fields}, redactor)


@given(nested)
def test_no_secret_is_in_any_place(value: object) -> None:
    """Whatever the nesting and the case of a name: neither JSON nor the terminal shows the value."""
    redactor = Redactor([OURS])
    line = line_of(redactor, value=value)
    text = line.json.decode()
    assert orjson.loads(text)["event"] == "said"
    for said in (text, TerminalRenderer(colors=False)(line)):
        assert HIDDEN not in said
        assert "7000001" not in said
        assert [leak for leak in LEAKS if leak in said or orjson.dumps(leak).decode()[1:-1] in said] == []


@given(st.dictionaries(st.text(max_size=10), anything, max_size=4))
def test_a_line_is_json_whatever_its_fields_hold(fields: dict[str, Any]) -> None:
    """Surrogates, numbers of any size, keys of any type, objects: the line can be read."""
    line = LogLine({"timestamp": 1.0, "level": "info", "event": "said", **fields}, Redactor(["e", '"', OURS]))
    assert isinstance(orjson.loads(line.json), dict)
    assert line.json.count(b"\n") == 1
    assert TerminalRenderer(colors=False)(line).count("\n") == 1


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_in_a_text_is_hidden(secret: str) -> None:
    """Also as the event, in a key, and in an exception; the text around it stays."""
    redactor = Redactor([OURS])
    for fields in ({"a": f"before {secret}"}, {"event": f"before {secret}"}, {"a": {f"before {secret}": 1}}):
        text = line_of(redactor, **fields).json.decode()
        assert "before" in text
        assert REDACTED in text
        assert [leak for leak in LEAKS if leak in text] == []
    line = line_of(redactor, exc_info=ValueError(f"before {secret}"))
    for text in (line.json.decode(), TerminalRenderer(colors=False)(line)):
        assert "before" in text
        assert [leak for leak in LEAKS if leak in text] == []


@pytest.mark.parametrize(
    "text",
    [
        "tokens: 5",
        "max_tokens=5 is too small",
        "task-12345678 and disk-12345678",
        "a basic question about secretaries",
        "the bearer of news",
        "GET /v1/models",
        "stg_0123456789abcdef",
        "Invalid header token:\n\n  b'bad header: x'",
    ],
)
def test_other_texts_stay(text: str) -> None:
    """What only looks a little like a secret is written."""
    assert Redactor().text(text) == text


@pytest.mark.parametrize(
    "name", ["tokens", "max_tokens", "first_token_ms", "key", "keys", "cookieless", "model", "secretary"]
)
def test_other_names_stay(name: str) -> None:
    """Counts of tokens are no tokens."""
    assert Redactor().clean({name: {"input": 1}}) == {name: {"input": 1}}


def test_it_shows_that_there_is_no_secret() -> None:
    """None, False and an empty text are shown under a secret name."""
    fields = {"token": None, "password": "", "secret": False, "cookie": "x"}
    assert Redactor().clean(fields) == fields | {"cookie": REDACTED}


def test_known_types_are_readable() -> None:
    """Values are written as a person would."""
    when = datetime(2026, 7, 14, tzinfo=UTC)
    clean = Redactor().clean(
        {"a": Decimal("1.50"), "b": when, "c": b"abc", "d": {1}, "e": ValueError("no"), "f": SecretStr("x"), "g": 2**70}
    )
    assert clean == {
        "a": "1.50",
        "b": "2026-07-14 00:00:00+00:00",
        "c": "[3 bytes]",
        "d": [1],
        "e": "ValueError: no",
        "f": "**********",
        "g": str(2**70),
    }


def test_a_line_is_bounded() -> None:
    """Length of a text, items, depth and the whole line have bounds, and the line says what was cut."""
    deep: Any = "end"
    for _ in range(MAX_DEPTH + 5):
        deep = [deep]
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    clean = Redactor().clean({"text": "x " * MAX_TEXT, "many": list(range(500)), "deep": deep, "cyclic": cyclic})
    assert len(clean["text"]) < MAX_TEXT + 50
    assert clean["text"].endswith(f"… [{2 * MAX_TEXT} characters]")
    assert clean["many"][MAX_ITEMS:] == [f"[{500 - MAX_ITEMS} more]"]
    assert "[nested too deeply]" in str(clean["deep"])
    assert "[nested too deeply]" in str(clean["cyclic"])
    line = line_of(Redactor(), request_id="r", **{f"f{number}": "\x01" * MAX_TEXT for number in range(90)})
    assert len(line.json) <= MAX_LINE
    assert orjson.loads(line.json)["request_id"] == "r"
    assert b"[cut: " in line.json


@pytest.mark.parametrize(
    "text", ["sk-" * 50_000, "token" + " " * 100_000, "eyJ" * 50_000, "GET " * 50_000, "=" * 200_000]
)
def test_a_hostile_text_takes_no_time(text: str) -> None:
    """Patterns are linear on whatever a caller sends; within the test's timeout a thousand of them are read."""
    for _ in range(20):
        assert len(Redactor().text(text)) < MAX_TEXT + 50


def test_a_value_that_can_not_be_read_loses_only_itself() -> None:
    """The line is written without it."""

    class Bad:
        def __repr__(self) -> str:
            raise RuntimeError

    assert orjson.loads(line_of(Redactor(), value=Bad(), other=1).json)["value"] == "[unreadable: RuntimeError]"
