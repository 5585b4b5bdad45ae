"""What a pipeline logs: each stage's start and end, and every call to the model's side between them.

The lines go to the standard library's logger ``tidegate.pipeline``, at INFO. What they say stands in the record's
``fields``, a dict: the service's log writes them into its lines, an embedder's handler does with them what it likes.
No line holds a prompt, a user's text or an answer.
"""

import logging
from typing import Any, Final

from actors.pipeline.stage import Caller, Stage
from protocol.pipeline import StageReport
from protocol.requests import RequestHandle

LOGGER: Final = "tidegate.pipeline"


class PipelineLog:
    """The log lines of one stage.

    Args:
        pipeline: the pipeline's name.
        stage: whose lines these are.
        caller: for whom the stage runs; its session and its trace hold the lines of one run together.
    """

    __slots__ = ("_log", "_prompt", "_stage", "_where")

    def __init__(self, pipeline: str, stage: Stage[Any, Any], caller: Caller) -> None:
        self._log = logging.getLogger(LOGGER)
        self._stage = stage
        self._where = {"pipeline": pipeline, "stage": stage.name}
        self._where |= {"sessionId": caller.session_id} if caller.session_id else {}
        self._where |= {"traceId": caller.trace_id} if caller.trace_id else {}
        self._prompt = {"promptVersion": stage.prompt.version, "promptHash": stage.prompt.hash}

    def started(self) -> None:
        """Write ``stage_started``."""
        self._write(
            "stage_started", {**self._prompt, "model": self._stage.model, "timeoutMs": self._stage.timeout * 1000}
        )

    def calls(self, handle: RequestHandle, *, prompt_length: int) -> None:
        """Write a ``provider_call`` for each call that was made for a request: none for one joined or replayed.

        ``tokens`` and ``cost`` are the call's own: null where it brought nothing, and ``cost``, in US dollars, also
        where the price is unknown; ``estimated`` says that the provider had not counted. ``promptLength`` is in
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
                "tokens": None if usage is None else {"input": usage.input_tokens, "output": usage.output_tokens},
                "cost": None if cost is None else f"{cost.usd:f}",
            }
            if attempt.estimated:
                fields["estimated"] = True
            if attempt.error:
                fields["error"] = attempt.error
            self._write("provider_call", fields)

    def completed(self, report: StageReport) -> None:
        """Write ``stage_completed``, however the stage ended."""
        fields: dict[str, Any] = {
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
        self._write("stage_completed", fields)

    def _write(self, event: str, fields: dict[str, Any]) -> None:
        self._log.info(event, extra={"fields": {**self._where, **fields}})
