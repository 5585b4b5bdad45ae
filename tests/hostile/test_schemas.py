"""Schemas that are made to cost: each is refused before anything is compiled, or handled in a process of its own."""

import json
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from actors.llm_gateway import schema as schemas_module
from actors.llm_gateway.schema import QUICK_COMPILE, Schemas, Validator, check_schema
from actors.testing import ScriptedUpstream, say
from protocol.errors import InvalidRequest, SchemaMismatch, TidegateError
from protocol.json.pattern_cost import MOST, pattern_cost
from protocol.json.schema_cost import SchemaLimits, SchemaMeter
from tests.service.conftest import Start

MESSAGES: Final = [{"role": "user", "content": "hi"}]
WIDE: Final = r"(?i)[\p{L}\p{N}0]{100}"


def chain(links: int, word: str = "anyOf") -> dict[str, Any]:
    """Return a schema that looks at a value in ``2 ** links`` ways."""
    steps: dict[str, Any] = {
        f"a{n}": {word: [{"$ref": f"#/$defs/a{n + 1}"}, {"$ref": f"#/$defs/a{n + 1}"}]} for n in range(links)
    }
    return {"$defs": {**steps, f"a{links}": {"type": "integer"}}, "$ref": "#/$defs/a0"}


def growing() -> dict[str, Any]:
    """Return a schema whose work doubles with each level of an answer."""
    once = {"items": {"$ref": "#/$defs/n"}, "type": "array"}
    return {"$defs": {"n": {"anyOf": [once, dict(once)]}}, "$ref": "#/$defs/n"}


COMPLEX: Final[dict[str, dict[str, Any]]] = {
    "many large patterns": {"properties": {f"p{n}": {"pattern": WIDE} for n in range(500)}},
    "large patterns as names": {"patternProperties": {f"{WIDE}{n}": {} for n in range(500)}},
    "nested repetitions": {"pattern": "((a{1,100}){1,100}){1,100}"},
    "a chain of unions": chain(18),
    "a chain of all": chain(18, "allOf"),
    "a chain of one": chain(18, "oneOf"),
    "conditions": {"$defs": {f"a{n}": {"if": {"$ref": f"#/$defs/a{n + 1}"}, "then": {"$ref": f"#/$defs/a{n + 1}"}}
                             for n in range(18)} | {"a18": {}}, "$ref": "#/$defs/a0"},
    "a wide union": {"anyOf": [{"minimum": n} for n in range(2000)]},
    "a long enum": {"enum": list(range(100_000))},
    "many bytes": {"enum": ["x" * 600_000]},
    "many references": {"$defs": {"a": {}}, "properties": {f"p{n}": {"$ref": "#/$defs/a"} for n in range(6000)}},
}  # fmt: skip

STEP: Final = {
    "type": "object",
    "properties": {"explanation": {"type": "string"}, "output": {"type": "string"}},
    "required": ["explanation", "output"],
    "additionalProperties": False,
}
NODE: Final = {
    "type": "object",
    "properties": {
        "value": {},
        "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
    },
}
ORDINARY: Final[dict[str, dict[str, Any]]] = {
    "of OpenAI's documentation": {
        "type": "object",
        "properties": {"steps": {"type": "array", "items": STEP}, "final_answer": {"type": "string"}},
        "required": ["steps", "final_answer"],
        "additionalProperties": False,
    },
    "a tree": {"$defs": {"node": NODE}, "$ref": "#/$defs/node"},
    "patterns": {
        "properties": {
            "mail": {"type": "string", "pattern": r"^[^@\s]+@[^@\s]+\.[a-z]{2,24}$"},
            "id": {"pattern": "^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"},
            "name": {"pattern": r"^\p{L}+$"},
        }
    },
    "a password": {"pattern": r"^(?=.*\d)(?=.*[a-z]).{8,64}$"},
    "a discriminated union": {
        "anyOf": [
            {"type": "object", "properties": {"kind": {"const": f"k{n}"}, "value": {"type": "string"}}}
            for n in range(50)
        ]
    },
    "an enum of a thousand": {"enum": [f"option {n}" for n in range(1000)]},
    "a few hundred fields": {
        "type": "object",
        "properties": {f"field{n}": {"type": "string", "description": "x" * 200} for n in range(300)},
    },
}


@pytest.fixture
async def schemas() -> AsyncIterator[Schemas]:
    """The gateway's part; its process ends with the test."""
    made = Schemas()
    yield made
    await made.close()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The schemas that were compiled in this process."""
    done: list[dict[str, Any]] = []
    real = schemas_module.compile_schema

    def noted(schema: dict[str, Any]) -> Any:  # noqa: ANN401 - the library's
        done.append(schema)
        return real(schema)

    monkeypatch.setattr(schemas_module, "compile_schema", noted)
    return done


@pytest.mark.parametrize("name", list(COMPLEX))
def test_complex_schemas_are_refused_uncompiled(name: str, compiled: list[dict[str, Any]]) -> None:
    """The refusal costs no more values than the bound allows to be read."""
    meter = SchemaMeter()
    with pytest.raises(InvalidRequest) as caught:
        check_schema(COMPLEX[name], meter)
    assert caught.value.code == "schema_too_complex"
    assert caught.value.errors[0].path.startswith("$.schema")
    assert len(caught.value.errors[0].message) < 200
    assert meter.visited <= 2 * SchemaLimits().values
    assert compiled == []


@pytest.mark.parametrize("name", list(ORDINARY))
def test_ordinary_schemas_are_accepted(name: str, compiled: list[dict[str, Any]]) -> None:
    """What people send is compiled at once."""
    check_schema(ORDINARY[name])
    assert compiled == [ORDINARY[name]]


@pytest.mark.parametrize("surface", ["schema", "tool"])
async def test_no_surface_compiles_what_is_complex(
    start: Start, compiled: list[dict[str, Any]], upstream: ScriptedUpstream, surface: str
) -> None:
    """Not as the answer's form, nor as a tool's parameters, nor where tokens are only counted; nor over the socket."""
    running = await start()
    wide = COMPLEX["many large patterns"]
    tool = {"type": "function", "function": {"name": "f", "parameters": wide}}
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": wide}}
    own: dict[str, Any] = {"schema": wide} if surface == "schema" else {"tools": [{"name": "f", "parameters": wide}]}
    theirs: dict[str, Any] = {"response_format": form} if surface == "schema" else {"tools": [tool]}
    anthropic = {"model": "m", "max_tokens": 9, "messages": MESSAGES, "tools": [{"name": "f", "input_schema": wide}]}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("/api/requests", {"messages": MESSAGES, **own}),
        ("/v1/chat/completions", {"model": "m", "messages": MESSAGES, **theirs}),
        ("/v1/messages", anthropic),
        ("/v1/messages/count_tokens", anthropic),
    ]
    for path, body in calls:
        response = await running.client.post(path, json=body)
        assert response.status == 400, (path, await response.text())
        assert "patterns are too large" in await response.text(), path
    async with running.client.ws_connect("/ws") as socket:
        await socket.send_json({"type": "submit", "id": 1, "messages": MESSAGES, **own})
        frame = await socket.receive_json()
    assert frame["error"]["code"] == "schema_too_complex"
    assert compiled == []
    assert upstream.received == []


def test_tools_share_the_time(compiled: list[dict[str, Any]]) -> None:
    """Many schemas that are each quick to compile are not, together: the rest is only measured."""
    meter, left = SchemaMeter(), QUICK_COMPILE
    schema = {"properties": {f"p{n}": {"type": "string", "enum": [str(m) for m in range(5)]} for n in range(40)}}
    for _ in range(60):
        left -= check_schema(schema, meter, left)
    assert 0 <= left < QUICK_COMPILE
    assert 0 < len(compiled) < 60


async def test_work_that_grows_with_the_answer_ends(schemas: Schemas, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is done elsewhere, within a bound; the schema is known from then on, and costs nothing more."""
    monkeypatch.setattr("actors.llm_gateway.schema_worker.JOB_TIMEOUT", 0.5)
    schema = growing()
    validator = schemas.validator(schema)
    assert bytes(await schemas.validated("[[],[]]", validator)) == b"[[],[]]"
    with pytest.raises(InvalidRequest) as caught:
        await schemas.validated("[" * 40 + "1" + "]" * 40, validator)
    assert caught.value.code == "schema_too_complex"
    with pytest.raises(InvalidRequest):
        schemas.validator(schema)


async def test_errors_that_copy_a_long_text_are_made_elsewhere(schemas: Schemas) -> None:
    """A megabyte that breaks two thousand rules took 21 s and 8 GB; an ordinary long text is validated at once."""
    text = json.dumps("x" * 1_000_000)
    rules = schemas.validator({"allOf": [{"maxLength": n} for n in range(900)]})
    assert not rules.is_quick(text)
    assert schemas.validator({"type": "string", "maxLength": 9}).is_quick(text)
    with pytest.raises((SchemaMismatch, InvalidRequest)):
        await schemas.validated(text, rules)


async def test_backtracking_patterns_are_matched_elsewhere(schemas: Schemas) -> None:
    """Those that look around work; only not in this process."""
    validator = schemas.validator(ORDINARY["a password"])
    assert not validator.is_quick('"abcdefg1"')
    assert bytes(await schemas.validated('"abcdefg1"', validator)) == b'"abcdefg1"'
    with pytest.raises(SchemaMismatch) as caught:
        await schemas.validated('"short1"', validator)
    assert caught.value.errors[0].path == "$"
    assert caught.value.raw == '"short1"'


async def test_what_takes_long_to_compile_is_compiled_elsewhere(
    schemas: Schemas, compiled: list[dict[str, Any]]
) -> None:
    """And so are its faults found."""
    good = {"enum": [f"v{n}" for n in range(40_000)]}
    validator = schemas.validator(good)
    before = validator.checked
    await schemas.check(validator)
    assert (before, validator.checked) == (False, True)
    assert bytes(await schemas.validated('"v7"', validator)) == b'"v7"'
    bad = schemas.validator({**good, "minimum": "x"})
    with pytest.raises(InvalidRequest) as caught:
        await schemas.check(bad)
    assert (caught.value.code, caught.value.errors[0].path) == ("invalid_schema", "$.schema.minimum")
    assert compiled == []


async def test_a_dead_process_is_replaced(schemas: Schemas) -> None:
    """Whoever ended it: the next job starts another one."""
    validator = schemas.validator(ORDINARY["a password"])
    await schemas.validated('"abcdefg1"', validator)
    process = schemas._worker._process
    assert process is not None
    process.kill()
    await process.wait()
    assert await schemas.validated('"abcdefg1"', validator)


def test_refused_schemas_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes are known; what is kept is bounded in number and in bytes."""
    measured: list[int] = []
    real = SchemaMeter.measure

    def noted(meter: SchemaMeter, schema: Any, size: int, path: str = "$.schema") -> Any:  # noqa: ANN401 - as there
        measured.append(size)
        return real(meter, schema, size, path)

    monkeypatch.setattr(SchemaMeter, "measure", noted)
    schemas = Schemas(limit=3, max_bytes=2000)
    for _ in range(3):
        with pytest.raises(InvalidRequest):
            schemas.validator(chain(18))
    assert len(measured) == 1
    for number in range(9):
        schemas.validator({"title": "x" * 900, "minimum": number})
    assert schemas._bytes == sum(map(len, schemas._known)) <= 2000


async def test_whoever_may_not_ask_costs_nothing(start: Start, compiled: list[dict[str, Any]]) -> None:
    """A stranger is refused before the schema is looked at."""
    running = await start(api_keys=(SecretStr("a-key-of-16-chars"),))
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": ORDINARY["a tree"]}}
    body = {"model": "m", "messages": MESSAGES, "response_format": form}
    assert (await running.client.post("/v1/chat/completions", json=body)).status == 401
    assert compiled == []


async def test_an_answer_that_takes_too_long_is_the_callers_fault(
    start: Start, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """400 with a code; no other call is made, and the provider stays well."""
    monkeypatch.setattr("actors.llm_gateway.schema_worker.JOB_TIMEOUT", 0.5)
    upstream.script(say("[" * 40 + "1" + "]" * 40))
    running = await start()
    form = {"type": "json_schema", "json_schema": {"name": "s", "schema": growing()}}
    body = {"model": "m", "messages": MESSAGES, "response_format": form}
    response = await running.client.post("/v1/chat/completions", json=body)
    assert (response.status, (await response.json())["error"]["code"]) == (400, "schema_too_complex")
    assert len(upstream.received) == 1
    assert (await (await running.client.get("/api/health")).json())["status"] == "healthy"


PATTERNS: Final = st.text(st.sampled_from(r"ab[](){}^$.*+?|\pLdw0159,-:=!<>i"), max_size=40)
LEAVES: Final = st.one_of(
    st.fixed_dictionaries({"type": st.sampled_from(["integer", "string", "null", "array", "object"])}),
    st.fixed_dictionaries({"pattern": PATTERNS}),
    st.fixed_dictionaries({"$ref": st.sampled_from(["#", "#/$defs/a", "#/$defs/b", "#/nowhere", "#x", "http://x/y"])}),
    st.fixed_dictionaries({"enum": st.lists(st.integers() | st.text(max_size=3), max_size=4)}),
    st.booleans(),
    st.dictionaries(st.sampled_from(["format", "minimum", "required", "$id", "$dynamicRef", "uniqueItems"]),
                    st.integers(-3, 3) | st.text(max_size=4), max_size=2),
)  # fmt: skip
TREES: Final = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(["anyOf", "oneOf", "allOf", "prefixItems"]), st.lists(inner, max_size=3)),
        st.dictionaries(st.sampled_from(["items", "not", "if", "then", "propertyNames", "contains"]), inner),
        st.dictionaries(
            st.sampled_from(["properties", "patternProperties", "$defs", "dependentSchemas"]),
            st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
        ),
    ),
    max_leaves=12,
)


@given(TREES.filter(lambda tree: isinstance(tree, dict)), st.sampled_from(["1", '"a"', "[[1]]", '{"a":{"b":1}}', "x"]))
def test_any_schema_ends_in_a_validator_or_a_typed_error(schema: dict[str, Any], text: str) -> None:
    """And any answer in a result or a mismatch."""
    codes = set()
    try:
        validator = Validator(schema)
        if validator.is_quick(text):
            schemas_module.validated(text, validator)
    except TidegateError as error:
        codes = {error.code}
    assert codes <= {"invalid_schema", "schema_too_complex", "schema_mismatch"}


@given(PATTERNS)
def test_the_size_of_a_pattern_is_bounded_and_positive(pattern: str) -> None:
    """Whatever it looks like; a repetition never makes it smaller."""
    size = pattern_cost(pattern)
    assert 0 <= size <= 2 * MOST
    assert pattern_cost(f"(?:{'a' * 3}){{7}}") >= 7 * 3 > 0


def test_the_measure_reads_each_value_once() -> None:
    """Linear in the schema: shared subschemas and cycles are not unfolded."""
    schema = chain(12)
    meter = SchemaMeter()
    cost = meter.measure(schema, len(json.dumps(schema)))
    assert meter.visited < 200
    assert cost.subschemas < 60
    assert cost.steps >= 2**12
