"""The document of ``/openapi.json`` against the service: both agree on what is accepted, refused and answered."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Self

import hypothesis
import pytest
import requests
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from actors.testing import ScriptedUpstream
from protocol.errors import PROBLEMS
from service.config.settings import load_settings
from service.container import open_container
from service.http.openapi import codes_of, openapi
from service.http.operations import EVENTS, JSON, TAGS, Answer, Operation, add_operations, operations_of
from service.http.schemas import VENDORS
from service.server.app import add_surfaces, build_app
from service.server.server import listening

Start = Callable[..., Awaitable[Any]]

EXAMPLES: Final = 10  # for each operation and mode; half as many for the vendors' bodies, which take long to make
SEED: Final = 20
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
SUBMISSION: Final = {"messages": [{"role": "user", "content": "hi"}]}


def _operations() -> tuple[Operation, ...]:
    app = web.Application()
    add_surfaces(app)
    return operations_of(app)


def _described() -> Any:  # noqa: ANN401 - a schema of schemathesis
    """Return the document for schemathesis: a stream's events have the member of OpenAPI 3.2."""
    document = openapi(OPERATIONS, keys=False)
    for methods in document["paths"].values():
        for operation in methods.values():
            for response in operation["responses"].values():
                content = response.get("content", {})
                if EVENTS in content:
                    content[EVENTS] = {"schema": content[EVENTS]["x-itemSchema"]}
    return schemathesis.openapi.from_dict(document)


def _is_constrained(operation: Operation) -> bool:
    """Whether there is anything to be wrong in a call of an operation."""
    free = {"type", "minLength"}
    return bool(operation.body) or any(parameter.schema.keys() - free for parameter in operation.parameters)


OPERATIONS: Final = _operations()
DOCUMENT: Final = openapi(OPERATIONS)
DESCRIBED: Final = _described()
CALLS: Final = [
    pytest.param(operation, mode, id=f"{operation.name}-{mode.value}")
    for operation in OPERATIONS
    for mode in GenerationMode
    if mode is GenerationMode.POSITIVE or _is_constrained(operation)
]
BOUNDS: Final = [
    (name, bound, limits[bound], step)
    for name, schema in DOCUMENT["components"]["schemas"]["RequestOptions"]["properties"].items()
    for limits in (schema, *schema.get("anyOf", ()))
    for bound, step in (("minimum", -1), ("maximum", 1))
    if bound in limits
]


def _example_of(operation: Operation) -> str:
    """Return an operation's path with the examples of its parameters."""
    path = operation.template
    for parameter in operation.parameters:
        path = path.replace(f"{{{parameter.name}}}", str(parameter.example))
    return path


class Server:
    """The service without keys, on a loop and in a thread of its own, in front of a scripted model."""

    def __init__(self) -> None:
        self.address = ""
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *exit_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        async with ScriptedUpstream() as upstream:
            settings = load_settings(None, port=0, openai_api_key="k", openai_base_url=upstream.openai_url)
            async with open_container(settings) as container, listening(container) as (_, self.address):
                container.lifecycle.serve()
                self._ready.set()
                await self._stop.wait()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The address of the service."""
    with Server() as server:
        yield server.address


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """A client that keeps its connection."""
    with requests.Session() as session:
        yield session


@pytest.fixture(scope="module")
def known(address: str, session: requests.Session) -> str:
    """The id of a request that has ended."""
    request_id = session.post(f"{address}/api/requests", json=SUBMISSION, timeout=10).json()["requestId"]
    assert "event: complete" in session.get(f"{address}/api/requests/{request_id}/events", timeout=10).text
    return str(request_id)


@pytest.mark.parametrize(("operation", "mode"), CALLS)
def test_the_service_does_what_the_document_says(
    address: str, session: requests.Session, known: str, operation: Operation, mode: GenerationMode
) -> None:
    """Statuses, content types, headers and bodies are as described; what violates the description is refused."""
    examples = EXAMPLES // 2 if operation.body and operation.body.vendor else EXAMPLES
    described = DESCRIBED[operation.template][operation.method]
    cases = described.as_strategy(generation_mode=mode)
    if "{id}" in operation.template and mode is GenerationMode.POSITIVE:
        cases = cases | described.as_strategy(generation_mode=mode, path_parameters={"id": known})

    @hypothesis.settings(max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @hypothesis.seed(SEED)
    @hypothesis.given(case=cases, accepted=st.sampled_from(["*/*", JSON]))
    def agree(case: "Case[Any]", accepted: str) -> None:
        response = case.call(base_url=address, session=session, headers={"Accept": accepted}, timeout=10)
        case.validate_response(response, checks=CHECKS)

    agree()


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.body], ids=lambda operation: operation.name)
def test_a_documented_body_is_accepted(address: str, session: requests.Session, operation: Operation) -> None:
    """Each example works as it stands; an unknown field is an error on native paths, and none on the vendors'."""
    assert operation.body is not None
    path = _example_of(operation)
    answer = session.request(operation.method, address + path, json=operation.body.example, timeout=10)
    assert answer.status_code in {one.status for one in operation.answers}, answer.text
    changed = {**operation.body.example, "of_tomorrow": 1}
    answer = session.request(operation.method, address + path, json=changed, timeout=10)
    if operation.body.vendor:
        assert answer.ok, answer.text
    else:
        assert answer.status_code == 400
        assert [fault["path"] for fault in answer.json()["errors"]] == ["$.of_tomorrow"]


@pytest.mark.parametrize(("name", "bound", "value", "step"), BOUNDS)
def test_a_bound_is_the_first_value_that_is_valid(
    address: str, session: requests.Session, name: str, bound: str, value: int, step: int
) -> None:
    """The bounds in the document are those of the validation."""
    good = session.post(f"{address}/api/requests", json=SUBMISSION | {"options": {name: value}}, timeout=10)
    assert good.status_code == 202, good.text
    bad = session.post(f"{address}/api/requests", json=SUBMISSION | {"options": {name: value + step}}, timeout=10)
    assert bad.status_code == 400
    assert f"$.options.{name}" in bad.text


async def test_every_route_is_described(start: Start) -> None:
    """The application has no route that is not in the document, and none besides."""
    app = build_app((await start()).container)
    routes = {
        (route.method, route.resource.canonical)
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert routes == {(operation.method, operation.template) for operation in OPERATIONS}
    assert routes == {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}


def test_every_description_is_whole() -> None:
    """Each operation has a sentence and a known group; its path's parameters, its codes and its vendor are known."""
    for operation in OPERATIONS:
        assert operation.summary.endswith("."), operation.name
        assert operation.tag in TAGS, operation.name
        places = [part[1:-1] for part in operation.template.split("/") if part.startswith("{")]
        assert places == [one.name for one in operation.parameters if one.place == "path"], operation.name
        assert set(operation.errors) <= PROBLEMS.keys(), operation.name
        assert operation.body is None or operation.body.vendor in {"", *VENDORS}, operation.name
        assert all(one.example for one in operation.parameters if one.place == "path"), operation.name
    for name, schema in DOCUMENT["components"]["schemas"].items():
        assert schema["description"] or name.startswith(("Chat", "Response", "Message")), name


async def test_who_may_call_is_what_the_document_says(start: Start) -> None:
    """Without a key the operations without security answer, and the others say 401, as described."""
    running = await start(api_keys=(SecretStr("one"),))
    document = await (await running.client.get("/openapi.json")).json()
    for operation in OPERATIONS:
        described = document["paths"][operation.template][operation.method.lower()]
        if operation.template == "/ws" or operation.template.startswith("/api/health"):
            assert {} in described["security"]  # a socket by its first frame; a prober sees less without a key
            continue
        async with running.client.request(operation.method, _example_of(operation)) as response:
            assert (response.status == 401) == bool(described["security"]), operation.name
            assert {} not in described["security"]
            assert ("401" in described["responses"]) == bool(described["security"])


def test_two_operations_of_one_name_are_a_mistake() -> None:
    """A generated client needs a name for each operation."""
    operation = Operation("GET", "/x", name="x", tag="Pages", summary="X.", answers=(Answer(200, "Done."),))
    with pytest.raises(ValueError, match="must be unique"):
        openapi((operation, operation))


async def _nothing(_request: web.Request) -> web.Response:
    return web.Response()


@pytest.mark.parametrize(("media", "methods"), [("", {"GET", "HEAD"}), (EVENTS, {"GET"})])
def test_a_get_has_its_head_unless_it_streams(media: str, methods: set[str]) -> None:
    """A stream of events is not opened for its headers."""
    app = web.Application()
    answers = (Answer(200, "Done.", media=media),)
    add_operations(app, Operation("GET", "/x", name="x", tag="Pages", summary="X.", answers=answers)(_nothing))
    assert {route.method for route in app.router.routes()} == methods


def test_failures_follow_from_access_and_body() -> None:
    """An operation names only the failures that are its own."""
    (submit,) = [operation for operation in OPERATIONS if operation.name == "submitRequest"]
    codes = codes_of(submit)
    assert {"unauthenticated", "forbidden", "malformed_json", "body_too_large", "shutting_down"} <= set(codes)
    (live,) = [operation for operation in OPERATIONS if operation.name == "getLiveness"]
    assert codes_of(live) == ("internal_error",)
