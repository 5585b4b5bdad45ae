"""``tidegate key`` in real processes, on real files."""

import asyncio
import json
import os
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from actors.testing import ScriptedUpstream
from protocol.errors import ConfigurationError
from service.cli.key_table import table_text
from service.cli.keys_file import KeysFile
from tests.service.cli.command import serving, tidegate

HASH: Final = "ab" * 32
OTHER: Final = "cd" * 32
FILE: Final = f"""\
# what the team uses
default = "fast"  # for all

[keys.web]  # the page
hash = "{HASH}"
models = ["fast"]   # no other

[routes.fast]
targets = ["openai/gpt-5"]  # cheap

[keys.batch]
hash = "{OTHER}"
"""


async def test_a_key_is_made_once(root: Path, tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """The key is printed to the terminal and its table to the file, which then protects every route."""
    made = await tidegate(root, "key", "create", "web", "--tenant", "acme", "--model", "gpt-*", "--model", "fast")
    code, table, notes = made
    key = re.findall(r"tg_[\w-]{43}", notes)[0]
    assert (code, key in table) == (0, False)
    lines = table.splitlines()
    assert (lines[0], lines[2:]) == ("[keys.web]", ['tenant = "acme"', 'models = ["gpt-*", "fast"]'])
    file = tmp_path / "tidegate.toml"
    await asyncio.to_thread(file.write_text, table, encoding="utf-8")
    async with serving(root, upstream, ROUTES_FILE=str(file), HOST="0.0.0.0") as service:  # noqa: S104 - it is guarded
        for sent, code in (("wrong", 1), (key, 0)):
            said = await tidegate(
                root, "ask", "hi", "--model", "gpt-5", "--url", service.address, TIDEGATE_API_KEY=sent
            )
            assert said[0] == code


async def test_a_key_needs_a_plain_name(root: Path) -> None:
    """An invalid table is not printed."""
    for arguments, said in (("we b",), "a name is"), (("web", "--tenant", "~x"), "keys.web.tenant"):
        code, out, notes = await tidegate(root, "key", "create", *arguments)
        assert (code, out) == (2, "")
        assert said in notes


async def test_a_key_has_rights_and_budgets(root: Path, tmp_path: Path) -> None:
    """Each option is a field of the table, which says the same when it is read again."""
    file = tmp_path / "tidegate.toml"
    words = ["--scope", "inference", "--scope", "admin", "--default", "fast", "--channel", "room:*=subscribe,presence"]
    words += ["--channel", "news", "--budget", "0.5usd/day", "--budget", "2_000_000tokens/month"]
    code, out, notes = await tidegate(root, "key", "create", "web", *words, "--save", "--file", str(file))
    assert (code, out) == (0, "")
    assert "within 2 s" in notes
    table = tomllib.loads(file.read_text())["keys"]["web"]
    del table["hash"]
    assert table == {
        "scopes": ["inference", "admin"],
        "default": "fast",
        "channels": [{"pattern": "room:*", "rights": ["subscribe", "presence"]}, {"pattern": "news"}],
        "budgets": [{"per": "day", "usd": 0.5}, {"per": "month", "tokens": 2_000_000}],
    }
    code, out, _ = await tidegate(root, "key", "list", "--file", str(file))
    assert code == 0
    for shown in ("web", "active", "inference,admin", "0.5usd/day 2_000_000tokens/month", "room:*=subscribe,presence"):
        assert shown in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--budget", "5/day"), "5usd/day"),
        (("--budget", "1.5tokens/day"), "part of a token"),
        (("--channel", "room:*=shout"), "subscribe, publish, presence"),
        (("--scope", "all"), "inference"),
        (("--model", ""), "keys.web.models"),
    ],
)
async def test_a_wrong_option_makes_no_key(root: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    """A mistake names what may be given, and nothing is written."""
    file = tmp_path / "tidegate.toml"
    code, out, notes = await tidegate(root, "key", "create", "web", *words, "--save", "--file", str(file))
    assert (code, out) == (2, "")
    assert said in notes
    assert "tg_" not in notes
    assert not file.exists()


async def test_a_name_is_given_once(root: Path, tmp_path: Path) -> None:
    """A name of the file is refused, also of a revoked key; a new key goes to the end, below what is there."""
    file = tmp_path / "tidegate.toml"
    file.write_text(FILE.rstrip("\n"))
    options = ("--file", str(file))
    for words in (("web",), ("web", "--save")):
        code, out, notes = await tidegate(root, "key", "create", *words, *options)
        assert (code, out, "keys.web is there already" in notes) == (2, "", True)
    assert (await tidegate(root, "key", "revoke", "web", *options))[0] == 0
    code, _, notes = await tidegate(root, "key", "create", "web", "--save", *options)
    assert (code, "is disabled but still there" in notes) == (2, True)
    code, printed, _ = await tidegate(root, "key", "create", "other", *options)
    tomllib.loads(file.read_text() + printed)
    assert (await tidegate(root, "key", "create", "third", "--save", *options))[0] == 0
    assert list(KeysFile(file).keys()) == ["web", "batch", "third"]
    assert file.read_text().startswith(FILE.replace("# the page\n", "# the page\ndisabled = true\n"))


async def test_revoking_keeps_the_rest_of_the_file(root: Path, tmp_path: Path) -> None:
    """One line is added; comments, order, mode and a link to the file stay. A list shows no digest."""
    file, link = tmp_path / "real.toml", tmp_path / "tidegate.toml"
    file.write_text(FILE)
    file.chmod(0o640)
    link.symlink_to(file)
    options = ("--file", str(link))
    code, out, notes = await tidegate(root, "key", "revoke", "web", *options)
    assert (code, "within 2 s" in out, notes) == (0, True, "")
    assert file.read_text() == FILE.replace("# the page\n", "# the page\ndisabled = true\n")
    assert (file.stat().st_mode & 0o777, link.is_symlink()) == (0o640, True)
    assert sorted(await asyncio.to_thread(os.listdir, tmp_path)) == ["real.toml", "tidegate.toml"]
    code, out, _ = await tidegate(root, "key", "revoke", "web", *options)
    assert (code, "disabled already" in out) == (0, True)
    code, out, notes = await tidegate(root, "key", "revoke", "nobody", *options)
    assert (code, out, "there are: batch, web" in notes) == (2, "", True)
    code, out, _ = await tidegate(root, "key", "list", "--json", *options)
    listed = {key["name"]: key["disabled"] for key in json.loads(out)}
    assert (code, listed, HASH in out) == (0, {"web": True, "batch": False}, False)


async def test_a_running_service_refuses_a_revoked_key(root: Path, tmp_path: Path, upstream: ScriptedUpstream) -> None:
    """The service reads the file again by itself."""
    file = tmp_path / "tidegate.toml"
    options = ("--file", str(file))
    _, _, notes = await tidegate(root, "key", "create", "web", "--save", *options)
    await tidegate(root, "key", "create", "other", "--save", *options)
    key = re.findall(r"tg_[\w-]{43}", notes)[0]
    async with serving(root, upstream, ROUTES_FILE=str(file)) as service:
        given = {"TIDEGATE_URL": service.address, "TIDEGATE_API_KEY": key}
        assert (await tidegate(root, "ask", "hi", **given))[0] == 0
        assert (await tidegate(root, "key", "revoke", "web", *options))[0] == 0
        while (done := await tidegate(root, "models", **given))[0] == 0:
            pass
        assert done[0] == 1
        assert "(unauthenticated)" in done[2]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            '[keys]\nweb = { hash = "H", disabled = false }\na = { hash = "O", disabled = false }\n',
            '[keys]\nweb = { hash = "H", disabled = true }\na = { hash = "O", disabled = false }\n',
        ),
        ('[keys.web]\nhash = "H"\ndisabled = false # yet\n', '[keys.web]\nhash = "H"\ndisabled = true # yet\n'),
        ('[ keys . "web" ]\r\nhash = "H"\r\n', '[ keys . "web" ]\r\ndisabled = true\r\nhash = "H"\r\n'),
        ('[keys]\nweb = { hash = "H" } # x\n', '[keys]\nweb = { disabled = true, hash = "H" } # x\n'),
        ('[keys]\nweb.hash = "H"\n', '[keys]\nweb.disabled = true\nweb.hash = "H"\n'),
        ('keys.web.hash = "H"\n', 'keys.web.disabled = true\nkeys.web.hash = "H"\n'),
        ('keys = { web = { hash = "H" } }\n', 'keys = { web = { disabled = true, hash = "H" } }\n'),
        (
            '[keys.a]\nhash = "O"\ndisabled = false\n[keys.web]\nhash = "H"',
            '[keys.a]\nhash = "O"\ndisabled = false\n[keys.web]\ndisabled = true\nhash = "H"',
        ),
        (
            'default = """\n[keys.web]\n"""\n[keys.web]\nhash = "H"\n',
            'default = """\n[keys.web]\n"""\n[keys.web]\ndisabled = true\nhash = "H"\n',
        ),
    ],
)
def test_wherever_a_key_is_written(tmp_path: Path, before: str, after: str) -> None:
    """Each form of a table is edited in place, and a text that only looks like one is not."""
    file = tmp_path / "tidegate.toml"
    file.write_bytes(before.replace('"H"', f'"{HASH}"').replace('"O"', f'"{OTHER}"').encode())
    assert KeysFile(file).disable("web")
    assert file.read_bytes().decode() == after.replace('"H"', f'"{HASH}"').replace('"O"', f'"{OTHER}"')
    assert not KeysFile(file).disable("web")


def test_what_can_not_be_edited_is_left_alone(tmp_path: Path) -> None:
    """A table that no line may follow, and a file with a mistake, stay as they are; the message says so."""
    file = tmp_path / "tidegate.toml"
    for text, said in ((f'keys = {{ web = {{ hash = "{HASH}" }} }}\n', "by hand"), ("[keys.web]\nhsh = 1\n", "hsh")):
        file.write_text(text)
        with pytest.raises(ConfigurationError, match=said):
            KeysFile(file).add("other", table_text("other", {"hash": OTHER}))
        assert file.read_text() == text
    with pytest.raises(ConfigurationError, match="hsh"):
        KeysFile(file).disable("web")
    with pytest.raises(ConfigurationError, match="No such file"):
        KeysFile(tmp_path / "nowhere" / "tidegate.toml").add("web", table_text("web", {"hash": HASH}))
    assert [path.name for path in tmp_path.iterdir()] == ["tidegate.toml"]


def test_a_table_says_what_was_given() -> None:
    """Any text survives being written as TOML."""
    fields: dict[str, Any] = {"hash": HASH, "models": ['a"\\\x7f😀\t'], "default": "x\ny", "tenant": ""}
    read = tomllib.loads(table_text("k", fields))
    assert read == {"keys": {"k": {"hash": HASH, "models": fields["models"], "default": "x\ny"}}}
