"""Files that are broken, on purpose or not: each is read, or has named faults with their places; never a traceback."""

from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.config import env_file, routes_file
from service.config.env_file import MAX_LINES, read_env_file
from service.config.routes_file import MAX_FAULTS, MAX_PARTS, read_routes
from service.config.settings import SETTINGS, read_settings
from service.config.toml_lines import TomlLines

TOML: Final = """default = "fast"

[providers.groq]
kind = "openai"
base_url = "https://groq.example/openai/v1"
models = ["llama"]

[routes.fast]
targets = ["groq/llama", { model = "groq/llama", weight = 3 }]

[keys.web]
hash = "8e1c5d0ce63ad9b8d2c1d6a3d0b2e7f4a5968778695a4b3c2d1e0f00112233ff"
tenant = "acme"
on_revoke = "cancel"
channels = [{ pattern = "room:*", rights = ["subscribe"] }]

[[keys.web.budgets]]
per = "day"
usd = 5
"""
ENV: Final = """PORT=3000
# a comment
OPENAI_API_KEY="sk-secret-secret-secret"
API_KEYS=one-key-of-the-tests,another-key-of-the-tests
JWT_SECRET='a secret of at least thirty-two bytes'
LOG_LEVEL=${LEVEL}
"""
_WORDS: Final = [
    "1e999",
    "nan",
    "-1",
    "[[keys.web]]",
    "true",
    "2026-11-30",
    "a.b",
    "export ",
    "[keys.x]\n",
    "hash = ''\n",
]
PIECES: Final = st.sampled_from([*"[]{}=.,#$\"'\n\r\\\0", '"""', "\ufeff", "${", "9" * 5000, *_WORDS])
Edit = tuple[float, float, str]
EDITS: Final = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 0.2), PIECES | st.text(max_size=6)), min_size=1, max_size=5
)
USUAL: Final = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def edited(text: str, edits: list[Edit]) -> str:
    """Return a text in which some parts are replaced."""
    for place, length, piece in edits:
        start = round(place * len(text))
        text = text[:start] + piece + text[start + round(length * len(text)) :]
    return text


@USUAL
@given(edits=EDITS)
def test_a_routes_file_is_read_or_has_named_faults(tmp_path: Path, edits: list[Edit]) -> None:
    """Each fault names the file, and says something; no digest and no value of a line is in it."""
    file = tmp_path / "tidegate.toml"
    file.write_bytes(edited(TOML, edits).encode("utf-8", "surrogatepass"))
    read = read_routes(file)
    for fault in read.faults:
        assert fault.path.startswith(str(file)), fault
        assert fault.message
    assert len(read.faults) <= MAX_FAULTS + 1


@USUAL
@given(edits=EDITS)
def test_a_settings_file_is_read_or_has_named_faults(tmp_path: Path, edits: list[Edit]) -> None:
    """Each fault and each notice names a place; no secret is in any of them."""
    file = tmp_path / ".env"
    file.write_bytes(edited(ENV, edits).encode("utf-8", "surrogatepass"))
    env = read_env_file(file)
    _, faults = read_settings(env)
    for fault in (*faults, *env.notices(SETTINGS, ())):
        assert fault.path
        assert fault.message
        assert "sk-secret-secret-secret" not in fault.path + fault.message


@USUAL
@given(content=st.binary(max_size=300))
def test_whatever_bytes_they_are(tmp_path: Path, content: bytes) -> None:
    """Any bytes, in both files."""
    for name in ("tidegate.toml", ".env"):
        (tmp_path / name).write_bytes(content)
    for fault in (*read_routes(tmp_path / "tidegate.toml").faults, *read_env_file(tmp_path / ".env").faults(SETTINGS)):
        assert str(tmp_path) in fault.path
        assert fault.message


@pytest.mark.parametrize("text", ["a = [}", "a = [1 }", "a = {]", "a = {b = ]", "a = [{b = [}", "[a\nb = [}\n]"])
def test_brackets_that_do_not_match_have_an_end(tmp_path: Path, text: str) -> None:
    """The reader of lines goes on, or gives up; it once stayed at `}` in an array for ever."""
    file = tmp_path / "tidegate.toml"
    file.write_text(text, encoding="utf-8")
    assert [fault.path.partition(":")[0] for fault in read_routes(file).faults] == [str(file)]


LARGE: Final = {
    "more bytes than are read": "#" * (routes_file.MAX_BYTES + 1),
    "a key of many parts": "a" + ".a" * MAX_PARTS + " = 1",
    "a quoted key of many parts": '"a"' + ' . "a"' * MAX_PARTS + " = 1",
    "a header of many parts": "[a" + ".a" * MAX_PARTS + "]",
    "many faults": "".join(f"k{number} = 1\n" for number in range(3000)),
    "many tables of one array": "[[keys.web.budgets]]\nper = 'day'\n" * 3000,
    "deep": "a = " + "[" * 50_000,
    "a long number": "a = " + "9" * 100_000,
    "open texts": '"' * 50_000,
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_file_has_few_faults(tmp_path: Path, name: str) -> None:
    """What is said of a file is bounded, whatever is in it."""
    file = tmp_path / "tidegate.toml"
    file.write_text(LARGE[name], encoding="utf-8")
    faults = read_routes(file).faults
    assert 0 < len(faults) <= MAX_FAULTS + 1
    assert all(str(file) in fault.path and len(fault.message) < 1000 for fault in faults)


def test_the_lines_of_an_array_of_tables_cost_one_step_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The paths around a key are kept once: the steps grow with the file, not with its square."""
    kept: list[str] = []
    keep = TomlLines._keep

    def count_and_keep(lines: TomlLines, path: str, line: int) -> None:
        kept.append(path)
        keep(lines, path, line)

    monkeypatch.setattr(TomlLines, "_keep", count_and_keep)
    steps: list[int] = []
    for count in (500, 1000):
        lines = TomlLines("[[keys.web.budgets]]\nper = 'day'\n" * count)
        assert lines.line(f"keys.web.budgets[{count - 1}].per") == 2 * count
        steps.append(len(kept) + len(lines._parents))
        kept.clear()
    assert steps[1] < 2.1 * steps[0]


def test_a_settings_file_has_a_bounded_number_of_lines(tmp_path: Path) -> None:
    """The library that reads it takes time with the square of the names; the fault names the file."""
    file = tmp_path / ".env"
    file.write_text("A=1\n" * (MAX_LINES + 1), encoding="utf-8")
    assert [fault.path for fault in read_env_file(file).faults(SETTINGS)] == [str(file)]
    file.write_bytes(b"#" * (env_file.MAX_BYTES + 1))
    assert "larger than" in read_env_file(file).fault
