"""Values of pipelines: prompts, the routes of a stage, stage reports and the outcome of a run."""

import enum
import hashlib
from typing import Final, Literal

import msgspec

from protocol.requests import ErrorInfo, Source

StageStatus = Literal["running", "continued", "stopped", "failed"]

HASH_DIGITS: Final = 16


class StageRoute(enum.StrEnum):
    """What follows a stage: the next stage, or the end of the run."""

    CONTINUE = "CONTINUE"
    STOP = "STOP"


class Prompt(msgspec.Struct, frozen=True):
    """The constant system prompt of a stage.

    Attributes:
        version: the author's name for it, such as ``food_gate_v1``; part of the request's fingerprint.
        text: the system message.
    """

    version: str
    text: str

    @property
    def hash(self) -> str:
        """The first 16 hex digits of the text's SHA-256. It shows a text that changed without a new version."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:HASH_DIGITS]


class StageReport(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The state of a stage of a run.

    Attributes:
        stage: the stage's name.
        status: ``running``, or how it ended.
        prompt_version: of its prompt.
        prompt_hash: of its prompt.
        request_id: its request, which can be followed and cancelled as any other; None before it is submitted.
        source: where the answer comes from; None before the request is submitted.
        fallback: whether its result is the fallback.
        error: why it failed, also where the fallback was used; None where it did not fail.
        duration_ms: from its start to its end, in milliseconds; 0 while it runs.
        route: what its route function has returned; None where it has no result.
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
    route: StageRoute | None = None


class _Outcome(msgspec.Struct, frozen=True, tag_field="type"):
    """Base of the outcomes of a run."""


class RunFinished(_Outcome, frozen=True, tag="finished"):
    """Every stage has a result."""


class RunStopped(_Outcome, frozen=True, tag="stopped"):
    """The route function of ``stage`` returned STOP; later stages were not started."""

    stage: str


class StageFailed(_Outcome, frozen=True, tag="failed"):
    """``stage`` has no result and no fallback; ``error.code`` is ``deadline_exceeded`` where its deadline passed."""

    stage: str
    error: ErrorInfo


Outcome = RunFinished | RunStopped | StageFailed
