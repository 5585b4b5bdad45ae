"""The parts of a pipeline: a stage, the caller, and one run of the stages."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec
from opentelemetry.context import Context

from protocol.budgets import Account
from protocol.pipeline import Outcome, Prompt, RunFinished, RunStopped, StageFailed, StageReport, StageRoute
from protocol.requests import DEFAULT_CACHE_TTL_MS, OnAbandon

InputT = TypeVar("InputT")
ResultT = TypeVar("ResultT")

TIMEOUT: Final = 30.0  # seconds
CACHE_TTL: Final = DEFAULT_CACHE_TTL_MS / 1000
LINE_FIELDS: Final = frozenset(
    {
        *("timestamp", "level", "event", "logger", "pipeline", "pipelineVersion", "stage", "sessionId", "traceId"),
        *("promptVersion", "promptHash", "requestId", "source", "status", "route", "durationMs", "fallback", "error"),
    }
)
"""Fields of the line ``stage_completed``."""


def proceed(_result: object) -> StageRoute:
    """Continue, whatever the result is."""
    return StageRoute.CONTINUE


def _fields_of(result: type[Any]) -> frozenset[str]:
    """Return the names of the fields of a result's type; none for a type without any."""
    names = getattr(result, "__struct_fields__", None)
    if names is None and dataclasses.is_dataclass(result):
        names = [field.name for field in dataclasses.fields(result)]
    return frozenset(getattr(result, "__annotations__", ()) if names is None else names)


class Stage(msgspec.Struct, Generic[InputT, ResultT], frozen=True, kw_only=True, eq=False):
    """One question to a model, with a typed answer.

    Attributes:
        name: unique within the pipeline; in spans, log lines and reports.
        prompt: the system message, and its version.
        result: the answer's type, most often a ``msgspec.Struct``; the JSON Schema is generated from it.
        say: returns the user message, from the pipeline's input and the results of earlier stages.
        route: returns whether the run continues after this result.
        model: a model name or alias.
        timeout: seconds for the stage's request; its submission has as many again at most.
        cache_ttl: seconds for which the answer may serve later identical requests; 0 for none.
        temperature: 0..2, or None for the model's default.
        max_tokens: the most tokens of answer, or None for the model's default.
        on_abandon: what happens to the request without a follower, for example after the run was cancelled.
        fallback: the result of a stage whose request failed; None for no fallback. It is not used for a cancelled
            request.
        log: names of fields of the result; the log line of the stage's end has their values. No other field of a line
            has anything of an answer.

    Raises:
        ValueError: the name is empty, the timeout not positive, the time in the cache negative, or ``log`` has a name
            that the result does not have, or that the line uses itself.
    """

    name: str
    prompt: Prompt
    result: type[ResultT]
    say: "Callable[[PipelineRun[InputT]], str]"
    route: Callable[[ResultT], StageRoute] = proceed
    model: str = "default"
    timeout: float = TIMEOUT
    cache_ttl: float = CACHE_TTL
    temperature: float | None = 0.0
    max_tokens: int | None = None
    on_abandon: OnAbandon = "finish"
    fallback: ResultT | None = None
    log: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a stage needs a name")
        if self.timeout <= 0:
            raise ValueError(f"the timeout of stage {self.name!r} must be positive, got {self.timeout}")
        if self.cache_ttl < 0:
            raise ValueError(f"the cache_ttl of stage {self.name!r} must not be negative, got {self.cache_ttl}")
        known = _fields_of(self.result)
        for name in self.log:
            if name not in known or name in LINE_FIELDS:
                raise ValueError(
                    f"stage {self.name!r} can't log {name!r}: it can be one of {sorted(known - LINE_FIELDS)}"
                )

    def facts(self, result: object) -> dict[str, Any]:
        """Return the fields of ``result`` that are logged; none where there is no result."""
        if result is None:
            return {}
        if isinstance(result, Mapping):
            return {name: result.get(name) for name in self.log}
        return {name: getattr(result, name) for name in self.log}


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """The caller of a pipeline.

    Attributes:
        tenant: the tenant of the stages' requests; nothing is ever shared across tenants.
        account: pays for them; None for nobody.
        session_id: the caller's own name for a series of requests.
        trace_id: 32 hex digits or another name, as the state of each stage's request shows it.
        context: the parent of the run's span; None for the current context.
    """

    tenant: str = ""
    account: Account | None = None
    session_id: str = ""
    trace_id: str = ""
    context: Context | None = None


ANONYMOUS: Final = Caller()


class PipelineRun(Generic[InputT]):
    """One run: its input, and the stages' reports and results so far.

    ``run[stage]`` is the result of a stage, of its type; ``KeyError`` where it has none.

    ::

        running --last stage continued--> finished
           +------a stage stopped-------> stopped
           +------a stage failed--------> failed

    Args:
        given: the pipeline's input.
        on_change: called after every change of ``reports`` and at the end; it must not raise or block.

    Attributes:
        given: as given.
        reports: one for each stage that has begun, in order.
        outcome: how the run ended; None while it runs.
    """

    __slots__ = ("_on_change", "_results", "given", "outcome", "reports")

    def __init__(self, given: InputT, on_change: "Callable[[PipelineRun[InputT]], object] | None" = None) -> None:
        self.given = given
        self.reports: tuple[StageReport, ...] = ()
        self.outcome: Outcome | None = None
        self._results: dict[str, Any] = {}
        self._on_change = on_change

    def __getitem__(self, stage: Stage[InputT, ResultT]) -> ResultT:
        result: ResultT = self._results[stage.name]
        return result

    def __contains__(self, stage: Stage[InputT, Any]) -> bool:
        return stage.name in self._results

    def begin(self, report: StageReport) -> None:
        """Add the report of a stage that begins. Only the pipeline calls this method and the next ones."""
        self.reports = (*self.reports, report)
        self._changed()

    def update(self, report: StageReport) -> None:
        """Replace the last stage's report."""
        self.reports = (*self.reports[:-1], report)
        self._changed()

    def set_result(self, stage: Stage[InputT, ResultT], result: ResultT) -> None:
        """Set a stage's result."""
        self._results[stage.name] = result

    def end(self) -> None:
        """End the run, with the outcome of the last report."""
        last = self.reports[-1]
        if last.status == "failed" and last.error is not None:
            self.outcome = StageFailed(last.stage, last.error)
        else:
            self.outcome = RunStopped(last.stage) if last.status == "stopped" else RunFinished()
        self._changed()

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change(self)
