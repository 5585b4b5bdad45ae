"""Names of spans and attributes.

Names follow the OpenTelemetry semantic conventions where these have one; others begin with ``tidegate.``. The table is
in ``protocol`` because both layers above open spans.
"""

from typing import Final

TRACER: Final = "tidegate"

# HTTP, server and client
HTTP_METHOD: Final = "http.request.method"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
URL_PATH: Final = "url.path"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
ERROR_TYPE: Final = "error.type"

# messages between actors
MESSAGING_SYSTEM: Final = "messaging.system"
MESSAGING_OPERATION: Final = "messaging.operation.name"
MESSAGING_OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGING_DESTINATION: Final = "messaging.destination.name"
MESSAGE_TYPE: Final = "tidegate.message.type"
MAILBOX_WAIT: Final = "tidegate.mailbox.wait_ms"

# calls to providers
GEN_AI_OPERATION: Final = "gen_ai.operation.name"
GEN_AI_PROVIDER: Final = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL: Final = "gen_ai.request.model"
GEN_AI_RESPONSE_MODEL: Final = "gen_ai.response.model"
GEN_AI_RESPONSE_ID: Final = "gen_ai.response.id"
GEN_AI_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
GEN_AI_INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
GEN_AI_OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
GEN_AI_CACHED_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
GEN_AI_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
GEN_AI_TEMPERATURE: Final = "gen_ai.request.temperature"
GEN_AI_SEED: Final = "gen_ai.request.seed"
GEN_AI_DIMENSIONS: Final = "gen_ai.embeddings.dimension.count"
GEN_AI_ENCODING_FORMATS: Final = "gen_ai.request.encoding_formats"
GEN_AI_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"

# names of Tidegate
REQUEST_ID: Final = "tidegate.request.id"
SOURCE: Final = "tidegate.source"
TRACE_NAME: Final = "tidegate.trace.name"  # the caller's ``x-trace-id``, where that is no trace id
ATTEMPT: Final = "tidegate.attempt"
CACHE_HIT: Final = "tidegate.cache.hit"
INPUTS: Final = "tidegate.embeddings.inputs"
PIPELINE: Final = "tidegate.pipeline.name"
PIPELINE_VERSION: Final = "tidegate.pipeline.version"
STAGE: Final = "tidegate.pipeline.stage"
STAGE_STATUS: Final = "tidegate.pipeline.status"
FALLBACK: Final = "tidegate.pipeline.fallback"
PROMPT_VERSION: Final = "tidegate.prompt.version"
PROMPT_HASH: Final = "tidegate.prompt.hash"

LOOP_LAG: Final = "loop lag"  # the name of the span of a time in which the event loop did not turn
LOOP_TASK: Final = "tidegate.loop.task"
LOOP_HANDLER: Final = "tidegate.loop.handler"


def chat(model: str) -> str:
    """Return the name of the span of a chat call, by the GenAI conventions: ``chat {model}``."""
    return f"chat {model}"


def embeddings(model: str) -> str:
    """Return the name of the span of an embeddings call: ``embeddings {model}``."""
    return f"embeddings {model}"


def process(destination: str) -> str:
    """Return the name of the span in which an actor handles a message: ``process {actor}``."""
    return f"process {destination}"


def pipeline(name: str) -> str:
    """Return the name of the span of a pipeline run: ``pipeline {name}``."""
    return f"pipeline {name}"


def stage(name: str) -> str:
    """Return the name of the span of a pipeline stage: ``stage {name}``."""
    return f"stage {name}"
