"""The local model's server: a program of its own, since loading a model holds the interpreter for seconds.

Reads one JSON object from standard input, ``{"path", "name", "key", "slots", "context", "embeddings"}``, writes one to
standard output (``{"address", "guided"}`` or ``{"error"}``), and serves until standard input ends: it can't outlive its
starter. With ``embeddings`` it gives vectors: the mean over a text's tokens, which has to be computed in one batch.
``guided`` says whether the engine takes a JSON Schema with the bounds of its numbers.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

QUIET = -1
PROMPT_CACHE_MIB = 64


def main() -> None:
    """Serve the model that standard input names."""
    wanted = json.loads(sys.stdin.readline())
    said = os.dup(1)
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    server = None
    answer: dict[str, object]
    try:
        server, guided = serve(wanted)
        answer = {"address": server.listening_address, "guided": guided}
    except ImportError:
        answer = {"error": "missing"}
    except Exception:  # noqa: BLE001 - whatever a model file does to its loader, the caller learns that it can't be used
        answer = {"error": "unusable"}
    os.write(said, json.dumps(answer).encode() + b"\n")
    if server is not None:
        sys.stdin.read()
    os._exit(0)


def serve(wanted: dict[str, Any]) -> tuple[Any, bool]:
    """Load the model; return its running server, and whether it is guided."""
    import xllamacpp  # noqa: PLC0415 - its absence is an answer

    if not Path(wanted["path"]).is_file():
        raise FileNotFoundError(wanted["path"])
    parameters = xllamacpp.CommonParams()
    parameters.model.path = wanted["path"]
    parameters.api_keys = [wanted["key"]]
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads()
    parameters.n_parallel = wanted["slots"]
    parameters.n_ctx = wanted["context"]
    parameters.model_alias = {wanted["name"]}
    parameters.cache_ram_mib = PROMPT_CACHE_MIB
    parameters.verbosity = QUIET
    parameters.ui = False
    parameters.endpoint_slots = False
    if wanted["embeddings"]:
        parameters.embedding = True
        parameters.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        parameters.n_batch = parameters.n_ubatch = wanted["context"]
    return xllamacpp.Server(parameters), xllamacpp.json_schema_to_grammar("{}").startswith("%llguidance")


def threads() -> int:
    """Return how many threads compute: half of the processors, since the engine's threads spin while one of them waits.

    On two busy processors two threads took 12 s for an answer that one thread gave in 1.3 s.
    """
    return max(1, len(os.sched_getaffinity(0)) // 2) if hasattr(os, "sched_getaffinity") else 2


if __name__ == "__main__":
    main()
