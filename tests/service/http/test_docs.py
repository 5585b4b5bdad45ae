"""The API's documentation."""

from collections.abc import Awaitable, Callable
from typing import Any

from protocol.errors import PROBLEMS
from service.http.docs import OPERATIONS, openapi

Start = Callable[..., Awaitable[Any]]


def _references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(_references, value.values()))
    return set().union(*map(_references, value)) if isinstance(value, list) else set()


def test_every_reference_is_defined() -> None:
    """The document is self-contained."""
    document = openapi()
    schemas = document["components"]["schemas"]
    references = _references(document)
    assert references
    assert {reference.rpartition("/")[2] for reference in references} <= schemas.keys()


async def test_every_operation_that_is_described_is_there(start: Start) -> None:
    """The document and the application have the same routes."""
    running = await start()
    described = {(method.upper(), path) for method, path, *_ in OPERATIONS}
    for method, path in described:
        response = await running.client.request(method, path.replace("{id}", "req_none"), json={})
        problem = await response.json() if response.content_type == "application/problem+json" else {}
        assert problem.get("code") not in ("not_found", "method_not_allowed"), path


async def test_the_page_loads_nothing_from_elsewhere(start: Start) -> None:
    """The page needs neither a network nor a key."""
    running = await start(api_keys=())
    page = await (await running.client.get("/docs")).text()
    assert "/api/requests/{id}/events" in page
    assert "SubmitBody" in page
    for loading in ("src=", "<link", "<script", "@import", "url("):
        assert loading not in page
    assert (await (await running.client.get("/openapi.json")).json())["openapi"].startswith("3.1")


async def test_a_problems_type_explains_it(start: Start) -> None:
    """A problem's type leads to the remedy; an unknown code is 404."""
    running = await start()
    problem = await (await running.client.get("/nowhere")).json()
    explained = await running.client.get(problem["type"])
    assert explained.status == 200
    assert PROBLEMS["not_found"].remedy in await explained.text()
    assert (await running.client.get("/errors/nonsense")).status == 404
