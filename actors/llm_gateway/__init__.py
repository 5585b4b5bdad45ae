"""LLMGateway: from a canonical request to a whole answer, by any of several providers."""

from actors.llm_gateway.factory import GatewayConfig, build_gateway
from actors.llm_gateway.gateway import GatewayLimits, LLMGateway
from actors.llm_gateway.provider import AnswerStream, Provider, ProviderDeadlines
from actors.llm_gateway.schema import check_schema
from actors.llm_gateway.structured import complete_json
from actors.upstream.retry import RetryPolicy

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
