"""The parts of a pipeline: a stage, for whom it runs, and one run through the stages."""

from collections.abc import Callable
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


def proceed(_result: object) -> StageRoute:
    """Go on, whatever the result is."""
    return StageRoute.CONTINUE


class Stage(msgspec.Struct, Generic[InputT, ResultT], frozen=True, kw_only=True, eq=False):
    """One question to a model, with a typed answer.

    Attributes:
        name: unique within the pipeline; in spans, log lines and reports.
        prompt: the system turn, and its version.
        result: the answer's type, most often a ``msgspec.Struct``; the JSON Schema is made from it.
        say: makes the user's turn from what came in and from the results of the stages before.
        route: where the run goes with this result.
        model: a model name or alias.
        timeout: seconds for the stage's request; for finding the log that answers it, no more than as long again.
        cache_ttl: seconds for which the answer may serve later identical requests; 0 for not at all.
        temperature: 0..2, or None for the model's default.
        max_tokens: the most tokens of answer, or None for the model's default.
        on_abandon: what happens to the request when nobody follows it, for example because the run was cancelled.
        fallback: the result where there is none in time, or a wrong one; None for no fallback. It is not used for a
            request that somebody cancelled.

    Raises:
        ValueError: the name is empty, the timeout not positive, or the time in the cache negative.
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

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a stage needs a name")
        if self.timeout <= 0:
            raise ValueError(f"the timeout of stage {self.name!r} must be positive, got {self.timeout}")
        if self.cache_ttl < 0:
            raise ValueError(f"the cache_ttl of stage {self.name!r} must not be negative, got {self.cache_ttl}")


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """For whom a pipeline runs.

    Attributes:
        tenant: whose requests the stages are; nothing is ever shared across tenants.
        account: who pays for them; None for nobody.
        session_id: the caller's own name for a row of requests.
        trace_id: 32 hex digits, as the state of each stage's request shows it.
        context: where the run's span belongs; None for the context that is current.
    """

    tenant: str = ""
    account: Account | None = None
    session_id: str = ""
    trace_id: str = ""
    context: Context | None = None


NOBODY: Final = Caller()


class PipelineRun(Generic[InputT]):
    """One run: what came in, and what the stages have made of it so far.

    ``run[stage]`` is the result of a stage, of its type; ``KeyError`` where it has none.

    Args:
        given: what came in.
        on_change: called after every change of ``reports`` and at the end; it must not raise or block.

    Attributes:
        given: what came in.
        reports: one for each stage that was begun, in order.
        outcome: how it ended; None while it runs.
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
        """A stage begins. Only the pipeline calls this and what follows."""
        self.reports = (*self.reports, report)
        self._changed()

    def note(self, report: StageReport) -> None:
        """More is known of the stage that was begun last."""
        self.reports = (*self.reports[:-1], report)
        self._changed()

    def keep(self, stage: Stage[InputT, ResultT], result: ResultT) -> None:
        """A stage has its result."""
        self._results[stage.name] = result

    def end(self) -> None:
        """The run is over: its outcome is what the last report says."""
        last = self.reports[-1]
        if last.status == "failed" and last.error is not None:
            self.outcome = StageFailed(last.stage, last.error)
        else:
            self.outcome = RunStopped(last.stage) if last.status == "stopped" else RunFinished()
        self._changed()

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change(self)
