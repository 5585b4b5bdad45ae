"""Stages one after the other, each a question to a model with a typed answer: gate, then intent, then answer.

::

    pipeline = Pipeline(router, (GATE, INTENT, ANSWER), name="food-search")
    run = await pipeline.run("pizza near me")
    if isinstance(run.outcome, RunFinished):
        print(run[ANSWER].text)

A stage is a request of the router's: it is coalesced with an identical one, answered from the cache, and anybody who
knows its id can follow it.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic

import msgspec
from opentelemetry import trace
from opentelemetry.trace import Span, StatusCode, Tracer

from actors.llm_gateway.structured import json_schema
from actors.log.follow import Follower
from actors.pipeline.log import PipelineLog
from actors.pipeline.stage import NOBODY, Caller, InputT, PipelineRun, Stage
from actors.requests.state import failure
from actors.runtime import Ref
from protocol import spans
from protocol.errors import RequestCancelled, SchemaMismatch, TidegateError
from protocol.events import EventStream
from protocol.llm import ChatMessage, ChatRequest
from protocol.pipeline import StageReport, StageRoute, StageStatus
from protocol.requests import Delivery, ErrorInfo, RequestHandle, Submit

SUBMIT_TIMEOUT: Final = 10.0  # seconds for finding the log that answers a stage, unless the stage has less

_STATUS: Final[dict[StageRoute, StageStatus]] = {StageRoute.CONTINUE: "continued", StageRoute.STOP: "stopped"}


class Pipeline(Generic[InputT]):
    """Stages in order. It holds no state of its runs: any number may be under way.

    Args:
        router: runs the stages' requests.
        stages: at least one; their names differ.
        name: in spans and log lines.
        tracer: opens the spans, ``system.tracer`` for those of a system; None for the global provider's.

    Raises:
        ValueError: there is no stage, or two have one name.
        TypeError: a result type has no JSON Schema.
    """

    def __init__(
        self,
        router: Ref[Submit],
        stages: Sequence[Stage[InputT, Any]],
        *,
        name: str = "pipeline",
        tracer: Tracer | None = None,
    ) -> None:
        names = [stage.name for stage in stages]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a pipeline needs stages whose names differ, got {names}")
        self.name = name
        self._router = router
        self._steps = tuple(_Step(stage, name) for stage in stages)
        self._tracer = tracer or trace.get_tracer(spans.TRACER)

    async def run(
        self,
        given: InputT,
        caller: Caller = NOBODY,
        *,
        on_change: Callable[[PipelineRun[InputT]], object] | None = None,
    ) -> PipelineRun[InputT]:
        """Send ``given`` through the stages, and return the run with its outcome.

        A stage that fails is an outcome. What ``say`` and ``route`` raise is raised here. Cancelling this leaves the
        request of the stage at hand to its ``on_abandon``.

        Args:
            given: what came in.
            caller: for whom.
            on_change: called with the run whenever more is known of a stage: it begins, it has its request, it ends.
        """
        run = PipelineRun(given, on_change)
        attributes = {spans.PIPELINE: self.name}
        with self._tracer.start_as_current_span(spans.pipeline(self.name), caller.context, attributes=attributes):
            for step in self._steps:
                with self._tracer.start_as_current_span(
                    spans.stage(step.stage.name), attributes=step.attributes
                ) as span:
                    report = await step.take(self._router, run, caller)
                    _mark(span, report)
                if report.status != "continued":
                    break
        run.end()
        return run


class _Step(Generic[InputT]):
    """A stage made ready: its schema, its decoder, and what its spans and log lines always say."""

    __slots__ = ("_decode", "_pipeline", "_schema", "attributes", "stage")

    def __init__(self, stage: Stage[InputT, Any], pipeline: str) -> None:
        self.stage = stage
        self._pipeline = pipeline
        self.attributes = {
            spans.PIPELINE: pipeline,
            spans.STAGE: stage.name,
            spans.PROMPT_VERSION: stage.prompt.version,
            spans.PROMPT_HASH: stage.prompt.hash,
            spans.GEN_AI_REQUEST_MODEL: stage.model,
        }
        self._schema = json_schema(stage.result)
        self._decode = msgspec.json.Decoder(stage.result).decode

    async def take(self, router: Ref[Submit], run: PipelineRun[InputT], caller: Caller) -> StageReport:
        """Take ``run`` through this stage, and return how that went."""
        stage, started = self.stage, time.perf_counter()
        report = StageReport(stage=stage.name, prompt_version=stage.prompt.version, prompt_hash=stage.prompt.hash)
        run.begin(report)
        log = PipelineLog(self._pipeline, stage, caller)
        log.started()
        text = stage.say(run)
        result, error = stage.fallback, None
        try:
            message = self._submit(text, caller)
            handle = (await router.ask(message, timeout=min(SUBMIT_TIMEOUT, stage.timeout))).handle
            report = msgspec.structs.replace(report, request_id=handle.request_id, source=handle.source)
            run.note(report)
            try:
                result = await self._result(handle)
            finally:
                log.calls(handle, prompt_length=len(stage.prompt.text) + len(text))
        except TidegateError as failed:
            error = _error(failed)
            if isinstance(failed, RequestCancelled):
                result = None
        status: StageStatus = "failed"
        if error is None or result is not None:
            run.keep(stage, result)
            status = _STATUS[stage.route(result)]
        report = msgspec.structs.replace(
            report,
            status=status,
            fallback=error is not None and status != "failed",
            error=error,
            duration_ms=round((time.perf_counter() - started) * 1000, 3),
        )
        log.completed(report)
        run.note(report)
        return report

    def _submit(self, text: str, caller: Caller) -> Submit:
        stage = self.stage
        request = ChatRequest(
            model=stage.model,
            messages=(ChatMessage(role="system", content=stage.prompt.text), ChatMessage(role="user", content=text)),
            schema=self._schema,
            temperature=stage.temperature,
            max_tokens=stage.max_tokens,
        )
        delivery = Delivery(
            timeout=stage.timeout,
            cache_ttl=stage.cache_ttl,
            on_abandon=stage.on_abandon,
            repair=True,
            prompt_version=stage.prompt.version,
            session_id=caller.session_id,
        )
        return Submit(
            request=request,
            tenant=caller.tenant,
            account=caller.account,
            delivery=delivery,
            trace_id=caller.trace_id,
        )

    async def _result(self, handle: RequestHandle) -> Any:  # noqa: ANN401 - of the stage's type
        """Wait for the request's end, and return its result.

        Raises:
            TidegateError: as the request ended.
        """
        await _ended(handle.stream)
        state = handle.state()
        if state.assistant_status == "cancelled":
            raise RequestCancelled
        if isinstance(state.error, ErrorInfo):
            info = state.error
            wait = None if info.retry_after_ms is None else info.retry_after_ms / 1000
            raise TidegateError(info.message, code=info.code, retry_after=wait, errors=info.errors)
        try:
            return self._decode(state.core_result or b"")
        except msgspec.DecodeError as error:
            raise SchemaMismatch(str(error)) from error


async def _ended(stream: EventStream) -> None:
    """Follow ``stream`` to its end."""
    async with Follower(stream, after=stream.offset) as follower:
        while await follower.next() is not None:
            pass


def _error(error: TidegateError) -> ErrorInfo:
    failed = failure(error)
    return ErrorInfo(
        code=failed.code,
        message=failed.message,
        temporary=failed.temporary,
        retry_after_ms=failed.retry_after_ms,
        errors=failed.errors,
    )


def _mark(span: Span, report: StageReport) -> None:
    """Write down how a stage went. Only a stage without a result is an error of the span."""
    span.set_attribute(spans.STAGE_STATUS, report.status)
    if report.request_id is not None:
        span.set_attribute(spans.REQUEST_ID, report.request_id)
    if report.fallback:
        span.set_attribute(spans.FALLBACK, value=True)
    if report.error is not None:
        span.set_attribute(spans.ERROR_TYPE, report.error.code)
        if report.status == "failed":
            span.set_status(StatusCode.ERROR, report.error.message)
