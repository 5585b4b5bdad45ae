"""The OpenAPI 3.1 document of an application's operations, with the schemas of their structs."""

from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final, get_args

from protocol.anthropic.answer import error_status
from protocol.errors import PROBLEMS, TidegateError
from service.auth.origins import SOCKET
from service.auth.permissions import scope_of
from service.http.operations import EVENTS, JSON, TAGS, Answer, Body, Operation, Parameter
from service.http.schemas import SCHEMA, name_of, schemas_of
from service.middleware.access import PROBES, PUBLIC, is_new_work
from service.middleware.errors import ANTHROPIC, COMPATIBLE, NO_RETRY, SHARED
from service.middleware.limits import is_free

HEADER: Final = "#/components/headers/"
PARAMETER: Final = "#/components/parameters/"
DESCRIPTION: Final = """\
A gateway for language models whose requests outlive their connections: submit a request, follow it, disconnect, and go
on at the same place. OpenAI's and Anthropic's SDKs work unchanged under `/v1/`.

Every answer has an `x-request-id` and an `x-trace-id`. A failure of a native operation is `application/problem+json`
with a `code` and a `remedy`; under `/v1/` it has the vendor's envelope with the same code. `/errors/{code}` explains
each code. Native bodies are strict: an unknown field is an error. Under `/v1/` unknown fields are passed on to the
vendor's upstreams or ignored, as the vendor does.
"""
ANYTIME: Final = ("internal_error",)
WITH_KEY: Final = ("unauthenticated", "invalid_token", "token_expired", "auth_unavailable")
FROM_PAGES: Final = ("host_not_allowed", "origin_not_allowed")
OPEN: Final = PUBLIC | PROBES
WITH_BODY: Final = ("invalid_request", "malformed_json", "body_too_large", "too_many_values", "unsupported_media_type")
COMMON_HEADERS: Final = ("x-request-id", "x-trace-id")
LIMITED: Final = ("rate_limited", "limits_unavailable")
DURATION: Final = {"pattern": "^([0-9]+h)?([0-9]+m)?[0-9]+s$"}
NUMBER: Final = {"pattern": "^[0-9]+$"}
LEFT: Final = {
    "Limit": "The most calls in a window of the limit that has the least left.",
    "Remaining": "What is left of it.",
    "Reset": "When all of it is there again, in Unix seconds.",
}
UNITS: Final = {
    unit: {
        "limit": f"The most {unit} in a window of the limit that has the least left.",
        "remaining": "What is left of it.",
        "reset": "When all of it is there again.",
    }
    for unit in ("requests", "tokens")
}
LIMIT_HEADERS: Final = (
    *("RateLimit", "RateLimit-Policy", *(f"X-RateLimit-{part}" for part in LEFT)),
    *(f"x-ratelimit-{part}-{unit}" for unit, parts in UNITS.items() for part in parts),
    *(f"anthropic-ratelimit-{unit}-{part}" for unit, parts in UNITS.items() for part in parts),
)
"""The headers of the answers to a limited caller."""
HEADERS: Final[Mapping[str, tuple[str, Mapping[str, Any]]]] = {
    "x-request-id": ("The id of the call: the caller's own, or the id of the request that it submitted.", {}),
    "x-trace-id": ("The id of the call's trace.", {"pattern": "^[0-9a-f]{32}$"}),
    "x-tidegate-source": (
        "Where the answer comes from: a provider, the cache, or an identical request that was running.",
        {"enum": ["upstream", "cache", "joined"]},
    ),
    "x-tidegate-attempts": ("The number of calls to providers.", {"pattern": "^[0-9]+$"}),
    "x-tidegate-overhead-ms": ("Milliseconds spent in the service itself.", {"pattern": r"^[0-9]+\.[0-9]+$"}),
    "x-tidegate-cost-usd": ("The cost in US dollars, where it is known.", {"pattern": r"^[0-9]+(\.[0-9]+)?$"}),
    "x-tidegate-warning": ("What was left out of the call.", {}),
    "Location": ("The path of the request's state.", {}),
    "Idempotent-Replayed": ("The `Idempotency-Key` had been used for this before.", {"enum": ["true"]}),
    "Retry-After": ("Seconds to wait before another try, where they are known.", {"pattern": "^[1-9][0-9]*$"}),
    "WWW-Authenticate": ("How to authenticate.", {}),
    "x-should-retry": ("`false` where a repetition by the SDK does not help.", {"enum": ["false"]}),
    "request-id": ("The same as `x-request-id`, as Anthropic names it.", {}),
    "RateLimit": ("What is left of each limit of a limited caller: `r` now, all of it after `t` seconds.", {}),
    "RateLimit-Policy": ("The limits of a limited caller: `q` in `w` seconds.", {}),
    **{f"X-RateLimit-{part}": (text, NUMBER) for part, text in LEFT.items()},
    **{
        f"x-ratelimit-{part}-{unit}": (
            text,
            DURATION if part == "reset" else NUMBER,
        )
        for unit, texts in UNITS.items()
        for part, text in texts.items()
    },
    **{
        f"anthropic-ratelimit-{unit}-{part}": (text, {"format": "date-time"} if part == "reset" else NUMBER)
        for unit, texts in UNITS.items()
        for part, text in texts.items()
    },
    "ETag": ("The version of the file.", {}),
}
PARAMETERS: Final = (
    Parameter(
        name="x-request-id",
        place="header",
        text="A name for this call: 1 to 128 letters, digits and `._:+/=@-`. Any other value is ignored.",
    ),
    Parameter(
        name="traceparent", place="header", text="The caller's trace (W3C Trace Context). Any other value is ignored."
    ),
)
"""The parameters of every operation under ``/api`` and ``/v1``."""
KEYS: Final = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key, or a token of the issuer that the service trusts.",
    },
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "An API key, or a token."},
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "For the socket only: a ticket of `POST /api/tickets`.",
    },
}

EVENT: Final = {
    "type": "object",
    "required": ["data"],
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
}
"""A server-sent event of a vendor's stream; OpenAPI 3.2 will have a member for it."""


def openapi(operations: Sequence[Operation], *, keys: bool = True) -> dict[str, Any]:
    """Return the document of ``operations``; with ``keys`` the caller has to authenticate.

    Raises:
        ValueError: two operations have one name, or two schemas that differ have one.
    """
    names = [operation.name for operation in operations]
    if len(set(names)) != len(names):
        raise ValueError(f"operation names must be unique, got {sorted(names)}")
    schemas = schemas_of(operations)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.template, {})[operation.method.lower()] = _operation(operation, keys=keys)
    used = {operation.tag for operation in operations}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate",
            "version": "1",
            "summary": "Requests that outlive their connections.",
            "description": DESCRIPTION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This service."}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items() if name in used],
        "paths": paths,
        "x-errors": {
            code: {
                "status": problem.status,
                "title": problem.title,
                "remedy": problem.remedy,
                "temporary": problem.temporary,
                **({"close": problem.close} if problem.close else {}),
            }
            for code, problem in PROBLEMS.items()
        },
        "components": {
            "schemas": schemas,
            "parameters": {parameter.name: _parameter(parameter) for parameter in PARAMETERS},
            "headers": {name: _header(name) for name in HEADERS},
            "securitySchemes": KEYS,
        },
    }


def codes_of(operation: Operation) -> tuple[str, ...]:
    """Return the codes of an operation's failures, in the order of the table of errors."""
    route = operation.template
    codes = {*operation.errors, *ANYTIME}
    if route not in PROBES:
        codes.update(FROM_PAGES)
    if route not in OPEN:
        codes.update(WITH_KEY)
        if scope_of(route) is not None:
            codes.add("forbidden")
    if operation.body is not None:
        codes.update(WITH_BODY)
    if operation.parameters and route.startswith(("/api/", "/v1/")) and _constrained(operation.parameters):
        codes.add("invalid_request")
        if not is_free(operation.method, route):
            codes.update(LIMITED)
    if is_new_work(operation.method, route):
        codes.add("shutting_down")
    return tuple(code for code in PROBLEMS if code in codes)


# ------------------------------------------------------------------------------------------------------- operations


def _operation(operation: Operation, *, keys: bool) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
    }
    scope = None if operation.template in OPEN else scope_of(operation.template)
    text = [operation.text, f"Needs the scope `{scope}`." if scope else ""]
    if any(text):
        described["description"] = "\n\n".join(part for part in text if part)
    parameters = list(map(_parameter, operation.parameters))
    if operation.template.startswith(("/api/", "/v1/")):
        parameters += [{"$ref": PARAMETER + parameter.name} for parameter in PARAMETERS]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        described["requestBody"] = _body(operation.body)
    described["responses"] = _responses(operation)
    described["security"] = _security(operation.template, keys=keys)
    return described | dict(operation.extra)


def _security(route: str, *, keys: bool) -> list[dict[str, list[str]]]:
    """Return who may call. A socket may authenticate by its first frame."""
    if route in PUBLIC:
        return []
    schemes: list[dict[str, list[str]]] = [{"bearer": []}, {"key": []}]
    if route == SOCKET:
        schemes.append({"ticket": []})
    return schemes if keys and route != SOCKET and route not in PROBES else [*schemes, {}]


def _parameter(parameter: Parameter) -> dict[str, Any]:
    described: dict[str, Any] = {"name": parameter.name, "in": parameter.place, "description": parameter.text}
    if parameter.place == "path":
        described["required"] = True
    described["schema"] = dict(parameter.schema)
    if parameter.example is not None:
        described["example"] = parameter.example
    return described


def _constrained(parameters: Iterable[Parameter]) -> bool:
    return any(parameter.schema.keys() - {"type", "minLength"} for parameter in parameters)


def _body(body: Body) -> dict[str, Any]:
    content = {"schema": {"$ref": SCHEMA + name_of(body.kind)}, "example": body.example}
    return {"required": body.required, "content": {JSON: content}}


def _responses(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    limited = {} if operation.template in OPEN else {name: {"$ref": HEADER + name} for name in LIMIT_HEADERS}
    for answer in operation.answers:
        found = responses.setdefault(
            str(answer.status), {"description": answer.text, "headers": _header_references(answer) | limited}
        )
        if found["description"] != answer.text:
            found["description"] += " " + answer.text
        found["headers"] |= _header_references(answer)
        content = _content(answer)
        if content:
            found.setdefault("content", {}).update(content)
    for status, codes in sorted(_failures(operation).items()):
        failure = _failure(operation.template, status, codes)
        ours = responses.setdefault(str(status), failure)
        if ours is not failure:  # such as a probe's 503
            ours["description"] += "\n\n" + failure["description"]
            ours.setdefault("content", {}).update(failure["content"])
    return responses


def _header_references(answer: Answer) -> dict[str, Any]:
    return {name: {"$ref": HEADER + name} for name in (*COMMON_HEADERS, *answer.headers)}


def _content(answer: Answer) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if answer.kind is not None:
        kinds = get_args(answer.kind) or (answer.kind,)
        references = [{"$ref": SCHEMA + name_of(kind)} for kind in kinds]
        content[JSON] = {"schema": references[0] if len(references) == 1 else {"anyOf": references}}
    for media in (answer.media,) if isinstance(answer.media, str) else answer.media:
        content[media] = {"schema": {"type": "object" if media == JSON else "string"}}
    if answer.media == EVENTS:
        content[EVENTS]["x-itemSchema"] = dict(answer.event or EVENT)
    return content


def _failures(operation: Operation) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    anthropic = operation.template.startswith((ANTHROPIC, SHARED))
    openai = not operation.template.startswith(ANTHROPIC)
    for code in codes_of(operation):
        status = PROBLEMS[code].status
        statuses = {status} if openai else set()
        if anthropic:
            statuses.add(error_status(TidegateError(code=code), status))
        for one in statuses:
            found.setdefault(one, []).append(code)
    return found


def _failure(route: str, status: int, codes: Sequence[str]) -> dict[str, Any]:
    names = list(COMMON_HEADERS)
    if status == HTTPStatus.TOO_MANY_REQUESTS and "rate_limited" in codes:
        names.extend(LIMIT_HEADERS)
    if any(PROBLEMS[code].temporary for code in codes):
        names.append("Retry-After")
    if status == HTTPStatus.UNAUTHORIZED:
        names.append("WWW-Authenticate")
    if route.startswith(COMPATIBLE) and not NO_RETRY.isdisjoint(codes):
        names.append("x-should-retry")
    if route.startswith((ANTHROPIC, SHARED)):
        names.append("request-id")
    lines = "\n".join(f"- [`{code}`](/errors/{code}): {PROBLEMS[code].title}" for code in codes)
    return {
        "description": lines,
        "headers": {name: {"$ref": HEADER + name} for name in names},
        "content": _envelope(route),
        "x-codes": list(codes),
    }


def _envelope(route: str) -> dict[str, Any]:
    """Return the content of a failure: a problem, or the vendor's envelope."""
    if not route.startswith(COMPATIBLE):
        return {"application/problem+json": {"schema": {"$ref": f"{SCHEMA}ProblemBody"}}}
    openai, anthropic = {"$ref": f"{SCHEMA}OpenAIError"}, {"$ref": f"{SCHEMA}AnthropicError"}
    if route.startswith(SHARED):
        return {JSON: {"schema": {"anyOf": [openai, anthropic]}}}
    return {JSON: {"schema": anthropic if route.startswith(ANTHROPIC) else openai}}


def _header(name: str) -> dict[str, Any]:
    text, schema = HEADERS[name]
    return {"description": text, "required": name in COMMON_HEADERS, "schema": {"type": "string", **schema}}
