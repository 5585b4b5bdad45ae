"""Settings: sources, validation, messages."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.errors import ConfigurationError
from service.config.settings import Settings, is_loopback, load_pepper, load_settings


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value in the file counts only where the environment has none."""
    file = tmp_path / ".env"
    file.write_text("PORT=4000\nCACHE_MAX_ENTRIES=5\nSOMETHING_ELSE=1\n", encoding="utf-8")
    monkeypatch.setenv("PORT", "5000")
    settings = load_settings(file)
    assert settings.port == 5000
    assert settings.cache_max_entries == 5


KEY = "a-key-of-the-tests"
EXAMPLE = re.compile(r"^# (?P<name>[A-Z_]+)=(?P<value>\S*) +# (?P<comment>.+)$")


def test_the_example_file_has_every_setting_with_its_default(root: Path, tmp_path: Path) -> None:
    """Neither the file itself nor all its lines uncommented change a default; each line has a comment."""
    example = root / ".env.example"
    assert load_settings(example) == load_settings(None)
    lines = [line for line in example.read_text(encoding="utf-8").splitlines() if "=" in line]
    settings = [match for line in lines if (match := EXAMPLE.match(line))]
    assert len(settings) == len(lines)
    assert [match["name"] for match in settings] == [name.upper() for name in Settings.model_fields]
    for match in settings:
        default = Settings.model_fields[match["name"].lower()].default
        assert bool(match["value"]) == (default not in {None, "", ()}), match["name"]
    in_force = tmp_path / ".env"
    in_force.write_text("".join(f"{line.removeprefix('# ')}\n" for line in lines), encoding="utf-8")
    assert load_settings(in_force) == load_settings(None)


def test_an_empty_value_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """``OPENAI_API_KEY=`` in a file means that there is no key."""
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.setenv("API_KEYS", "")
    settings = load_settings(None)
    assert settings.openai_api_key is None
    assert settings.api_keys == ()


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys and origins are lists; blanks around a comma do not count."""
    monkeypatch.setenv("API_KEYS", f"{KEY}, {KEY}-2 ,")
    monkeypatch.setenv("WS_ALLOWED_ORIGINS", "https://a.example,https://B.example:443/, http://c.example:80")
    monkeypatch.setenv("CORS_ALLOWED_ORIGINS", "http://[::1]:5173, chrome-extension://abc, *")
    monkeypatch.setenv("ALLOWED_HOSTS", "Gate.example, 10.0.0.7:3000")
    monkeypatch.setenv("TRUSTED_PROXIES", "10.1.2.3, 192.168.0.1/16, ::1")
    settings = load_settings(None)
    assert [key.get_secret_value() for key in settings.api_keys] == [KEY, f"{KEY}-2"]
    assert settings.ws_allowed_origins == ("https://a.example", "https://b.example", "http://c.example")
    assert settings.cors_allowed_origins == ("http://[::1]:5173", "chrome-extension://abc", "*")
    assert settings.allowed_hosts == ("gate.example", "10.0.0.7:3000")
    assert settings.trusted_proxies == ("10.1.2.3/32", "192.168.0.0/16", "::1/128")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PORT", "70000", "a whole number, at least 0, at most 65535"),
        ("PORT", "http", "a whole number, at least 0, at most 65535"),
        ("PORT", "1.5", "a whole number, at least 0, at most 65535"),
        ("DRAIN_SECONDS", "2s", "a number of seconds, at least 0, at most 60, written without a unit"),
        ("DRAIN_SECONDS", "nan", "a number of seconds, at least 0, at most 60"),
        ("IDLE_TIMEOUT_SECONDS", "0", "a number of seconds, above 0, at most 86400"),
        ("CACHE_MAX_BYTES", "64MB", "a whole number of bytes, at least 1024, written without a unit"),
        ("WS_HEARTBEAT_SECONDS", "0", "a number of seconds, at least 1, at most 3600"),
        ("LOG_TO_FILE", "maybe", "LOG_TO_FILE: should be true or false"),
        ("LOG_LEVEL", "loud", "'TRACE', 'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'FATAL'"),
        ("ENVIRONMENT", "prod", "'development', 'production' or 'test'"),
        ("NODE_ENV", "staging", "'development', 'production' or 'test', where ENVIRONMENT is not set"),
        (
            "API_KEYS",
            f"{KEY},short, tiny",
            "at least 16 characters; too short: number 2, 3 of 3; a shorter one can be guessed",
        ),
        ("WS_ALLOWED_ORIGINS", '["https://a.example"]', "separated by commas, without brackets"),
        ("JWT_SECRET", "short", "at least 32 characters"),
        ("KEY_PEPPER", "p" * 65, "at most 64 bytes"),
        ("LLM_PROVIDER", "gemini", "'local', 'openai' or 'anthropic'"),
        ("LOG_FORMAT", "xml", "'auto', 'json' or 'pretty'"),
        ("OPENAI_BASE_URL", "api.example", "begins with http:// or https://"),
        ("PROVIDER_CONCURRENCY", "0", "a whole number, at least 1, at most 10000"),
        ("CORS_ALLOWED_ORIGINS", "https://a.example/path", "such as https://app.example.com"),
        ("CORS_ALLOWED_ORIGINS", "null", "such as https://app.example.com"),
        ("WS_ALLOWED_ORIGINS", "https://*.example", "such as https://app.example.com"),
        ("ALLOWED_HOSTS", "https://gate.example", "such as gate.example.com"),
        ("TRUSTED_PROXIES", "gate.example", "such as 10.0.0.0/8"),
    ],
)
def test_a_bad_value_names_the_setting_and_what_it_may_be(
    name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the setting and what is allowed."""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None)
    assert caught.value.detail.startswith(f"{name}: ")
    assert says in caught.value.detail
    assert len(value) < 5 or value not in caught.value.detail


def test_a_bad_value_is_never_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret in the wrong variable does not get into a log."""
    monkeypatch.setenv("PORT", "sk-very-secret")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(None)
    assert "sk-very-secret" not in str(caught.value)


def test_secrets_do_not_show() -> None:
    """Printing the settings shows no key."""
    settings = load_settings(None, openai_api_key="sk-hidden", api_keys="tide-hidden-hidden", jwt_secret="hidden" * 6)
    assert "hidden" not in repr(settings)


@pytest.mark.parametrize(
    ("keys", "provider"),
    [
        ({}, "local"),
        ({"openai_api_key": "a"}, "openai"),
        ({"anthropic_api_key": "a"}, "anthropic"),
        ({"openai_api_key": "a", "anthropic_api_key": "b"}, "openai"),
        ({"openai_api_key": "a", "llm_provider": "LOCAL"}, "local"),
    ],
)
def test_the_provider_follows_from_the_keys(keys: dict[str, str], provider: str) -> None:
    """By default the provider is the one with a key; without any it is the local model."""
    assert load_settings(None, **keys).provider == provider


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_needs_no_keys(host: str) -> None:
    """Only this machine can reach these addresses."""
    assert is_loopback(host)
    load_settings(None, host=host).check_exposure()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "gateway.example", ""])  # noqa: S104 - refused
def test_any_other_address_needs_keys(host: str) -> None:
    """Without keys a reachable address is refused, with the settings to set."""
    with pytest.raises(ConfigurationError, match="API_KEYS"):
        load_settings(None, host=host).check_exposure()
    load_settings(None, host=host, api_keys="a-key-of-the-tests").check_exposure()


def test_settings_load_no_provider_and_no_wire(root: Path) -> None:
    """Importing the settings loads none of the actors that use their structs, so that mistakes are reported quickly."""
    program = "import sys, service.config.settings; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, check=True, text=True)  # noqa: S603 - ours
    loaded = set(run.stdout.split())
    heavy = {
        "actors.channels.channels",
        "actors.embeddings.actor",
        "actors.llm_gateway.gateway",
        "actors.wire",
        "aiohttp",
    }
    assert loaded & heavy == set()


def test_all_faults_are_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its place: a variable of the environment by its name, one of the file with its line."""
    file = tmp_path / ".env"
    file.write_text("PORT=4000\nMAX_REQUESTS=0\n\nlog_level=loud\nDRAIN_SECONDS=1\n", encoding="utf-8")
    monkeypatch.setenv("DRAIN_SECONDS", "90s")
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file, port=70_000)
    places = {fault.path for fault in caught.value.faults}
    assert places == {"PORT", "DRAIN_SECONDS", f"{file}:2: MAX_REQUESTS", f"{file}:4: LOG_LEVEL"}


@pytest.mark.parametrize("level", ["warn", "WARN", "Warning", " warning "])
def test_a_level_is_read_in_any_case(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """``warn`` is the name that other loggers have for it."""
    monkeypatch.setenv("LOG_LEVEL", level)
    assert load_settings(None).log_level == "WARNING"


@pytest.mark.parametrize(
    ("text", "environment", "result"),
    [
        ("", {}, "development"),
        ("", {"NODE_ENV": "Production"}, "production"),
        ("", {"NODE_ENV": "test"}, "test"),
        ("", {"NODE_ENV": ""}, "development"),
        ("NODE_ENV=production", {}, "production"),
        ("NODE_ENV=production", {"NODE_ENV": "development"}, "development"),
        ("ENVIRONMENT=production", {"NODE_ENV": "development"}, "production"),
        ("ENVIRONMENT=production", {"NODE_ENV": "staging"}, "production"),
        ("", {"NODE_ENV": "production", "ENVIRONMENT": "test"}, "test"),
    ],
)
def test_node_env_counts_where_environment_is_not_set(
    text: str, environment: dict[str, str], result: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment wins over the file for either of them."""
    file = tmp_path / ".env"
    file.write_text(text, encoding="utf-8")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert load_settings(file).environment == result


def test_the_pepper_is_read_also_where_other_settings_are_invalid(tmp_path: Path) -> None:
    """The remedy for short keys is a command that needs it; its own faults and those of the file count."""
    file = tmp_path / ".env"
    file.write_text("API_KEYS=short\nKEY_PEPPER=pepper\n", encoding="utf-8")
    pepper = load_pepper(file)
    assert pepper is not None
    assert pepper.get_secret_value() == "pepper"
    for text in ("KEY_PEPPER='open\n", f"KEY_PEPPER={'p' * 65}\n"):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigurationError, match="KEY_PEPPER"):
            load_pepper(file)
    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigurationError, match="Is a directory"):
        load_pepper(file)


def test_all_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    """``*`` is one of the origins, as it is written."""
    monkeypatch.setenv("WS_ALLOWED_ORIGINS", "*")
    assert load_settings(None).ws_allowed_origins == ("*",)
