"""LLMGateway: from a canonical request to a whole answer, by any of several providers."""

from actors.llm_gateway.factory import GatewayConfig, build_gateway
from actors.llm_gateway.gateway import Limits, LLMGateway
from actors.llm_gateway.provider import AnswerStream, Deadlines, Provider
from actors.llm_gateway.schema import check_schema
from actors.llm_gateway.structured import complete_json
from actors.upstream.retry import RetryPolicy

__all__ = [
    "AnswerStream",
    "Deadlines",
    "GatewayConfig",
    "LLMGateway",
    "Limits",
    "Provider",
    "RetryPolicy",
    "build_gateway",
    "check_schema",
    "complete_json",
]
