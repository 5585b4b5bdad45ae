"""LLMGateway: from a canonical request to a whole answer, by any of several providers.

A name's module is imported when the name is used first, so that a configuration loads no provider.
"""

from typing import TYPE_CHECKING

from actors.lazy import lazy

if TYPE_CHECKING:
    from actors.llm_gateway.config import GatewayConfig, GatewayLimits
    from actors.llm_gateway.factory import build_gateway
    from actors.llm_gateway.gateway import LLMGateway
    from actors.llm_gateway.provider import AnswerStream, Provider, ProviderDeadlines
    from actors.llm_gateway.schema import check_schema
    from actors.llm_gateway.structured import complete_json
    from actors.resilience.retry import RetryPolicy

__all__ = [
    "AnswerStream",
    "GatewayConfig",
    "GatewayLimits",
    "LLMGateway",
    "Provider",
    "ProviderDeadlines",
    "RetryPolicy",
    "build_gateway",
    "check_schema",
    "complete_json",
]

__getattr__ = lazy(
    __name__,
    {
        "actors.llm_gateway.config": ("GatewayConfig", "GatewayLimits"),
        "actors.llm_gateway.factory": ("build_gateway",),
        "actors.llm_gateway.gateway": ("LLMGateway",),
        "actors.llm_gateway.provider": ("AnswerStream", "Provider", "ProviderDeadlines"),
        "actors.llm_gateway.schema": ("check_schema",),
        "actors.llm_gateway.structured": ("complete_json",),
        "actors.resilience.retry": ("RetryPolicy",),
    },
)
