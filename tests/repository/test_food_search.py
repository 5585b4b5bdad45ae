"""The food search, run: its routes with a scripted model, and the whole program with the real local model."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from actors.pipeline.stage import Caller
from actors.testing import Reply, ScriptedUpstream, Stall, say
from examples.food_search.app import serving
from examples.food_search.searches import Searches
from examples.food_search.stages import FoodSettings, food_pipeline
from protocol.errors import ConfigurationError, NotFound, Overloaded
from protocol.gateway import GetProviders
from service.config.settings import load_settings
from service.container import open_container
from tests.local_service import environment, needs_local_model

GATE = {"isFoodRelated": True, "language": "en", "confidence": 0.9}
INTENT = {"dish": "pizza", "regionCode": ""}
ANSWER = {"text": "Margherita, in a pizzeria."}
PATIENT = FoodSettings(gate_timeout_ms=50_000)
ADA, BOB = "the-first-of-two-keys", "the-second-of-two-keys"


class Client:
    """A client of a running food search."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self.session = session
        self.base = base

    async def search(self, text: str) -> str:
        """Begin a search and return its id."""
        async with self.session.post(f"{self.base}/search", json={"text": text}) as response:
            assert response.status == 202
            state = await response.json()
        assert response.headers["Location"] == f"/search/{state['requestId']}"
        assert state["status"] == "running"
        return str(state["requestId"])

    async def state(self, name: str, wait: str = "") -> Any:  # noqa: ANN401 - JSON
        """Return the state of a search."""
        async with self.session.get(f"{self.base}/search/{name}", params={"wait": wait}) as response:
            assert response.status == 200
            return await response.json()

    async def follow(self, request_id: str) -> tuple[str, Any]:
        """Follow a request on the socket; return its text and its last frame."""
        text = ""
        async with self.session.ws_connect(f"{self.base}/ws") as socket:
            await socket.send_json({"type": "subscribe", "requestId": request_id})
            while (frame := await socket.receive_json())["type"] == "update":
                text += frame["data"].get("delta", "")
        return text, frame


@asynccontextmanager
async def scripted(upstream: ScriptedUpstream, food: FoodSettings = PATIENT, **settings: Any) -> AsyncIterator[Client]:  # noqa: ANN401 - field by field
    """Serve the search in front of a scripted model."""
    options = load_settings(None, port=0, openai_api_key="made-up", openai_base_url=upstream.openai_url, **settings)
    async with (
        open_container(options) as container,
        serving(container, food) as (_, address),
        aiohttp.ClientSession() as session,
    ):
        yield Client(session, address)


def answers(*bodies: object) -> tuple[Reply, ...]:
    """One good answer for each body."""
    return tuple(say(*json.dumps(body).partition(":")) for body in bodies)


async def test_a_text_about_food_is_answered() -> None:
    """A search passes all stages, and a client follows the answer's request on the service's own socket."""
    async with ScriptedUpstream(*answers(GATE, INTENT, ANSWER)) as upstream, scripted(upstream) as client:
        name = await client.search("where is good pizza?")
        request_id = (await client.state(name, "answer"))["answerRequestId"]
        text, end = await client.follow(request_id)
        state = await client.state(name, "end")
    assert json.loads(text) == end["data"]["coreResult"] == ANSWER
    assert (state["status"], state["answer"]) == ("finished", ANSWER["text"])
    assert [stage["stage"] for stage in state["stages"]] == ["gate", "intent", "answer"]
    assert (state["language"], state["regionCode"], state["error"]) == ("en", "IL", None)
    asked = [call.body["messages"][1]["content"] for call in upstream.received]
    assert asked[:2] == ["where is good pizza?"] * 2
    assert "Dish: pizza" in asked[2]


async def test_a_search_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Its begin, and the gate's facts, under the search's id; never the text."""
    with caplog.at_level("INFO", "tidegate.pipeline"), capture_logs() as logs:
        async with ScriptedUpstream(*answers(GATE, INTENT, ANSWER)) as upstream, scripted(upstream) as client:
            name = await client.search("a secret wish")
            await client.state(name, "end")
    (started,) = [line for line in logs if line["event"] == "search_started"]
    assert (started["request_id"], started["pipeline"], started["stages"]) == (name, "food-search", 3)
    fields = [record.__dict__["fields"] for record in caplog.records if record.message == "stage_completed"]
    assert {line["sessionId"] for line in fields} == {name}
    assert (fields[0]["confidence"], fields[0]["language"], fields[0]["is_food_related"]) == (0.9, "en", True)
    assert fields[0]["route"] == "CONTINUE"
    assert "a secret wish" not in str((logs, fields))


async def test_a_text_about_something_else_stops_at_the_gate() -> None:
    """After the gate has stopped a search no other stage runs; the state names the gate."""
    gate = {"isFoodRelated": False, "language": "en", "confidence": 0.95}
    async with ScriptedUpstream(*answers(gate)) as upstream, scripted(upstream) as client:
        name = await client.search("how do I fix my bike")
        state = await client.state(name, "answer")
        assert upstream.calls == 1
    assert (state["status"], state["stoppedAt"], state["answerRequestId"]) == ("stopped", "gate", None)
    assert [stage["status"] for stage in state["stages"]] == ["stopped"]


async def test_an_unsure_gate_lets_pass() -> None:
    """The gate stops a search only with a sufficient confidence."""
    gate = {"isFoodRelated": False, "language": "en", "confidence": 0.2}
    async with ScriptedUpstream(*answers(gate, INTENT, ANSWER)) as upstream, scripted(upstream) as client:
        state = await client.state(await client.search("something warm"), "end")
    assert state["status"] == "finished"


async def test_a_gate_out_of_time_fails_the_search() -> None:
    """When the gate fails, the outcome names the gate and the error."""
    silent = Reply(before=(Stall(),))
    food = FoodSettings(gate_timeout_ms=100)
    async with ScriptedUpstream(silent) as upstream, scripted(upstream, food) as client:
        state = await client.state(await client.search("pizza"), "end")
    assert (state["status"], state["stoppedAt"]) == ("failed", "gate")
    assert state["error"]["code"] == "deadline_exceeded"
    assert state["answerRequestId"] is None


async def test_an_intent_that_fails_is_done_without() -> None:
    """When the intent fails, the answer uses the text and the default region; the report keeps the error."""
    broken = say("no JSON at all")
    food = FoodSettings(gate_timeout_ms=50_000, default_region_code="FR")
    replies = (*answers(GATE), *[broken] * 3)
    async with ScriptedUpstream(*replies) as upstream, scripted(upstream, food) as client:
        state = await client.state(await client.search("pizza"), "end")
    intent = state["stages"][1]
    assert (intent["fallback"], intent["error"]["code"]) == (True, "schema_mismatch")
    assert state["regionCode"] == "FR"


async def test_the_region_of_the_text_goes_first() -> None:
    """The model's region is used if it is valid, and is passed to the answer."""
    intent = {"dish": "crêpe", "regionCode": "FR"}
    async with ScriptedUpstream(*answers(GATE, intent, ANSWER)) as upstream, scripted(upstream) as client:
        state = await client.state(await client.search("crêpes à Paris"), "end")
        assert "Region: FR" in upstream.received[2].body["messages"][1]["content"]
    assert state["regionCode"] == "FR"


async def test_without_route2_the_text_is_answered_straight_away() -> None:
    """The flag leaves out gate and intent."""
    async with ScriptedUpstream(*answers(ANSWER)) as upstream:
        async with scripted(upstream, FoodSettings(route2_enabled=False)) as client:
            state = await client.state(await client.search("pizza"), "end")
        assert upstream.calls == 1
    assert [stage["stage"] for stage in state["stages"]] == ["answer"]
    assert state["language"] is None


async def test_the_same_text_is_asked_once() -> None:
    """A second search for the same text makes no call, and each stage has the source ``cache``."""
    async with ScriptedUpstream(*answers(GATE, INTENT, ANSWER)) as upstream, scripted(upstream) as client:
        await client.state(await client.search("pizza"), "end")
        again = await client.state(await client.search("pizza"), "end")
        assert upstream.calls == 3
    assert [stage["source"] for stage in again["stages"]] == ["cache"] * 3


async def test_what_is_wrong_is_refused() -> None:
    """Bodies and ids are checked as everywhere in the service, and no tenant sees another tenant's search."""
    async with ScriptedUpstream(*answers(GATE)) as upstream, scripted(upstream, api_keys=f"{ADA},{BOB}") as client:
        session, url = client.session, f"{client.base}/search"
        async with session.post(url, json={"text": "pizza"}) as response:
            assert response.status == 401
        key = {"Authorization": f"Bearer {ADA}"}
        for body in ({}, {"text": ""}, {"text": "pizza", "more": 1}):
            async with session.post(url, json=body, headers=key) as response:
                assert (response.status, (await response.json())["code"]) == (400, "invalid_request")
        async with session.post(url, json={"text": "pizza"}, headers=key) as response:
            address = client.base + response.headers["Location"]
        for wait, who, status in (("", ADA, 200), ("", BOB, 404), ("long", ADA, 400)):
            params, headers = {"wait": wait}, {"Authorization": f"Bearer {who}"}
            async with session.get(address, params=params, headers=headers) as response:
                assert response.status == status


async def test_a_search_waits_for_its_model() -> None:
    """Its first stage begins when the model is there: the gate's timeout does not count before."""
    food = FoodSettings(route2_enabled=False)
    ready = asyncio.Event()
    async with ScriptedUpstream(*answers(ANSWER)) as upstream:
        options = load_settings(None, openai_api_key="made-up", openai_base_url=upstream.openai_url)
        async with open_container(options) as container:
            pipeline = food_pipeline(food, container.router, container.system)
            searches = Searches(container.system, pipeline, food, ready=ready)
            search = searches.begin("pizza", Caller())
            await container.gateway.ask(GetProviders(), timeout=5)  # the search has had its turns meanwhile
            assert (search.state().stages, upstream.calls) == ((), 0)
            ready.set()
            await search.ended.wait()
            assert search.state().status == "finished"


async def test_searches_are_bounded() -> None:
    """A new search replaces the oldest ended one, and never a running one."""
    food = FoodSettings(route2_enabled=False)
    async with ScriptedUpstream(*answers(ANSWER), Reply(before=(Stall(),))) as upstream:
        options = load_settings(None, openai_api_key="made-up", openai_base_url=upstream.openai_url)
        async with open_container(options) as container:
            pipeline = food_pipeline(food, container.router, container.system)
            searches = Searches(container.system, pipeline, food, limit=1)
            first = searches.begin("pizza", Caller())
            await first.ended.wait()
            second = searches.begin("soup", Caller())
            with pytest.raises(NotFound):
                searches.find(first.request_id, "")
            with pytest.raises(Overloaded):
                searches.begin("bread", Caller())
            assert searches.find(second.request_id, "").state().status == "running"


def test_the_settings_are_read_from_the_environment() -> None:
    """Each setting has a default, and its error names the valid values."""
    assert FoodSettings.of({}) == FoodSettings(route2_enabled=True, default_region_code="IL", gate_timeout_ms=900)
    changed = FoodSettings.of({"ROUTE2_ENABLED": "Off", "DEFAULT_REGION_CODE": "FR", "GATE_TIMEOUT_MS": "1500"})
    assert changed == FoodSettings(route2_enabled=False, default_region_code="FR", gate_timeout_ms=1500)
    for name, value in (("ROUTE2_ENABLED", "maybe"), ("DEFAULT_REGION_CODE", "fr"), ("GATE_TIMEOUT_MS", "0")):
        with pytest.raises(ConfigurationError, match=name):
            FoodSettings.of({name: value})


@contextmanager
def process(root: Path, cwd: Path, **settings: str) -> Iterator[tuple[str, Path]]:
    """Run the program as a reader does; yields its address and its log."""
    log = cwd / "log"
    command = [sys.executable, "-m", "examples.food_search"]
    variables = environment(root, PORT="0", LLM_PROVIDER="local", LOG_FORMAT="json", **settings)
    with log.open("w") as lines:
        running = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=lines, text=True, env=variables)  # noqa: S603 - our own example
        assert running.stdout is not None
        try:
            yield running.stdout.readline().strip(), log
        finally:
            running.terminate()
            running.wait()
            running.stdout.close()
    assert running.returncode == 0


@needs_local_model
async def test_the_program_with_the_local_model(root: Path, tmp_path: Path) -> None:
    """The first question is answered, though the model still loads, in the stages' types; the log has the calls."""
    with process(root, tmp_path, GATE_TIMEOUT_MS="50000") as (address, log):
        async with aiohttp.ClientSession() as session:
            client = Client(session, address)
            name = await client.search("Where can I eat a good pizza?")
            request_id = (await client.state(name, "answer"))["answerRequestId"]
            end = (await client.follow(request_id))[1] if request_id else None
            state = await client.state(name, "end")
    assert state["language"] in {"he", "en", "ru", "ar", "fr", "es", "other"}
    if end is None:
        assert (state["status"], state["stoppedAt"]) == ("stopped", "gate")
    else:
        assert (state["status"], state["answer"]) == ("finished", end["data"]["coreResult"]["text"])
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    calls = [line for line in lines if line["event"] == "provider_call"]
    assert [line["stage"] for line in calls] == [stage["stage"] for stage in state["stages"]]
    assert {(line["provider"], line["sessionId"], line["cost"]) for line in calls} == {("local", name, None)}
    assert all(line["tokens"]["output"] > 0 and line["durationMs"] > 0 for line in calls)


@needs_local_model
async def test_the_program_without_route2(root: Path, tmp_path: Path) -> None:
    """The local model's answer comes over the socket, piece by piece, and equals the answer in the state."""
    with process(root, tmp_path, ROUTE2_ENABLED="false") as (address, _log):
        async with aiohttp.ClientSession() as session:
            client = Client(session, address)
            name = await client.search("pizza near me")
            text, end = await client.follow((await client.state(name, "answer"))["answerRequestId"])
            state = await client.state(name, "end")
    assert json.loads(text) == end["data"]["coreResult"] == {"text": state["answer"]}
