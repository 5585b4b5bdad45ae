"""The actors that own requests, logs, caches and providers. They run in any asyncio program, without the service.

``from actors import System, Actor, Message, LLMGateway, retry`` gives every public name, and the messages that a first
program needs. A name's module is imported when the name is used first: ``import actors`` alone loads nothing. Test
doubles are in ``actors.runtime.testing`` and ``actors.testing``.
"""

from typing import TYPE_CHECKING

from actors.lazy import lazy

if TYPE_CHECKING:
    from actors.cache import CacheActor, CacheLimits
    from actors.channels.embedded import EmbeddedChannels
    from actors.channels.limits import ChannelLimits, HistoryLimits
    from actors.embeddings import (
        Embedder,
        EmbedderLimits,
        EmbeddingBounds,
        EmbeddingsActor,
        EmbeddingsConfig,
        build_embeddings,
    )
    from actors.ledger import MemoryLedger
    from actors.llm_gateway import (
        AnswerStream,
        GatewayConfig,
        GatewayLimits,
        LLMGateway,
        Provider,
        ProviderDeadlines,
        build_gateway,
        check_schema,
        complete_json,
    )
    from actors.log.event_log import EventLog
    from actors.log.follow import Follower, follow
    from actors.pipeline.pipeline import Pipeline
    from actors.pipeline.stage import Caller, PipelineRun, Stage
    from actors.rate_limiter import MemoryRateLimiter
    from actors.rate_limits import RateLimits
    from actors.requests.limits import RequestLimits
    from actors.requests.router import RequestRouter
    from actors.resilience import ConcurrencyLimit, RetryPolicy, SingleFlight, limit, retry, share
    from actors.runtime import (
        Actor,
        Callback,
        Child,
        Clock,
        DeadLetter,
        DeadLetters,
        Deferred,
        Handle,
        Keyed,
        PipedTask,
        Promise,
        Ref,
        System,
        Timer,
        handles,
    )
    from actors.subscription_hub import SubscriptionHub
    from protocol.llm import ChatMessage, ChatRequest
    from protocol.message import Message
    from protocol.pipeline import Prompt, StageRoute
    from protocol.requests import Submit

__all__ = [
    "Actor",
    "AnswerStream",
    "CacheActor",
    "CacheLimits",
    "Callback",
    "Caller",
    "ChannelLimits",
    "ChatMessage",
    "ChatRequest",
    "Child",
    "Clock",
    "ConcurrencyLimit",
    "DeadLetter",
    "DeadLetters",
    "Deferred",
    "EmbeddedChannels",
    "Embedder",
    "EmbedderLimits",
    "EmbeddingBounds",
    "EmbeddingsActor",
    "EmbeddingsConfig",
    "EventLog",
    "Follower",
    "GatewayConfig",
    "GatewayLimits",
    "Handle",
    "HistoryLimits",
    "Keyed",
    "LLMGateway",
    "MemoryLedger",
    "MemoryRateLimiter",
    "Message",
    "PipedTask",
    "Pipeline",
    "PipelineRun",
    "Promise",
    "Prompt",
    "Provider",
    "ProviderDeadlines",
    "RateLimits",
    "Ref",
    "RequestLimits",
    "RequestRouter",
    "RetryPolicy",
    "SingleFlight",
    "Stage",
    "StageRoute",
    "Submit",
    "SubscriptionHub",
    "System",
    "Timer",
    "build_embeddings",
    "build_gateway",
    "check_schema",
    "complete_json",
    "follow",
    "handles",
    "limit",
    "retry",
    "share",
]

__getattr__ = lazy(
    __name__,
    {
        "actors.cache": (
            "CacheActor",
            "CacheLimits",
        ),
        "actors.channels.embedded": ("EmbeddedChannels",),
        "actors.channels.limits": (
            "ChannelLimits",
            "HistoryLimits",
        ),
        "actors.embeddings": (
            "Embedder",
            "EmbedderLimits",
            "EmbeddingBounds",
            "EmbeddingsActor",
            "EmbeddingsConfig",
            "build_embeddings",
        ),
        "actors.ledger": ("MemoryLedger",),
        "actors.llm_gateway": (
            "AnswerStream",
            "GatewayConfig",
            "GatewayLimits",
            "LLMGateway",
            "Provider",
            "ProviderDeadlines",
            "build_gateway",
            "check_schema",
            "complete_json",
        ),
        "actors.log.event_log": ("EventLog",),
        "actors.log.follow": (
            "Follower",
            "follow",
        ),
        "actors.pipeline.pipeline": ("Pipeline",),
        "actors.pipeline.stage": (
            "Caller",
            "PipelineRun",
            "Stage",
        ),
        "actors.rate_limiter": ("MemoryRateLimiter",),
        "actors.rate_limits": ("RateLimits",),
        "actors.requests.limits": ("RequestLimits",),
        "actors.requests.router": ("RequestRouter",),
        "actors.resilience": (
            "ConcurrencyLimit",
            "RetryPolicy",
            "SingleFlight",
            "limit",
            "retry",
            "share",
        ),
        "actors.runtime": (
            "Actor",
            "Callback",
            "Child",
            "Clock",
            "DeadLetter",
            "DeadLetters",
            "Deferred",
            "Handle",
            "Keyed",
            "PipedTask",
            "Promise",
            "Ref",
            "System",
            "Timer",
            "handles",
        ),
        "actors.subscription_hub": ("SubscriptionHub",),
        "protocol.llm": (
            "ChatMessage",
            "ChatRequest",
        ),
        "protocol.message": ("Message",),
        "protocol.pipeline": (
            "Prompt",
            "StageRoute",
        ),
        "protocol.requests": ("Submit",),
    },
)
