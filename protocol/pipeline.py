"""What is said of a pipeline: its prompts, which way its stages send a run, and how the run went."""

import enum
import hashlib
from typing import Final, Literal

import msgspec

from protocol.requests import ErrorInfo, Source

StageStatus = Literal["running", "continued", "stopped", "failed"]

HASH_DIGITS: Final = 16


class StageRoute(enum.StrEnum):
    """Where a stage sends the run: on to the next stage, or out."""

    CONTINUE = "CONTINUE"
    STOP = "STOP"


class Prompt(msgspec.Struct, frozen=True):
    """What a stage tells the model, always with the same words.

    Attributes:
        version: its author's name for it, such as ``food_gate_v1``; part of the request's fingerprint.
        text: the system turn.
    """

    version: str
    text: str

    @property
    def hash(self) -> str:
        """The first 16 hex digits of the text's SHA-256: shows a text that changed while its version did not."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:HASH_DIGITS]


class StageReport(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How far a stage is, and how it went.

    Attributes:
        stage: its name.
        status: ``running``, or its end.
        prompt_version: of its prompt.
        prompt_hash: of its prompt.
        request_id: its request, which can be followed, looked at and cancelled as any other; None until there is one.
        source: where the answer comes from; None as long as there is no request.
        fallback: whether its result is the fallback.
        error: why it failed, also where a fallback made up for it; None where it did not.
        duration_ms: from its start to its end, in milliseconds; 0 while it runs.
    """

    stage: str
    status: StageStatus = "running"
    prompt_version: str = ""
    prompt_hash: str = ""
    request_id: str | None = None
    source: Source | None = None
    fallback: bool = False
    error: ErrorInfo | None = None
    duration_ms: float = 0.0


class _Outcome(msgspec.Struct, frozen=True, tag_field="type"):
    """The end of a run."""


class RunFinished(_Outcome, frozen=True, tag="finished"):
    """Every stage has its result."""


class RunStopped(_Outcome, frozen=True, tag="stopped"):
    """The route function of ``stage`` said STOP; later stages were not begun."""

    stage: str


class StageFailed(_Outcome, frozen=True, tag="failed"):
    """``stage`` has no result and no fallback; ``error.code`` is ``deadline_exceeded`` where it ran out of time."""

    stage: str
    error: ErrorInfo


Outcome = RunFinished | RunStopped | StageFailed
