"""The pages on routes and providers: the service accepts the tables that they show."""

import re
import tomllib
from pathlib import Path

import pytest

from actors.llm_gateway import ProviderDeadlines
from actors.llm_gateway.named import NamedProviders
from actors.wire.client import WireClient
from service.config.routes_file import parse

TABLES = re.compile(r"^```toml\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ["providers.md", "routes.md"])
def test_what_a_page_shows_can_be_copied(root: Path, page: str) -> None:
    """Every table can be parsed, and every provider in it can be made."""
    make = NamedProviders(WireClient(), deadlines=ProviderDeadlines(), secrets=lambda _: "a key", local_model_path=None)
    tables = TABLES.findall((root / "docs" / page).read_text(encoding="utf-8"))
    assert tables
    for table in tables:
        routes, _, faults = parse(tomllib.loads(table))
        assert faults == []
        for name, spec in routes.providers.items():
            assert make(name, spec).name == name
