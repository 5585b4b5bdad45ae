"""The local model's server, run as a child process: loading a model blocks the interpreter for seconds.

It reads one JSON object from standard input, ``{"path", "name", "key", "slots", "context", "embeddings"}``, writes one
to standard output (``{"address", "guided"}`` or ``{"error", "reason"}``), and serves until standard input ends, so it
can't outlive its parent. With ``embeddings`` it serves vectors: the mean over a text's tokens, computed in one batch.
``guided`` says whether the engine enforces the bounds of numbers in a JSON Schema.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

QUIET = -1
MAX_REASON = 500  # characters
PROMPT_CACHE_MIB = 64


def main() -> None:
    """Serve the model that standard input names."""
    settings = json.loads(sys.stdin.readline())
    output = os.dup(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    server = None
    answer: dict[str, object]
    try:
        import xllamacpp  # noqa: PLC0415 - the parent learns why it can't be imported
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises
        answer = {"error": "engine", "reason": reason_of(error)}
    else:
        try:
            server, guided = serve(xllamacpp, settings)
            answer = {"address": server.listening_address, "guided": guided}
        except Exception as error:  # noqa: BLE001 - whatever a bad model file raises
            answer = {"error": "model", "reason": reason_of(error)}
    os.write(output, json.dumps(answer).encode() + b"\n")
    if server is not None:
        sys.stdin.read()
    os._exit(0)


def reason_of(error: Exception) -> str:
    """Return an error in one line, for the operator."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:MAX_REASON]


def serve(xllamacpp: Any, settings: dict[str, Any]) -> tuple[Any, bool]:  # noqa: ANN401 - an untyped module
    """Load the model, and return its running server and whether it is guided."""
    if not Path(settings["path"]).is_file():
        raise FileNotFoundError(settings["path"])
    parameters = xllamacpp.CommonParams()
    parameters.model.path = settings["path"]
    parameters.api_keys = [settings["key"]]
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads()
    parameters.n_parallel = settings["slots"]
    parameters.n_ctx = settings["context"]
    parameters.model_alias = {settings["name"]}
    parameters.cache_ram_mib = PROMPT_CACHE_MIB
    parameters.verbosity = QUIET
    parameters.ui = False
    parameters.endpoint_slots = False
    if settings["embeddings"]:
        parameters.embedding = True
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        parameters.n_batch = parameters.n_ubatch = settings["context"]
    return xllamacpp.Server(parameters), xllamacpp.json_schema_to_grammar("{}").startswith("%llguidance")


def threads() -> int:
    """Return the number of compute threads: half of the processors, because the engine's threads spin while they wait.

    On two busy processors, an answer took 12 s with two threads and 1.3 s with one.
    """
    return max(1, len(os.sched_getaffinity(0)) // 2) if hasattr(os, "sched_getaffinity") else 2


if __name__ == "__main__":
    main()
