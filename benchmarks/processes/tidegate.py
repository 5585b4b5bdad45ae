"""The whole service, as ``tidegate serve`` runs it, configured by options instead of the environment.

Keys, deduplication, the cache and the access log are on; the log goes to the null device as JSON. Requests are stored
for a short time only, so that a long measurement stores as much as a busy server.
"""

import os
from pathlib import Path
from typing import Final, TextIO

from benchmarks.processes import control
from service.config.settings import load_settings
from service.container import open_container
from service.logging import open_logging
from service.server.server import listening, tune_collector

KEY: Final = "bench-key-0123456789"


async def main(sink: TextIO) -> None:
    """Serve until the parent ends."""
    chosen = control.options()
    upstream = chosen.pop("upstream")
    settings = load_settings(
        None,
        **{
            "host": "127.0.0.1",
            "port": 0,
            "api_keys": (KEY,),
            "llm_provider": "openai",
            "openai_api_key": "bench-upstream-key",
            "openai_base_url": upstream,
            "default_llm_model": "gpt-4o-mini",
            "max_requests": 100_000,
            "request_ttl_seconds": 5.0,
            "log_format": "json",
            "log_level": "INFO",
            "shutdown_grace_seconds": 0.0,
            **chosen,
        },
    )
    with open_logging(settings, sink):
        async with open_container(settings) as container, listening(container) as (_, address):
            container.lifecycle.serve()
            tune_collector()
            await control.serve({"address": address})


if __name__ == "__main__":
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        control.run(main(nowhere))
