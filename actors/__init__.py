"""Who says it: the actors that own requests, logs, caches and providers. Runs without the service.

The runtime's names are here; what is built on it is a module each: ``actors.requests.router``, ``actors.llm_gateway``,
``actors.cache``, ``actors.subscription_hub``, ``actors.log.follow``, ``actors.pipeline.pipeline``.
"""

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

__all__ = [
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
]
