import pytest

from actors.wire.limits import allowances, duration, moment
from protocol.upstream import Allowance

OPENAI = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-limit-tokens": "150000",
    "x-ratelimit-remaining-tokens": "149984",
    "x-ratelimit-reset-tokens": "6m0s",
}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("120ms", 0.12),
        ("6m0s", 360.0),
        ("2m59.56s", 179.56),
        ("1h2m3.5s", 3723.5),
        ("1d", 86_400.0),
        ("8.64s", 8.64),
        ("", None),
        ("soon", None),
        ("1", None),
        ("-1s", None),
        ("1s1s", None),
        ("9" * 40 + "s", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    """OpenAI's durations are parsed; any other text is None."""
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:01:40Z", 90.0),
        ("1970-01-01T01:00:11+01:00", 1.0),
        ("1970-01-01T00:00:01Z", -9.0),
        ("1970-01-01T00:01:40", None),
        ("soon", None),
        ("", None),
    ],
)
def test_moments(text: str, seconds: float | None) -> None:
    """Anthropic's times are parsed; one without a time zone is None."""
    assert moment(text, 10.0) == seconds


def test_openai_headers() -> None:
    """OpenAI reports calls and tokens, each with what remains, its limit and its reset."""
    assert allowances(OPENAI, 0.0) == (Allowance("calls", 59, 60, 1.0), Allowance("tokens", 149_984, 150_000, 360.0))


def test_anthropic_headers() -> None:
    """Anthropic reports calls, tokens, and tokens of input and of output."""
    headers = {
        f"anthropic-ratelimit-{counted}-{field}": value
        for counted in ("requests", "tokens", "input-tokens", "output-tokens")
        for field, value in (("limit", "50"), ("remaining", "49"), ("reset", "1970-01-01T00:00:12Z"))
    }
    units = ("calls", "tokens", "tokens", "output")
    assert allowances(headers, 10.0) == tuple(Allowance(unit, 49, 50, 2.0) for unit in units)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [
        {"x-ratelimit-remaining-requests": "many"},
        {"x-ratelimit-remaining-requests": "-1"},
        {"x-ratelimit-remaining-requests": "9" * 5000},
        {"x-ratelimit-reset-requests": "0s"},
        {"x-ratelimit-reset-requests": "tomorrow"},
        {"x-ratelimit-reset-requests": ""},
    ],
)
def test_nonsense_is_ignored(changed: dict[str, str]) -> None:
    """A limit with a value that can't be parsed is ignored; the other one counts."""
    assert [one.unit for one in allowances({**OPENAI, **changed}, 0.0)] == ["tokens"]


def test_a_limit_of_unknown_size() -> None:
    """A limit without its size is reported with size 0."""
    headers = {name: value for name, value in OPENAI.items() if "limit-" not in name.removeprefix("x-ratelimit-")}
    assert [one.limit for one in allowances(headers, 0.0)] == [0, 0]
    assert allowances({}, 0.0) == ()
