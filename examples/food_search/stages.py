"""The stages of the food search: gate (is it about food?), intent (which dish, where?), and answer."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from actors.pipeline.pipeline import Pipeline
from actors.pipeline.stage import PipelineRun, Stage
from actors.runtime import Ref, System
from protocol.errors import ConfigurationError
from protocol.pipeline import Prompt, StageRoute
from protocol.requests import Submit

NAME: Final = "food-search"
VERSION: Final = "1"
SURE: Final = 0.5  # the least confidence with which the gate may stop a search
REGION: Final = re.compile(r"[A-Z]{2}")
SWITCH: Final = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}


class FoodSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of the food search; each field is the environment variable of the same name in capitals.

    Attributes:
        route2_enabled: gate, then intent, then answer; without it every text is answered directly.
        default_region_code: the region of the search if the text names no place: two capital letters.
        gate_timeout_ms: the timeout of the gate, in milliseconds.
    """

    route2_enabled: bool = True
    default_region_code: str = "IL"
    gate_timeout_ms: int = 900

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> "FoodSettings":
        """Read the environment.

        Raises:
            ConfigurationError: a variable has an invalid value.
        """
        switch = environ.get("ROUTE2_ENABLED") or "true"
        region = environ.get("DEFAULT_REGION_CODE") or "IL"
        timeout = environ.get("GATE_TIMEOUT_MS") or "900"
        if switch.lower() not in SWITCH:
            raise ConfigurationError(f"ROUTE2_ENABLED is {switch!r}, but can be: {', '.join(SWITCH)}")
        if not REGION.fullmatch(region):
            raise ConfigurationError(f"DEFAULT_REGION_CODE is {region!r}, but has to be two capital letters")
        if not timeout.isdecimal() or not int(timeout):
            raise ConfigurationError(f"GATE_TIMEOUT_MS is {timeout!r}, but has to be a positive number")
        return cls(route2_enabled=SWITCH[switch.lower()], default_region_code=region, gate_timeout_ms=int(timeout))


class Query(msgspec.Struct, frozen=True):
    """The text of a search, and the region in which to search unless the text names another."""

    text: str
    region_code: str


class Gate(msgspec.Struct, frozen=True, rename="camel"):
    """Whether the text is about food, and in which language it is."""

    is_food_related: bool
    language: Literal["he", "en", "ru", "ar", "fr", "es", "other"]
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)]


class Intent(msgspec.Struct, frozen=True, rename="camel"):
    """The dish, and the region: two capital letters, or an empty text."""

    dish: Annotated[str, msgspec.Meta(max_length=60)]
    region_code: Annotated[str, msgspec.Meta(max_length=2)]


class Answer(msgspec.Struct, frozen=True, rename="camel"):
    """The text for the user."""

    text: Annotated[str, msgspec.Meta(max_length=280)]


def _text(run: PipelineRun[Query]) -> str:
    return run.given.text


def _only_food(gate: Gate) -> StageRoute:
    """Stop a text that is surely not about food; in doubt continue."""
    return StageRoute.CONTINUE if gate.is_food_related or gate.confidence < SURE else StageRoute.STOP


GATE: Final = Stage(
    name="gate",
    prompt=Prompt(
        "food_gate_v1", "Decide whether the text is about food, in which language it is, and how sure you are."
    ),
    result=Gate,
    say=_text,
    route=_only_food,
    timeout=0.9,
    max_tokens=64,
    log=("confidence", "language", "is_food_related"),
)
INTENT: Final = Stage(
    name="intent",
    prompt=Prompt(
        "food_intent_v1",
        "Name the dish that is wanted, and the ISO 3166 code of the country, or nothing where the text names none.",
    ),
    result=Intent,
    say=_text,
    timeout=10.0,
    max_tokens=128,
    log=("region_code",),
    fallback=Intent(dish="", region_code=""),
)


def region_of(run: PipelineRun[Query]) -> str:
    """Return the region of the search: the text's own if the model has found one, else the default."""
    found = run[INTENT].region_code if INTENT in run else ""
    return found if REGION.fullmatch(found) else run.given.region_code


def _question(run: PipelineRun[Query]) -> str:
    dish = run[INTENT].dish if INTENT in run else ""
    lines = [f"Text: {run.given.text}", f"Region: {region_of(run)}"]
    lines += [f"Dish: {dish}"] if dish else []
    lines += [f"Language of the answer: {run[GATE].language}"] if GATE in run else []
    return "\n".join(lines)


ANSWER: Final = Stage(
    name="answer",
    prompt=Prompt("food_answer_v1", "Say in one or two short sentences what to eat, and in which kind of place."),
    result=Answer,
    say=_question,
    timeout=60.0,
    max_tokens=512,
)


def food_pipeline(settings: FoodSettings, router: Ref[Submit], system: System) -> Pipeline[Query]:
    """Return the pipeline for these settings."""
    gate = msgspec.structs.replace(GATE, timeout=settings.gate_timeout_ms / 1000)
    stages: tuple[Stage[Query, Any], ...] = (gate, INTENT, ANSWER) if settings.route2_enabled else (ANSWER,)
    return Pipeline(router, stages, name=NAME, version=VERSION, tracer=system.tracer)
