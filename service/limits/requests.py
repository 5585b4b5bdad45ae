"""Bounds of requests and their logs."""

from typing import Final

from actors.llm_gateway import schema, schema_process, schema_worker
from actors.log import partial_text
from actors.requests.limits import RequestLimits
from actors.requests.router import MAX_MODELS, RequestRouter
from protocol import checks, llm, requests
from protocol.json import partial, values
from protocol.json.schema_cost import SchemaLimits
from service.config.settings import Settings
from service.http import bodies, inflate
from service.limits.bound import CALL, EVERYBODY, EVICTED, REQUEST, RESERVED, SPLIT, Bound

_REQUESTS: Final = RequestLimits()
_SCHEMAS: Final = SchemaLimits()

BOUNDS: Final = (
    Bound(
        "requests, running and ended",
        _REQUESTS.max_requests,
        EVICTED,
        "the oldest ended one of the tenant with the most is dropped",
        setting="max_requests",
    ),
    Bound("requests that run", _REQUESTS.max_requests, RESERVED, "one more is refused", "overloaded", "max_requests"),
    Bound(
        "ended requests",
        _REQUESTS.max_bytes,
        EVICTED,
        "the oldest one of the tenant with the most is dropped; each tenant's newest stays",
        setting="requests_max_bytes",
        unit="bytes",
    ),
    Bound(
        "idempotency keys",
        _REQUESTS.max_keys,
        SPLIT,
        "one more is refused; none is evicted",
        "overloaded",
        "max_idempotency_keys",
    ),
    Bound(
        "time of an idempotency key",
        _REQUESTS.key_ttl,
        EVERYBODY,
        "it is free again",
        setting="idempotency_ttl_seconds",
        unit="s",
    ),
    Bound(
        "time of an ended request",
        _REQUESTS.ttl,
        REQUEST,
        "it is dropped",
        "request_not_found",
        "request_ttl_seconds",
        "s",
    ),
    Bound(
        "unpacked entries of a log",
        _REQUESTS.ring_bytes,
        REQUEST,
        "older ones are packed",
        setting="log_max_bytes",
        unit="bytes",
    ),
    Bound(
        "time of a request",
        requests.MAX_TIMEOUT_MS / 1000,
        REQUEST,
        "a longer one is refused",
        "invalid_request",
        unit="s",
    ),
    Bound(
        "messages that wait for the router", RequestRouter.capacity, EVERYBODY, "one more is refused", "mailbox_full"
    ),
    Bound(
        "text that is parsed while it comes",
        partial_text.MAX_CHARACTERS,
        REQUEST,
        "values come with the end only",
        unit="characters",
    ),
    Bound("depth of JSON", checks.MAX_DEPTH, REQUEST, "it is refused", "invalid_request"),
    Bound("depth of JSON that comes in parts", partial.MAX_DEPTH, REQUEST, "what is deeper is left out"),
    Bound(
        "a request body",
        float(Settings.model_fields["max_body_bytes"].default),
        CALL,
        "it is refused",
        "body_too_large",
        "max_body_bytes",
        "bytes",
    ),
    Bound(
        "large bodies at work",
        _REQUESTS.max_input_bytes,
        RESERVED,
        "one more is refused; what is inflated counts, too",
        "overloaded",
        "max_bodies_bytes",
        "bytes",
    ),
    Bound(
        "input of running requests, where it is large",
        _REQUESTS.max_input_bytes,
        RESERVED,
        "one more is refused",
        "overloaded",
        "max_bodies_bytes",
        "bytes",
    ),
    Bound(
        "JSON values of a body; of one with texts to embed 320,000",
        values.MAX_VALUES,
        CALL,
        "it is refused",
        "too_many_values",
    ),
    Bound("ratio of a gzipped body, beyond 1 MiB", inflate.RATIO, CALL, "it is refused", "body_too_large"),
    Bound("time of a body", bodies.BODY_TIMEOUT, CALL, "it is refused", "body_timeout", unit="s"),
    Bound("pairs of metadata", requests.MAX_METADATA, REQUEST, "it is refused", "invalid_request"),
    Bound("tools", llm.MAX_TOOLS, REQUEST, "it is refused", "invalid_request"),
    Bound("schemas of a request", _SCHEMAS.bytes, REQUEST, "it is refused", "schema_too_complex", unit="bytes"),
    Bound("JSON values of its schemas", _SCHEMAS.values, REQUEST, "it is refused", "schema_too_complex"),
    Bound("levels of a schema", _SCHEMAS.depth, REQUEST, "it is refused", "schema_too_complex"),
    Bound("subschemas", _SCHEMAS.subschemas, REQUEST, "it is refused", "schema_too_complex"),
    Bound("references of its schemas", _SCHEMAS.references, REQUEST, "it is refused", "schema_too_complex"),
    Bound("members of a union", _SCHEMAS.breadth, REQUEST, "it is refused", "schema_too_complex"),
    Bound("patterns of its schemas", _SCHEMAS.patterns, REQUEST, "it is refused", "schema_too_complex"),
    Bound("ways to look at one value", _SCHEMAS.steps, REQUEST, "it is refused", "schema_too_complex"),
    Bound("time of a schema's work", schema_worker.JOB_TIMEOUT, REQUEST, "it ends", "schema_too_complex", unit="s"),
    Bound("memory of a schema's work", schema_process.MEMORY, REQUEST, "it ends", "schema_too_complex", unit="bytes"),
    Bound("such works that wait", schema_worker.MAX_WAITING, EVERYBODY, "one more is refused", "overloaded"),
    Bound("known schemas", schema.MAX_COMPILED, EVERYBODY, "the least recently used one is dropped"),
    Bound(
        "known schemas, together",
        schema.MAX_COMPILED_BYTES,
        EVERYBODY,
        "the least recently used one is dropped",
        unit="bytes",
    ),
    Bound("faults in a refused answer", schema.MAX_ERRORS, REQUEST, "further ones are not named"),
    Bound("models that are known to be served", MAX_MODELS, EVERYBODY, "all are looked up again"),
)
