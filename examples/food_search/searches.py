"""Searches: the running ones, and the last ones that have ended."""

import asyncio
from typing import Final, Literal

import msgspec
import structlog

from actors.pipeline.pipeline import Pipeline
from actors.pipeline.stage import Caller, PipelineRun
from actors.runtime import System
from examples.food_search.stages import ANSWER, GATE, FoodSettings, Query, region_of
from protocol import ids
from protocol.errors import InternalError, NotFound, Overloaded
from protocol.pipeline import RunFinished, RunStopped, StageFailed, StageReport
from protocol.requests import ErrorInfo

MAX_SEARCHES: Final = 1000

_log = structlog.get_logger("food_search")

Status = Literal["running", "finished", "stopped", "failed"]


class SearchState(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """State of a search, as clients see it.

    Attributes:
        request_id: the search's id.
        status: running, or how it ended.
        stopped_at: the stage that stopped it or failed; None for neither.
        stages: the stages that were begun.
        answer_request_id: the request to follow for the answer; None until it exists.
        language: the gate's result; None until the gate has one.
        region_code: the region of the search.
        answer: the answer's text, once it is complete.
        error: why it failed.
    """

    request_id: str
    status: Status
    stopped_at: str | None
    stages: tuple[StageReport, ...]
    answer_request_id: str | None
    language: str | None
    region_code: str
    answer: str | None
    error: ErrorInfo | None


class Search:
    """One search.

    ::

        running ──► answering ──► ended
           └────────────────────────▲

    Attributes:
        request_id: its id.
        tenant: its owner.
        answering: set once the answer's request exists, and at the end.
        ended: set at the end.
    """

    __slots__ = ("_run", "answering", "ended", "request_id", "tenant")

    def __init__(self, query: Query, tenant: str) -> None:
        self.request_id = f"search_{ids.ulid()}"
        self.tenant = tenant
        self.answering = asyncio.Event()
        self.ended = asyncio.Event()
        self._run = PipelineRun(query)

    def look(self, run: PipelineRun[Query]) -> None:
        """Store the new state of the run, and wake requests that wait for the answer's request."""
        self._run = run
        if self._answer_request() is not None:
            self.answering.set()

    def end(self) -> None:
        """Wake all requests that wait for the search."""
        self.ended.set()
        self.answering.set()

    def state(self) -> SearchState:
        """Return the current state."""
        run = self._run
        status, stopped_at, error = self._end()
        return SearchState(
            request_id=self.request_id,
            status=status,
            stopped_at=stopped_at,
            stages=run.reports,
            answer_request_id=self._answer_request(),
            language=run[GATE].language if GATE in run else None,
            region_code=region_of(run),
            answer=run[ANSWER].text if ANSWER in run else None,
            error=error,
        )

    def _end(self) -> tuple[Status, str | None, ErrorInfo | None]:
        match self._run.outcome:
            case RunFinished():
                return "finished", None, None
            case RunStopped(stage):
                return "stopped", stage, None
            case StageFailed(stage, error):
                return "failed", stage, error
        if not self.ended.is_set():
            return "running", None, None
        fault = InternalError()
        return "failed", None, ErrorInfo(code=fault.code, message=fault.detail)

    def _answer_request(self) -> str | None:
        return next((report.request_id for report in self._run.reports if report.stage == ANSWER.name), None)


class Searches:
    """Keeps searches by id; above ``limit`` the oldest ended one is dropped.

    Args:
        system: owns the tasks of the searches; a client that leaves does not cancel them.
        pipeline: runs each search.
        settings: of the food search.
        limit: the most searches that are kept.
        ready: a search begins its first stage when this is set; None: at once.
    """

    def __init__(
        self,
        system: System,
        pipeline: Pipeline[Query],
        settings: FoodSettings,
        *,
        limit: int = MAX_SEARCHES,
        ready: asyncio.Event | None = None,
    ) -> None:
        self._system = system
        self._pipeline = pipeline
        self._settings = settings
        self._limit = limit
        self._ready = ready
        self._kept: dict[str, Search] = {}

    def begin(self, text: str, caller: Caller) -> Search:
        """Start a search.

        Raises:
            Overloaded: ``limit`` searches are running.
        """
        if len(self._kept) >= self._limit:
            ended = next((key for key, search in self._kept.items() if search.ended.is_set()), None)
            if ended is None:
                raise Overloaded(f"{self._limit} searches are running", retry_after=1.0)
            del self._kept[ended]
        query = Query(text, self._settings.default_region_code)
        search = Search(query, caller.tenant)
        self._kept[search.request_id] = search
        caller = msgspec.structs.replace(caller, session_id=search.request_id)
        _log.info(
            "search_started",
            request_id=search.request_id,
            trace_id=caller.trace_id,
            pipeline=self._pipeline.name,
            pipelineVersion=self._pipeline.version,
            stages=len(self._pipeline),
            regionCode=query.region_code,
            textLength=len(text),
        )
        _ = self._system.background(self._take(search, query, caller), name=search.request_id)
        return search

    def find(self, request_id: str, tenant: str) -> Search:
        """Return a search of this tenant.

        Raises:
            NotFound: ``request_not_found``, also for a search of another tenant.
        """
        search = self._kept.get(request_id)
        if search is None or search.tenant != tenant:
            raise NotFound(f"there is no search {request_id[:64]!r}", code="request_not_found")
        return search

    async def _take(self, search: Search, query: Query, caller: Caller) -> None:
        try:
            if self._ready is not None:
                await self._ready.wait()
            await self._pipeline.run(query, caller, on_change=search.look)
        finally:
            search.end()
