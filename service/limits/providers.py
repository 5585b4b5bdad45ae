"""Bounds of the calls to providers and their answers."""

from typing import Final

from actors.llm_gateway import answer, drain
from actors.llm_gateway.config import GatewayLimits
from actors.llm_gateway.gateway import LLMGateway
from actors.upstream import endpoint, pricing
from actors.wire import connection, failures, json_body, pool, sse, unary
from service.limits.bound import CALL, EVERYBODY, EVICTED, PROVIDER, REQUEST, Bound

_GATEWAY: Final = GatewayLimits()

BOUNDS: Final = (
    Bound(
        "calls under way",
        _GATEWAY.concurrency,
        PROVIDER,
        "the next one waits for a place",
        setting="provider_concurrency",
    ),
    Bound(
        "calls that wait for a place",
        _GATEWAY.queue,
        EVICTED,
        "the last one of the tenant with the most is refused",
        "provider_overloaded",
        "provider_queue",
    ),
    Bound(
        "calls that wait for a rate limit, each model",
        _GATEWAY.queue,
        EVICTED,
        "as above",
        "provider_overloaded",
        "provider_queue",
    ),
    Bound("time of a request, where it has no less", _GATEWAY.total, REQUEST, "it ends", "deadline_exceeded", unit="s"),
    Bound("an answer", _GATEWAY.max_chars, REQUEST, "it is cut off", "response_too_large", unit="characters"),
    Bound("parts of an answer", answer.MAX_PARTS, REQUEST, "it is cut off", "response_too_large"),
    Bound("tool calls of an answer", answer.MAX_CALLS, REQUEST, "it is cut off", "response_too_large"),
    Bound("streams that are read on for their usage", drain.STREAMS, EVERYBODY, "a further one is closed"),
    Bound("time for which they are", _GATEWAY.drain, CALL, "it is closed", setting="drain_seconds", unit="s"),
    Bound("an event of an upstream", sse.MAX_EVENT_BYTES, CALL, "the call fails", "response_too_large", unit="bytes"),
    Bound("lines without an event", sse.MAX_IDLE_LINES, CALL, "the call fails", "response_too_large"),
    Bound(
        "a head of an upstream",
        connection.MAX_HEAD_BYTES,
        CALL,
        "the call fails",
        "provider_bad_response",
        unit="bytes",
    ),
    Bound("bytes that are read ahead", connection.READ_AHEAD, CALL, "reading pauses", unit="bytes"),
    Bound("a whole answer's body", unary.MAX_BODY_BYTES, CALL, "the call fails", "response_too_large", unit="bytes"),
    Bound("values of one body", json_body.MAX_VALUES, CALL, "the call fails", "response_too_large"),
    Bound("a refusal's body", failures.MAX_BODY_BYTES, CALL, "the rest is not read", unit="bytes"),
    Bound("wait that an upstream may ask for", failures.MAX_RETRY_AFTER, CALL, "it counts as this", unit="s"),
    Bound("idle connections", pool.MAX_IDLE, EVERYBODY, "the one that was idle longest is closed"),
    Bound("models of a provider whose health is known", endpoint.MAX_MODELS, EVERYBODY, "the oldest one is forgotten"),
    Bound("models whose prices are kept", pricing.MAX_CACHED, EVERYBODY, "they are looked up again"),
    Bound(
        "messages that wait for the gateway",
        LLMGateway.capacity,
        EVERYBODY,
        "one more waits for its deadline",
        "deadline_exceeded",
    ),
)
