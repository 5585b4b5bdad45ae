"""The check of the whole configuration."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from protocol.errors import ConfigurationError
from service.config.check import Checked, check_configuration
from tests.service.issuer import EC

HIDDEN = "sk-hidden-hidden-hidden"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checked(folder: Path, env: str = "", toml: str = "", **settings: Any) -> Checked:  # noqa: ANN401 - field by field
    """Check a configuration of these files."""
    (folder / ".env").write_text(env, encoding="utf-8")
    if toml:
        (folder / "tidegate.toml").write_text(toml, encoding="utf-8")
    return check_configuration(**settings)


def said(found: Checked) -> list[str]:
    """Return the faults as text."""
    return [f"{fault.path}: {fault.message}".removeprefix(": ") for fault in found.faults]


def test_everything_at_once(folder: Path) -> None:
    """Faults of the environment, of the file, of what the file names, and of what both have to fit; no secret."""
    env = f"MAX_REQUESTS=0\nOPENAI_API_KEY={HIDDEN}\nLLM_PROVIDER=anthropic\nDEFAULT_EMBEDDING_MODEL=foo/x\nTYPO=1\n"
    toml = f"""
default = "fst"
[providers.groq]
kind = "opnai"
api_key_env = "GROQ_API_KEY"
[providers.mine]
kind = "openai"
api_key_env = "MY_KEY"
api_key = "{HIDDEN}"
[providers.far]
kind = "azure"
[providers.odd]
kind = "openai"
base_url = "https://user:{HIDDEN}@host/v1"
[routes.fast]
order = "listd"
targets = ["grok/a", "local/gpt", "{HIDDEN}", {{ model = "openai/m", temperature = 3 }}]
[embeddings.docs]
targets = ["nobody/m"]
[keys.web]
env = "NO_KEY"
[keys.app]
"""
    found = checked(folder, env, toml, host="0.0.0.0")  # noqa: S104 - one of the faults
    expected = [
        ".env:1: MAX_REQUESTS: should be a whole number, at least 1",
        "LLM_PROVIDER: anthropic has no key",
        "DEFAULT_EMBEDDING_MODEL: 'foo/x': there is no provider 'foo' that embeds",
        "tidegate.toml:2: default: 'fst' is no `provider/model`",
        "tidegate.toml:4: providers.groq.kind: should be 'openai'",
        "tidegate.toml:5: providers.groq.api_key_env: GROQ_API_KEY is not set",
        "tidegate.toml:8: providers.mine.api_key_env: MY_KEY is not set",
        "tidegate.toml:9: providers.mine.api_key: there is no such key",
        "tidegate.toml:10: providers.far.base_url: azure needs one",
        "tidegate.toml:12: providers.odd: a provider's URL",
        "tidegate.toml:16: routes.fast.order: should be 'listed' or 'weighted'; did you mean 'listed'?",
        "tidegate.toml:17: routes.fast.targets[3].temperature: should be a number <= 2",
        "tidegate.toml:17: routes.fast.targets[0]: 'grok/a' is no `provider/model`",
        "tidegate.toml:17: routes.fast.targets[1]: local has no model 'gpt'",
        "tidegate.toml:17: routes.fast.targets[2]: '…' is no `provider/model`",
        "tidegate.toml:18: embeddings.docs: 'nobody/m' is no `provider/model`",
        "tidegate.toml:21: keys.web.env: the variable NO_KEY is not set",
        "tidegate.toml:22: keys.app: it needs either `hash` or `env`",
    ]
    assert len(found.faults) == len(expected), "\n".join(said(found))
    for fault, start in zip(said(found), expected, strict=True):
        assert fault.startswith(start), fault
    assert HIDDEN not in str(found.faults) + str(found.notices)
    with pytest.raises(ConfigurationError) as caught:
        found.require()
    assert caught.value.faults == found.faults


def test_keys_that_are_refused_are_not_said_to_be_unset(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A short key is one fault, from the file and from the environment."""
    words = "API_KEYS: each key needs at least 16 characters"
    (fault,) = said(checked(folder, "API_KEYS=secret", host="0.0.0.0"))  # noqa: S104 - as its user would
    assert fault.startswith(f".env:1: {words}")
    monkeypatch.setenv("API_KEYS", "secret")
    (fault,) = said(checked(folder, host="0.0.0.0"))  # noqa: S104 - the same
    assert fault.startswith(words)


def test_an_open_address_and_a_useless_secret(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What else keeps the service from starting; without a routes' file."""
    assert said(checked(folder, host="0.0.0.0"))[0].startswith("HOST=0.0.0.0 can be reached")  # noqa: S104 - refused
    for toml, count in (("[keys.a]\nenv = 1", 1), ("[keys", 1), ("[routes.a]\ntargets = []", 2)):
        assert len(checked(folder, toml=toml, host="0.0.0.0").faults) == count  # noqa: S104 - the same
    (folder / "tidegate.toml").unlink()
    monkeypatch.setenv("DEFAULT_LLM_MODEL", "foo/bar")
    assert [fault.path for fault in checked(folder).faults] == ["DEFAULT_LLM_MODEL"]
    monkeypatch.setenv("DEFAULT_LLM_MODEL", "")
    pem = EC.as_pem(private=False).decode()
    assert [fault.path for fault in checked(folder, jwt_secret=pem).faults] == ["JWT_SECRET"]


def test_what_was_read_is_logged(folder: Path) -> None:
    """The files, and what in them has no effect; a variable that the routes' file names has one."""
    toml = '[providers.groq]\nkind = "openai"\napi_key_env = "GROQ_API_KEY"\n[keys.web]\nenv = "WEB_KEY"\n'
    env = f"GROQ_API_KEY={HIDDEN}\nWEB_KEY={HIDDEN}\nPROT=1\nLOCAL_MODEL_PATH=none.gguf\n"
    found = checked(folder, env, toml)
    with capture_logs() as logs:
        found.log()
    assert found.faults == ()
    assert [(line["event"], line["log_level"], line.get("files"), line.get("place")) for line in logs] == [
        ("settings_read", "info", [str(folder / ".env"), str(folder / "tidegate.toml")], None),
        ("setting_ignored", "warning", None, ".env:3"),
        ("setting_ignored", "warning", None, "LOCAL_MODEL_PATH"),
    ]
    assert "did you mean 'PORT'?" in logs[1]["reason"]
    assert HIDDEN not in str(logs)


def test_files_that_are_not_there_were_not_read(folder: Path) -> None:
    """A service needs none."""
    assert check_configuration().files == []
    assert check_configuration().faults == ()
