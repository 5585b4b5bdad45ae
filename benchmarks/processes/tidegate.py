"""The whole service, as ``tidegate serve`` runs it, configured by options instead of the environment.

Keys, deduplication, the cache and the access log are on; the log goes to the null device as JSON. Requests are stored
for a short time only, so that a long measurement stores as much as a busy server. With ``gc_thresholds`` the garbage
collector works with these alone.
"""

import gc
import os
from pathlib import Path
from typing import Final, TextIO

from benchmarks.processes import control
from service.collector import Collector
from service.config.settings import load_settings
from service.container import open_container
from service.logging import open_logging
from service.server.server import listening

KEY: Final = "bench-key-0123456789"


async def main(sink: TextIO) -> None:
    """Serve until the parent ends."""
    chosen = control.options()
    upstream, thresholds = chosen.pop("upstream"), chosen.pop("gc_thresholds", None)
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
            if thresholds is None:
                Collector(_nothing).start()
            else:
                gc.collect()
                gc.freeze()
                gc.set_threshold(*thresholds)
            await control.serve({"address": address}, passes=control.Passes().report)


async def _nothing() -> int:
    return 0


if __name__ == "__main__":
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        control.run(main(nowhere))
