"""Base URLs as they may be shown."""

import pytest

from protocol.base_urls import base_url_of, lacks_path, shown_url
from protocol.routes import ProviderSpec


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:secret@llm.example:8443/v1/?key=secret#secret", "https://llm.example:8443/v1"),
        ("http://[::1]:9", "http://[::1]:9"),
        ("http://llm.example:port/v1", ""),
        ("", ""),
    ],
)
def test_an_address_shows_no_secret(url: str, shown: str) -> None:
    """Scheme, host, port and path."""
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    ("spec", "url"),
    [
        (ProviderSpec(kind="anthropic"), "https://api.anthropic.com"),
        (ProviderSpec(kind="openai", base_url="http://h/v1"), "http://h/v1"),
        (ProviderSpec(kind="local"), ""),
        (ProviderSpec(kind="bedrock", region="us-east-1"), "https://bedrock-runtime.us-east-1.amazonaws.com"),
        (ProviderSpec(kind="vertex", region="global", project="p"), "https://aiplatform.googleapis.com/v1"),
        (ProviderSpec(kind="vertex", region="us-east5", project="p"), "https://us-east5-aiplatform.googleapis.com/v1"),
    ],
)
def test_each_kind_has_its_address(spec: ProviderSpec, url: str) -> None:
    """Its own, or the vendor's."""
    assert base_url_of(spec) == url


def test_a_path() -> None:
    """A slash alone is none."""
    assert [lacks_path(url) for url in ("http://h", "http://h/", "http://h/v1", "")] == [True, True, False, False]
