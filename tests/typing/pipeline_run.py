"""What the type checker accepts and refuses of pipelines: each ignored error must occur."""

from typing import assert_type

from actors.pipeline.pipeline import Pipeline
from actors.pipeline.stage import PipelineRun, Stage
from actors.runtime import Ref
from protocol.message import Message
from protocol.pipeline import Outcome, Prompt, StageRoute
from protocol.requests import GetRequest, Submit

PROMPT = Prompt("v1", "Say something.")


class Foreign(Message[None], frozen=True):
    """A message that a router does not accept."""


def shout(run: PipelineRun[str]) -> str:
    """Return the input in upper case as the user message."""
    return run.given.upper()


def enough(result: list[int]) -> StageRoute:
    """Return the stage's route for a result."""
    return StageRoute.STOP if result else StageRoute.CONTINUE


NUMBERS = Stage(name="numbers", prompt=PROMPT, result=list[int], say=shout, route=enough)
WORDS: Stage[str, str] = Stage(name="words", prompt=PROMPT, result=str, say=shout, fallback="none")


async def through(router: Ref[Submit | GetRequest], other: Ref[Foreign]) -> None:
    """A result has its stage's type, and a run has its input's type."""
    pipeline = Pipeline(router, (NUMBERS, WORDS))
    run = await pipeline.run("one")
    assert_type(run.given, str)
    assert_type(run[NUMBERS], list[int])
    assert_type(run[WORDS], str)
    assert_type(run.outcome, Outcome | None)
    await pipeline.run(1)  # type: ignore[arg-type]
    Pipeline(other, (NUMBERS,))  # type: ignore[arg-type]
    Stage(name="n", prompt=PROMPT, result=str, say=shout, route=enough)  # type: ignore[arg-type]
