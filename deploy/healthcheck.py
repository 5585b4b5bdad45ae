"""The health check of the image: exits with 0 where the service answers at its own HOST and PORT."""  # noqa: INP001 - a script

import os
import sys
import urllib.request
from typing import Final

TIMEOUT: Final = 2.0  # seconds
EVERYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - how to reach what listens on all addresses


def main() -> int:
    """Ask whether the service lives; a proxy of the environment is not for this."""
    host = os.environ.get("HOST") or "127.0.0.1"
    host = EVERYWHERE.get(host, host)
    host = f"[{host}]" if ":" in host else host
    address = f"http://{host}:{os.environ.get('PORT') or 3000}/api/health/live"
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=TIMEOUT):
            return 0
    except OSError as error:
        print(f"{address}: {error}", file=sys.stderr)  # noqa: T201 - the container's log of health checks
        return 1


if __name__ == "__main__":
    sys.exit(main())
