"""A pipeline's log lines: each stage's start and end, and every upstream call between them.

The lines go to the standard library's logger ``tidegate.pipeline``, at INFO. The record's attribute ``fields``, a dict,
has their content: the service's log writes it, and an embedder's handler may use it. No line holds a prompt, a user's
text or an answer.
"""

import logging
from typing import Any, Final

from actors.pipeline.stage import Caller, Stage
from protocol.llm import Usage
from protocol.pipeline import StageReport
from protocol.requests import RequestHandle

LOGGER: Final = "tidegate.pipeline"


class PipelineLog:
    """The log lines of one stage.

    Args:
        pipeline: the pipeline's name.
        version: the pipeline's version; empty for none.
        stage: the stage.
        caller: the run's caller; its session and its trace identify the lines of one run.
    """

    __slots__ = ("_common", "_log", "_prompt", "_stage")

    def __init__(self, pipeline: str, version: str, stage: Stage[Any, Any], caller: Caller) -> None:
        self._log = logging.getLogger(LOGGER)
        self._stage = stage
        self._common = {"pipeline": pipeline, "stage": stage.name}
        self._common |= {"pipelineVersion": version} if version else {}
        self._common |= {"sessionId": caller.session_id} if caller.session_id else {}
        self._common |= {"traceId": caller.trace_id} if caller.trace_id else {}
        self._prompt = {"promptVersion": stage.prompt.version, "promptHash": stage.prompt.hash}

    def started(self) -> None:
        """Write ``stage_started``."""
        self._write(
            "stage_started", {**self._prompt, "model": self._stage.model, "timeoutMs": self._stage.timeout * 1000}
        )

    def calls(self, handle: RequestHandle, *, prompt_length: int) -> None:
        """Write a ``provider_call`` for each upstream call of a request: none for a joined or replayed request.

        ``tokens`` and ``cost``, in US dollars, are the call's own. Both are null where nothing was used, and ``cost``
        where the price is unknown. ``estimated`` means that the provider has not counted. ``promptLength`` is in
        characters.
        """
        for attempt in handle.attempts:
            usage, cost = attempt.usage, attempt.cost
            fields: dict[str, Any] = {
                "requestId": handle.request_id,
                "provider": attempt.provider,
                "model": attempt.model,
                **self._prompt,
                "promptLength": prompt_length,
                "durationMs": attempt.duration_ms,
                "tokens": None if usage is None else _tokens(usage),
                "cost": None if cost is None else f"{cost.usd:f}",
            }
            if attempt.estimated:
                fields["estimated"] = True
            if attempt.error:
                fields["error"] = attempt.error
            self._write("provider_call", fields)

    def completed(self, report: StageReport, result: object) -> None:
        """Write ``stage_completed``, whatever the stage's status is; with the facts of its result, if it has one."""
        fields: dict[str, Any] = {
            **self._stage.facts(result),
            "requestId": report.request_id,
            "source": report.source,
            **self._prompt,
            "status": report.status,
            "durationMs": report.duration_ms,
        }
        if report.fallback:
            fields["fallback"] = True
        if report.error is not None:
            fields["error"] = report.error.code
        if report.route is not None:
            fields["route"] = report.route.value
        self._write("stage_completed", fields)

    def _write(self, event: str, fields: dict[str, Any]) -> None:
        self._log.info(event, extra={"fields": {**self._common, **fields}})


def _tokens(usage: Usage) -> dict[str, int]:
    total = usage.input_tokens + usage.output_tokens
    return {"input": usage.input_tokens, "output": usage.output_tokens, "total": total}
