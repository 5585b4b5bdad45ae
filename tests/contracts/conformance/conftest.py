"""Imports for the whole kit."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _packages() -> None:
    """Import the vendors' packages now: a provider imports them within the deadlines of its first request."""
    from anthropic import AsyncAnthropicBedrock, AsyncAnthropicVertex  # noqa: F401, PLC0415 - three seconds
    from openai import AsyncAzureOpenAI  # noqa: F401, PLC0415 - the same

    from actors.llm_gateway.providers import unsent  # noqa: F401, PLC0415 - the same
