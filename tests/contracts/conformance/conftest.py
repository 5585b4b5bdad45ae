"""What is loaded once for the whole kit."""

import pytest


@pytest.fixture(scope="session", autouse=True)
def _packages() -> None:
    """Import the vendors' packages, which a provider does with its first request, within that request's deadlines."""
    from anthropic import AsyncAnthropicBedrock, AsyncAnthropicVertex  # noqa: F401, PLC0415 - three seconds
    from openai import AsyncAzureOpenAI  # noqa: F401, PLC0415 - the same

    from actors.llm_gateway.providers import unsent  # noqa: F401, PLC0415 - the same
