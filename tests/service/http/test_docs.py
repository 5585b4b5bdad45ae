"""The API's documentation: the document, the page's files, and the explanations of errors."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from aiohttp import web

from protocol.errors import PROBLEMS
from service.http.docstrings import attributes_of, fields_of, opening_of
from service.http.openapi import openapi
from service.http.operations import operations_of
from service.server.app import add_surfaces

Start = Callable[..., Awaitable[Any]]


def _document() -> dict[str, Any]:
    app = web.Application()
    add_surfaces(app)
    return openapi(operations_of(app))


def _references(value: object) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(_references, value.values()))
    return set().union(*map(_references, value)) if isinstance(value, list) else set()


def test_every_reference_is_defined_and_every_component_used() -> None:
    """The document is self-contained, and has no schema, header or parameter that nothing uses."""
    document = _document()
    defined = {
        f"#/components/{kind}/{name}"
        for kind, components in document["components"].items()
        if kind != "securitySchemes"
        for name in components
    }
    assert _references(document) == defined


def test_what_is_private_in_the_code_has_a_public_name() -> None:
    """Schemas are named for a reader of the document: no underscores, no modules."""
    schemas = _document()["components"]["schemas"]
    assert [name for name in schemas if not re.fullmatch(r"[A-Z][A-Za-z0-9]+", name)] == []
    assert not any(
        "``" in schema["description"] or "Attributes:" in schema["description"] for schema in schemas.values()
    )


def test_every_field_of_a_native_body_is_described() -> None:
    """A field's description is its line in the struct's docstring."""
    schemas = _document()["components"]["schemas"]
    for name in (
        "SubmitBody",
        "RequestOptions",
        "PublishBody",
        "RequestState",
        "ChatBody",
        "MessageBody",
        "ResponseBody",
    ):
        for field, schema in schemas[name]["properties"].items():
            assert schema.get("description"), f"{name}.{field}"


def test_an_answers_fields_are_required_where_they_are_always_there() -> None:
    """A generated client need not ask whether a field is there that is never left out."""
    schemas = _document()["components"]["schemas"]
    assert set(schemas["Usage"]["required"]) == schemas["Usage"]["properties"].keys() - {"cacheWriteInputTokens"}
    assert "error" not in schemas["RequestState"]["required"]
    assert "options" not in schemas["SubmitBody"]["required"]


async def test_the_page_and_its_files_load_nothing_from_elsewhere(start: Start) -> None:
    """The page needs neither a network nor a key, and its policy forbids anything else."""
    running = await start(api_keys=())
    for path in ("/docs", "/web/docs.js", "/web/docs-examples.js", "/web/docs.css", "/errors/overloaded"):
        response = await running.client.get(path)
        text = await response.text()
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        for loading in re.findall(r"""(?:src|href)=["']([^"']*)|from ["']([^"']*)|@import ["']([^"']*)""", text):
            assert "".join(loading).startswith(("/", "data:")), (path, loading)
    assert (await (await running.client.get("/openapi.json")).json())["openapi"].startswith("3.1")


async def test_the_document_is_made_once(start: Start) -> None:
    """The second reader gets the same bytes; any page may load it."""
    running = await start()
    first, second = [await running.client.get("/openapi.json") for _ in range(2)]
    assert await first.read() == await second.read()
    assert first.headers["Access-Control-Allow-Origin"] == "*"


async def test_a_problems_type_explains_it(start: Start) -> None:
    """A problem's type leads to the remedy; an unknown code is 404."""
    running = await start()
    problem = await (await running.client.get("/nowhere")).json()
    explained = await running.client.get(problem["type"])
    assert explained.status == 200
    assert PROBLEMS["not_found"].remedy in await explained.text()
    assert (await running.client.get("/errors/nonsense")).status == 404


class _Base(msgspec.Struct):
    """A base.

    Attributes:
        one: of the base.
    """

    one: int


class _Derived(_Base):
    """What it is: a ``thing``.

    More of it, by
    :func:`opening_of`.

    Attributes:
        two: in
            two lines.
        three: in one.

    Raises:
        ValueError: never.
    """

    two: int
    three: int


@pytest.mark.parametrize("docstring", [None, "", "One line."])
def test_a_docstring_without_sections(docstring: str | None) -> None:
    """It has no attributes."""
    assert opening_of(docstring) == (docstring or "")
    assert attributes_of(docstring) == {}


def test_a_docstring_is_a_description() -> None:
    """The text before the sections is Markdown; attributes come with those of the bases."""
    assert opening_of(_Derived.__doc__) == "What it is: a `thing`.\n\nMore of it, by `opening_of`."
    assert fields_of(_Derived) == {"one": "of the base.", "two": "in two lines.", "three": "in one."}
