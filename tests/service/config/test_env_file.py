"""The settings file: values, lines, and what can't be read."""

from pathlib import Path

import pytest

from protocol.errors import ConfigurationError
from service.config.env_file import EnvFile, read_env_file
from service.config.settings import SETTINGS, load_settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The file's path."""
    return tmp_path / ".env"


def read(file: Path, content: str | bytes) -> EnvFile:
    """Write the file and read it."""
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_env_file(file)


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=1", "1"),
        ("export A=1", "1"),
        ("A = 1 ", "1"),
        ("A=one two  # a comment", "one two"),
        ('A="one # two" # a comment', "one # two"),
        ("A='$one'", "$one"),
        ("A=one#two", "one#two"),
        ("A=a=b==", "a=b=="),
        ("A=", ""),
        ("A= # nothing", ""),
        ('A="line\\nnext"', "line\nnext"),
        ('A="line\nnext"', "line\nnext"),
        ("B=x\nA=${B}/y", "x/y"),
        ("A=1\r\n\r\nB=2\r\n", "1"),
        ("\ufeffA=1", "1"),
        ("A=1\nA=2", "2"),
    ],
)
def test_a_value_is_what_every_reader_of_such_files_takes(file: Path, line: str, value: str) -> None:
    """Quotes, comments, ``export``, ends of lines, a byte order mark."""
    found = read(file, line)
    assert (found.found, found.values["A"], found.broken) == (True, value, ())


def test_what_has_no_effect_is_said_with_its_line(file: Path) -> None:
    """Unknown names with the nearest one, repeated names, lines that can't be read. Used and known names are none."""
    found = read(
        file,
        "PROVIDER_CONCURENCY=5\n\nlog_levl=debug\nBASE=/data\nLOCAL_MODEL_PATH=${BASE}/m.gguf\nGROQ_API_KEY=g\n"
        "MISTRAL_API_KEY=m\nOPENAI_API_KY=o\nMAX_REQUESTS=1\nmax_requests=2\nwhat is this\nJUST_A_NAME\n"
        "NODE_ENV=test\n",
    )
    notices = [(notice.path, notice.message) for notice in found.notices(SETTINGS, {"GROQ_API_KEY"})]
    assert found.faults(SETTINGS) == []
    assert notices == [
        (f"{file}:1", "PROVIDER_CONCURENCY: there is no such setting; did you mean 'PROVIDER_CONCURRENCY'?"),
        (f"{file}:3", "log_levl: there is no such setting; did you mean 'LOG_LEVEL'?"),
        (f"{file}:7", "MISTRAL_API_KEY: nothing reads it: no provider of the routes names it as its api_key_env"),
        (f"{file}:8", "OPENAI_API_KY: there is no such setting; did you mean 'OPENAI_API_KEY'?"),
        (f"{file}:9", "MAX_REQUESTS is set again in line 10"),
        (f"{file}:11", "the line can't be read: write NAME=value, and close the quotes"),
        (f"{file}:12", "the line can't be read: write NAME=value, and close the quotes"),
    ]


def test_a_broken_line_of_a_setting_keeps_the_service_from_starting(file: Path) -> None:
    """It would be open to everybody without the keys that the line holds. An open quote swallows the lines after it."""
    file.write_text("API_KEYS\nHOST='0.0.0.0\nPORT=4000\nX='x'\n", encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file)
    assert [fault.path for fault in caught.value.faults] == [f"{file}:1", f"{file}:2", f"{file}:3"]
    assert "API_KEYS can't be read: write NAME=value" in caught.value.detail


def test_no_secret_is_a_name_in_a_message(file: Path) -> None:
    """The piece of a key that is alone on a line looks like a name."""
    secrets = ("dGhpcyBpcyBzZWNyZXQ=", "sk-abcdefgh=1", "deadbeefdeadbeefdeadbeefdeadbeef=", "tg_Abcdefghijk", "x y=z")
    found = read(file, "".join(f"{secret}\n" for secret in secrets))
    said = str(found.notices(SETTINGS, ())) + str(found.faults(SETTINGS))
    assert len(found.notices(SETTINGS, ())) == len(secrets)
    for piece in ("dGhpcy", "abcdefgh", "deadbeef", "Abcdef"):
        assert piece not in said


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"PORT=1\nX=\xff\n", "line 2 is no UTF-8 text"),
        ("PORT=1\n".encode("utf-16"), "line 1 is no UTF-8 text: it was saved as UTF-16"),
        (b"#" * 1_100_000, "larger than"),
        (None, "Is a directory"),
    ],
)
def test_a_file_that_can_not_be_read_is_a_fault(file: Path, content: bytes | None, says: str) -> None:
    """A directory is what a container's volume makes of a missing file."""
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"^{file}: it can't be read: .*{says}"):
        load_settings(file)


def test_a_file_that_is_not_there_is_empty(file: Path) -> None:
    """No settings file is needed."""
    assert read_env_file(file) == EnvFile(path=file)
    assert read_env_file(None) == EnvFile()
