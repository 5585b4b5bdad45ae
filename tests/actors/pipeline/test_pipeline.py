"""Pipelines: how a run goes on and ends, what it shares, and what it logs."""

import asyncio
import logging
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from actors.cache import CacheActor
from actors.pipeline.pipeline import Pipeline
from actors.pipeline.stage import Caller, PipelineRun, Stage
from actors.requests.router import RequestRouter
from actors.runtime import Actor, Deferred, Ref, handles
from actors.runtime.testing import TestSystem
from protocol import spans
from protocol.errors import NotFound, ProviderError
from protocol.gateway import Complete, Completion, ModelInfo, Progress, ResolveModel
from protocol.llm import Attempt, Cost, TextPart, Usage
from protocol.pipeline import Prompt, RunFinished, RunStopped, StageFailed, StageRoute
from protocol.requests import CancelRequest, GetRequest, Submit

Router = Ref[Submit | GetRequest | CancelRequest]


class Gate(msgspec.Struct, frozen=True):
    """The first stage's answer."""

    food: bool
    language: Literal["en", "he"]
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)]


class Answer(msgspec.Struct, frozen=True):
    """The last stage's answer."""

    text: str


YES = '{"food": true, "language": "he", "confidence": 0.9}'
NO = '{"food": false, "language": "en", "confidence": 0.8}'
LINES = "tidegate.pipeline"


class Scripted(Actor[Complete | ResolveModel]):
    """A gateway that returns the next text of its script, raises the next error, or waits where it has none."""

    def __init__(self, script: "list[str | Exception]", asked: "list[Complete]") -> None:
        self.script = script
        self.asked = asked

    @handles(Complete)
    async def complete(self, message: Complete) -> Deferred[Completion]:
        self.asked.append(message)
        return self.defer(self._complete(message))

    @handles(ResolveModel)
    async def resolve(self, message: ResolveModel) -> ModelInfo:
        if message.model == "unknown":
            raise NotFound("no model 'unknown'", code="model_not_found")
        return ModelInfo(message.model, "p")

    async def _complete(self, message: Complete) -> Completion:
        if not self.script:
            await asyncio.get_running_loop().create_future()
        text = self.script.pop(0)
        assert message.sink is not None
        if isinstance(text, Exception):
            await message.sink.tell(Progress(attempt=Attempt(provider="p", model="m-1", error="provider_error")))
            raise text
        usage, cost = Usage(input_tokens=7, output_tokens=3), Cost(usd=Decimal("0.00002"))
        attempt = Attempt(provider="p", model="m-1", duration_ms=2.5, usage=usage, cost=cost)
        await message.sink.tell(Progress(attempt=attempt))
        raw = msgspec.Raw(text.encode())
        return Completion(
            parts=(TextPart(text=text),), result=raw, usage=usage, cost=cost.usd, provider="p", model="m-1"
        )


class Bench:
    """A router in front of a scripted gateway, with the calls that reached the gateway."""

    def __init__(self, system: TestSystem) -> None:
        self.system = system
        self.script: list[str | Exception] = []
        self.asked: list[Complete] = []
        gateway = system.spawn(lambda: Scripted(self.script, self.asked), name="llm-gateway")
        cache = system.spawn(CacheActor, name="cache")
        self.router: Router = system.spawn(lambda: RequestRouter(gateway=gateway, cache=cache), name="request-router")

    def pipeline(self, *stages: Stage[str, Any]) -> Pipeline[str]:
        """Return a pipeline of these stages."""
        return Pipeline(self.router, stages, name="food", tracer=self.system.tracer)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    """A router on a manual clock."""
    async with TestSystem() as system:
        yield Bench(system)


def only_food(gate: Gate) -> StageRoute:
    """Continue with queries about food."""
    return StageRoute.CONTINUE if gate.food else StageRoute.STOP


def as_it_came(run: PipelineRun[str]) -> str:
    """Return the pipeline's input."""
    return run.given


def gate_stage(**changes: Any) -> Stage[str, Gate]:  # noqa: ANN401 - fields of Stage
    """Return the first stage."""
    fields: dict[str, Any] = {"prompt": Prompt("gate_v1", "Is it about food?"), "timeout": 0.9, "max_tokens": 64}
    return Stage(name="gate", result=Gate, say=as_it_came, route=only_food, **{**fields, **changes})


def answer_stage(gate: Stage[str, Gate]) -> Stage[str, Answer]:
    """Return the last stage, which uses the first one's result."""

    def say(run: PipelineRun[str]) -> str:
        return f"{run.given} ({run[gate].language})"

    return Stage(name="answer", prompt=Prompt("answer_v1", "Answer."), result=Answer, say=say)


async def test_a_run_goes_through_all_stages(bench: Bench) -> None:
    """Each stage gets its prompt and the results before it, and has a result of its own type."""
    bench.script[:] = [YES, '{"text": "a pizzeria"}']
    gate = gate_stage()
    answer = answer_stage(gate)
    run = await bench.pipeline(gate, answer).run("pizza")
    assert run.outcome == RunFinished()
    assert run[gate] == Gate(food=True, language="he", confidence=0.9)
    assert run[answer].text == "a pizzeria"
    assert [report.status for report in run.reports] == ["continued", "continued"]
    first, second = (complete.request for complete in bench.asked)
    assert [message.content for message in first.messages] == ["Is it about food?", "pizza"]
    assert [message.content for message in second.messages] == ["Answer.", "pizza (he)"]
    assert first.schema is not None
    assert first.schema["required"] == ["food", "language", "confidence"]
    assert first.schema["additionalProperties"] is False
    assert (first.temperature, first.max_tokens) == (0.0, 64)


async def test_a_stage_can_stop_the_run(bench: Bench) -> None:
    """After STOP no further stage runs; the result stays."""
    bench.script[:] = [NO]
    gate = gate_stage()
    answer = answer_stage(gate)
    run = await bench.pipeline(gate, answer).run("a bike")
    assert run.outcome == RunStopped("gate")
    assert gate in run
    assert answer not in run
    assert len(bench.asked) == 1
    with pytest.raises(KeyError):
        run[answer]


async def test_a_stage_out_of_time_ends_the_run_with_its_name(bench: Bench) -> None:
    """The stage's own timeout counts; the outcome names the stage and the error, and its request has ended."""
    running = asyncio.create_task(bench.pipeline(gate_stage()).run("pizza"))
    await bench.system.settle()
    await bench.system.advance(0.9)
    run = await running
    assert isinstance(run.outcome, StageFailed)
    assert (run.outcome.stage, run.outcome.error.code) == ("gate", "deadline_exceeded")
    assert run.outcome.error.message == "The request ran out of time (900 ms)"
    (report,) = run.reports
    assert report.request_id is not None
    handle = await bench.router.ask(GetRequest(report.request_id), timeout=5)
    assert handle.state().assistant_status == "failed"


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (ProviderError(), "provider_error"),
        ('{"food": true, "language": "fr", "confidence": 0.9}', "schema_mismatch"),
    ],
)
async def test_a_stage_without_an_answer_of_its_type_fails(bench: Bench, said: str | Exception, code: str) -> None:
    """An upstream error is the outcome; so is a result of another type."""
    bench.script[:] = [said]
    run = await bench.pipeline(gate_stage()).run("pizza")
    assert isinstance(run.outcome, StageFailed)
    assert run.outcome.error.code == code


async def test_a_refused_submission_is_a_failed_stage(bench: Bench) -> None:
    """Its report has no request id."""
    run = await bench.pipeline(gate_stage(model="unknown")).run("pizza")
    assert isinstance(run.outcome, StageFailed)
    assert run.outcome.error.code == "model_not_found"
    assert run.reports[0].request_id is None


async def test_a_fallback_takes_the_place_of_a_failure(bench: Bench) -> None:
    """The run follows the fallback's route, and the report has the error."""
    fallback = Gate(food=True, language="en", confidence=0.0)
    gate = gate_stage(fallback=fallback)
    bench.script[:] = [ProviderError(), '{"text": "somewhere"}']
    run = await bench.pipeline(gate, answer_stage(gate)).run("pizza")
    assert run.outcome == RunFinished()
    assert run[gate] is fallback
    report = run.reports[0]
    assert report.fallback
    assert report.error is not None
    assert report.error.code == "provider_error"


async def test_a_cancelled_stage_has_no_fallback(bench: Bench) -> None:
    """Cancelling a stage's request ends the run."""
    begun: list[str] = []

    def look(run: PipelineRun[str]) -> None:
        if run.reports[-1].request_id:
            begun.append(run.reports[-1].request_id)

    gate = gate_stage(fallback=Gate(food=True, language="en", confidence=0.0))
    running = asyncio.create_task(bench.pipeline(gate).run("pizza", on_change=look))
    await bench.system.settle()
    await bench.router.ask(CancelRequest(begun[0]), timeout=5)
    run = await running
    assert isinstance(run.outcome, StageFailed)
    assert run.outcome.error.code == "cancelled"


async def test_stages_share_as_requests_do(bench: Bench) -> None:
    """Concurrent runs share a call, a later one is replayed, and another tenant's shares nothing."""
    bench.script[:] = [YES, YES]
    pipeline = bench.pipeline(gate_stage())
    runs = await asyncio.gather(*(pipeline.run("pizza") for _ in range(5)))
    runs.append(await pipeline.run("pizza"))
    assert sorted(str(run.reports[0].source) for run in runs) == ["cache", *["joined"] * 4, "upstream"]
    assert len(bench.asked) == 1
    assert (await pipeline.run("pizza", Caller(tenant="other"))).reports[0].source == "upstream"
    assert len(bench.asked) == 2


async def test_a_new_prompt_version_shares_nothing_with_the_old_one(bench: Bench) -> None:
    """The version is part of the fingerprint, and a stage may keep its answers out of the cache."""
    bench.script[:] = [YES, YES, YES]
    for version, ttl in (("v1", 60), ("v2", 0), ("v2", 0)):
        stage = gate_stage(prompt=Prompt(version, "Is it about food?"), cache_ttl=ttl)
        run = await bench.pipeline(stage).run("pizza")
        assert run.reports[0].source == "upstream"


async def test_changes_are_reported_as_they_happen(bench: Bench) -> None:
    """A stage begins, gets its request, and ends; at last there is the outcome."""
    bench.script[:] = [YES]
    seen: list[tuple[str, bool, bool]] = []

    def look(run: PipelineRun[str]) -> None:
        report = run.reports[-1]
        seen.append((report.status, report.request_id is not None, run.outcome is not None))

    await bench.pipeline(gate_stage()).run("pizza", on_change=look)
    assert seen == [
        ("running", False, False),
        ("running", True, False),
        ("continued", True, False),
        ("continued", True, True),
    ]


async def test_each_stage_is_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Start, calls and end have the documented fields; a replay has no call. No text is logged."""
    bench.script[:] = [YES]
    pipeline = bench.pipeline(gate_stage())
    with caplog.at_level(logging.INFO, logger=LINES):
        await pipeline.run("a secret wish for pizza", Caller(session_id="s1", trace_id="ab" * 16))
        await pipeline.run("a secret wish for pizza")
    lines = [(record.message, record.__dict__["fields"]) for record in caplog.records if record.name == LINES]
    assert [event for event, _ in lines] == [
        "stage_started",
        "provider_call",
        "stage_completed",
        "stage_started",
        "stage_completed",
    ]
    digest = gate_stage().prompt.hash
    for _, fields in lines:
        assert (fields["pipeline"], fields["stage"]) == ("food", "gate")
        assert (fields["promptVersion"], fields["promptHash"]) == ("gate_v1", digest)
        assert "secret" not in str(fields)
    assert [fields.get("sessionId") for _, fields in lines] == ["s1"] * 3 + [None] * 2
    assert [fields.get("traceId") for _, fields in lines] == ["ab" * 16] * 3 + [None] * 2
    call = lines[1][1]
    assert (call["provider"], call["model"], call["durationMs"]) == ("p", "m-1", 2.5)
    assert call["promptLength"] == len("Is it about food?") + len("a secret wish for pizza")
    assert (call["tokens"], call["cost"]) == ({"input": 7, "output": 3, "total": 10}, "0.00002")
    assert [fields["source"] for event, fields in lines if event == "stage_completed"] == ["upstream", "cache"]
    assert lines[2][1]["requestId"] == call["requestId"]


async def test_a_failed_stage_is_logged_with_its_code(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The failed call and the stage's end have the code."""
    bench.script[:] = [ProviderError()]
    with caplog.at_level(logging.INFO, logger=LINES):
        await bench.pipeline(gate_stage()).run("pizza")
    call, end = (record.__dict__["fields"] for record in caplog.records[-2:])
    assert (call["error"], end["error"], end["status"]) == ("provider_error", "provider_error", "failed")


async def test_facts_of_a_result_are_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """The end of a stage has the named fields and the route; each line the pipeline's version. A failure has none."""
    bench.script[:] = [NO, ProviderError()]
    stage = gate_stage(log=("confidence", "food"), cache_ttl=0)
    pipeline = Pipeline(bench.router, (stage,), name="food", version="7", tracer=bench.system.tracer)
    assert len(pipeline) == 1
    with caplog.at_level(logging.INFO, logger=LINES):
        runs = [await pipeline.run("a bike"), await pipeline.run("pizza")]
    lines = [record.__dict__["fields"] for record in caplog.records if record.name == LINES]
    assert {fields["pipelineVersion"] for fields in lines} == {"7"}
    good, failed = (fields for fields in lines if "status" in fields)
    assert (good["confidence"], good["food"], good["route"], good["status"]) == (0.8, False, "STOP", "stopped")
    assert failed.keys().isdisjoint({"confidence", "food", "route"})
    assert [run.reports[0].route for run in runs] == [StageRoute.STOP, None]


@pytest.mark.parametrize("name", ["foot", "status", ""])
def test_only_fields_of_the_result_are_logged(name: str) -> None:
    """A name that the result lacks, or that the line uses itself, is refused at construction."""
    with pytest.raises(ValueError, match=r"can't log .*'confidence', 'food', 'language'"):
        gate_stage(log=("food", name))


async def test_each_stage_is_a_span() -> None:
    """A run is a span, its stages are its children, and the requests' runs are theirs."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    async with TestSystem(tracer_provider=provider) as system:
        bench = Bench(system)
        bench.script[:] = [YES, ProviderError()]
        gate = gate_stage()
        await bench.pipeline(gate, answer_stage(gate)).run("pizza")
        await system.settle()
    found = {span.name: span for span in exporter.get_finished_spans()}
    whole, first, last = found["pipeline food"], found["stage gate"], found["stage answer"]
    for stage in (first, last):
        assert stage.parent is not None
        assert stage.parent.span_id == whole.context.span_id
    assert first.attributes is not None
    assert first.attributes[spans.PROMPT_VERSION] == "gate_v1"
    assert first.attributes[spans.STAGE_STATUS] == "continued"
    assert last.attributes is not None
    assert last.attributes[spans.ERROR_TYPE] == "provider_error"
    assert not last.status.is_ok
    runs = {span.parent.span_id for span in exporter.get_finished_spans() if span.parent is not None}
    assert {first.context.span_id, last.context.span_id} <= runs


async def test_an_exception_of_a_route_function_is_raised(bench: Bench) -> None:
    """An exception of a route function is raised, not an outcome."""

    def broken(_gate: Gate) -> StageRoute:
        raise ZeroDivisionError

    bench.script[:] = [YES]
    with pytest.raises(ZeroDivisionError):
        await bench.pipeline(msgspec.structs.replace(gate_stage(), route=broken)).run("pizza")


async def test_a_cancelled_run_leaves_its_request_to_finish(bench: Bench) -> None:
    """Cancelling a run only stops following: the request goes on."""
    running = asyncio.create_task(bench.pipeline(gate_stage()).run("pizza"))
    await bench.system.settle()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    handle = await bench.router.ask(GetRequest(bench.asked[0].request_id), timeout=5)
    assert not handle.stream.ended


def test_a_prompt_shows_when_its_text_has_changed() -> None:
    """The hash is that of the text, whatever the version is."""
    assert Prompt("v1", "one").hash == Prompt("v2", "one").hash != Prompt("v1", "two").hash
    assert len(Prompt("v1", "one").hash) == 16


@pytest.mark.parametrize("changes", [{"name": ""}, {"timeout": 0.0}, {"cache_ttl": -1.0}])
def test_a_stage_is_checked_when_it_is_made(changes: dict[str, Any]) -> None:
    """Invalid values raise before anything runs."""
    fields: dict[str, Any] = {"name": "gate", "prompt": Prompt("v1", "?"), "result": Gate, "say": str}
    with pytest.raises(ValueError, match="stage"):
        Stage(**{**fields, **changes})


@pytest.mark.parametrize("count", [0, 2])
async def test_stages_have_names_of_their_own(bench: Bench, count: int) -> None:
    """A pipeline needs stages, with different names."""
    with pytest.raises(ValueError, match="differ"):
        bench.pipeline(*(gate_stage() for _ in range(count)))
