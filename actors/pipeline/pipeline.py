"""A pipeline: a sequence of stages, each a question to a model with a typed answer; for example gate, intent, answer.

::

    pipeline = Pipeline(router, (GATE, INTENT, ANSWER), name="food-search")
    run = await pipeline.run("pizza near me")
    if isinstance(run.outcome, RunFinished):
        print(run[ANSWER].text)

Each stage is a request to the router: it is coalesced with an identical one, may be answered from the cache, and can be
followed by its id.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Generic

import msgspec
from opentelemetry import trace
from opentelemetry.trace import Span, StatusCode, Tracer

from actors.llm_gateway.type_schema import json_schema
from actors.log.follow import Follower
from actors.pipeline.log import PipelineLog
from actors.pipeline.stage import ANONYMOUS, Caller, InputT, PipelineRun, Stage
from actors.requests.failure import failure
from actors.runtime import Ref
from protocol import spans
from protocol.errors import RequestCancelled, SchemaMismatch, TidegateError
from protocol.events import EventStream
from protocol.llm import ChatMessage, ChatRequest
from protocol.pipeline import StageReport, StageRoute, StageStatus
from protocol.requests import Delivery, ErrorInfo, RequestHandle, Submit

SUBMIT_TIMEOUT: Final = 10.0  # seconds for the submission of a stage; a shorter stage timeout counts instead

_STATUS: Final[dict[StageRoute, StageStatus]] = {StageRoute.CONTINUE: "continued", StageRoute.STOP: "stopped"}


class Pipeline(Generic[InputT]):
    """Stages in order. It holds no state of its runs: any number may run at once.

    Args:
        router: runs the stages' requests.
        stages: at least one, with different names.
        name: in spans and log lines.
        version: the author's name for these stages as a whole, in spans and log lines; empty for none.
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
        version: str = "",
        tracer: Tracer | None = None,
    ) -> None:
        names = [stage.name for stage in stages]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a pipeline needs stages whose names differ, got {names}")
        self.name = name
        self.version = version
        self._router = router
        self._steps = tuple(_Step(stage, name, version) for stage in stages)
        self._tracer = tracer or trace.get_tracer(spans.TRACER)

    def __len__(self) -> int:
        return len(self._steps)

    async def run(
        self,
        given: InputT,
        caller: Caller = ANONYMOUS,
        *,
        on_change: Callable[[PipelineRun[InputT]], object] | None = None,
    ) -> PipelineRun[InputT]:
        """Run the stages on ``given``, and return the run with its outcome.

        A failed stage is an outcome. Exceptions of ``say`` and ``route`` are raised here. After a cancellation the
        current stage's ``on_abandon`` decides about its request.

        Args:
            given: the pipeline's input.
            caller: the caller.
            on_change: called with the run when a stage begins, has its request, or ends.
        """
        run = PipelineRun(given, on_change)
        attributes = {spans.PIPELINE: self.name}
        attributes |= {spans.PIPELINE_VERSION: self.version} if self.version else {}
        with self._tracer.start_as_current_span(spans.pipeline(self.name), caller.context, attributes=attributes):
            for step in self._steps:
                with self._tracer.start_as_current_span(
                    spans.stage(step.stage.name), attributes=step.attributes
                ) as span:
                    report = await step.execute(self._router, run, caller)
                    _set_status(span, report)
                if report.status != "continued":
                    break
        run.end()
        return run


class _Step(Generic[InputT]):
    """A stage with its schema, its decoder and its span attributes."""

    __slots__ = ("_decode", "_pipeline", "_schema", "_version", "attributes", "stage")

    def __init__(self, stage: Stage[InputT, Any], pipeline: str, version: str) -> None:
        self.stage = stage
        self._pipeline = pipeline
        self._version = version
        self.attributes = {
            spans.PIPELINE: pipeline,
            spans.STAGE: stage.name,
            spans.PROMPT_VERSION: stage.prompt.version,
            spans.PROMPT_HASH: stage.prompt.hash,
            spans.GEN_AI_REQUEST_MODEL: stage.model,
        }
        self._schema = json_schema(stage.result)
        self._decode = msgspec.json.Decoder(stage.result).decode

    async def execute(self, router: Ref[Submit], run: PipelineRun[InputT], caller: Caller) -> StageReport:
        """Execute this stage for ``run``, and return its report."""
        stage, started = self.stage, time.perf_counter()
        report = StageReport(stage=stage.name, prompt_version=stage.prompt.version, prompt_hash=stage.prompt.hash)
        run.begin(report)
        log = PipelineLog(self._pipeline, self._version, stage, caller)
        log.started()
        text = stage.say(run)
        result, error = stage.fallback, None
        try:
            message = self._submit(text, caller)
            handle = (await router.ask(message, timeout=min(SUBMIT_TIMEOUT, stage.timeout))).handle
            report = msgspec.structs.replace(report, request_id=handle.request_id, source=handle.source)
            run.update(report)
            try:
                result = await self._result(handle)
            finally:
                log.calls(handle, prompt_length=len(stage.prompt.text) + len(text))
        except TidegateError as failed:
            error = _error(failed, min(SUBMIT_TIMEOUT, stage.timeout))
            if isinstance(failed, RequestCancelled):
                result = None
        status: StageStatus = "failed"
        route = None
        if error is None or result is not None:
            run.set_result(stage, result)
            route = stage.route(result)
            status = _STATUS[route]
        report = msgspec.structs.replace(
            report,
            status=status,
            route=route,
            fallback=error is not None and status != "failed",
            error=error,
            duration_ms=round((time.perf_counter() - started) * 1000, 3),
        )
        log.completed(report, result)
        run.update(report)
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
            surface="pipeline",
        )

    async def _result(self, handle: RequestHandle) -> Any:  # noqa: ANN401 - of the stage's type
        """Wait for the request's end, and return its result.

        Raises:
            TidegateError: the request has failed or was cancelled.
        """
        await _wait_for_end(handle.stream)
        state = handle.state()
        if state.assistant_status == "cancelled":
            raise RequestCancelled
        if isinstance(state.error, ErrorInfo):
            info = state.error
            wait = None if info.retry_after_ms is None else info.retry_after_ms / 1000
            raise TidegateError(info.message, code=info.code, retry_after=wait, errors=info.errors)
        result = state.core_result
        try:
            return self._decode(result if isinstance(result, msgspec.Raw) else b"")
        except msgspec.DecodeError as error:
            raise SchemaMismatch(str(error)) from error


async def _wait_for_end(stream: EventStream) -> None:
    """Follow ``stream`` to its end."""
    async with Follower(stream, after=stream.offset) as follower:
        while await follower.next() is not None:
            pass


def _error(error: TidegateError, timeout: float) -> ErrorInfo:
    failed = failure(error, timeout)
    return ErrorInfo(
        code=failed.code,
        message=failed.message,
        temporary=failed.temporary,
        retry_after_ms=failed.retry_after_ms,
        errors=failed.errors,
    )


def _set_status(span: Span, report: StageReport) -> None:
    """Set a stage's attributes on its span. Only a stage without a result is an error of the span."""
    span.set_attribute(spans.STAGE_STATUS, report.status)
    if report.request_id is not None:
        span.set_attribute(spans.REQUEST_ID, report.request_id)
    if report.fallback:
        span.set_attribute(spans.FALLBACK, value=True)
    if report.error is not None:
        span.set_attribute(spans.ERROR_TYPE, report.error.code)
        if report.status == "failed":
            span.set_status(StatusCode.ERROR, report.error.message)
