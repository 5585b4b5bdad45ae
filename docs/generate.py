"""Writes the pages that are made from the code: ``python docs/generate.py``. A test checks that they are current."""  # noqa: INP001 - a script

import re
import sys
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
ERRORS_HEAD: Final = """\
# Errors

Every failure has a code. The table below is generated from `protocol/errors.py` by `python docs/generate.py`; it is the
same for every surface.

On the native endpoints an error is `application/problem+json` with `type`, `title`, `status`, `code`, `detail`,
`remedy`, `requestId`, `traceId`, and where they apply `retryAfterMs` and `errors` (a `path` and a `message` for each
wrong field). On `/v1/` an error has OpenAI's envelope, with the same `code`; on `/v1/messages` it has Anthropic's
envelope, with the code in `details.error_code`, and status 529 for overload. On the socket an error is an `error`
frame: with `terminal` it ends the request, otherwise it refuses one frame. An error never contains a stack trace, a
secret or an upstream's body.

Where an upstream refuses the request itself (`provider_rejected`, `context_length_exceeded`, `content_policy`,
`bad_tool_schema`, `model_not_found`), the message ends with its reason: one line of at most 300 characters, without
control characters, keys, tokens, addresses of hosts inside, paths, markup or stack traces. `context_length_exceeded` is
said in the words that agents look for: "This model's maximum context length is N tokens. However, your messages
resulted in M tokens." for OpenAI's clients, "prompt is too long: M tokens > N maximum" for Anthropic's, as far as the
upstream gives the numbers; without them in the upstream's own words.

The operator's faults, `provider_billing` and `provider_credentials`, carry no word of the upstream's: a warning in the
log names the provider, the model, the upstream's status and the reason, once a minute for each provider and code, and
so for a model that the provider lacks. A 404 that names no model is `provider_bad_response`: an address is wrong, not
the request.

`local_model_failed` says what mends it, and no request is tried again. The reason, such as an import error, is in the
log only (`model_failed`).

*Looked for as* has the names that classes of such errors often have elsewhere; those that have no row here (yet) are in
[names.md](names.md).

*Temporary* means that the same request may succeed later; if the service knows when, it says so in `Retry-After` and
`retryAfterMs`. *Close* is the code with which the failure closes a WebSocket, if it closes one.

"""
SETTINGS_HEAD: Final = """\
# Settings

Each setting is an environment variable, or a line of a file `.env` in the working directory; the environment overrides
the file. An empty value is the same as no value. `.env.example` is a template. The table is generated from
`service/config/settings.py` by `python docs/generate.py`.

In `.env` a line is `NAME=value`, in any case, with or without `export`, quotes and a comment at its end; of a repeated
name the last line counts. Lists are separated by commas. Numbers have no unit: a name says whether they are seconds or
bytes.

The start logs which files were read (`settings_read`), and each line of `.env` that has no effect (`setting_ignored`):
a name that no setting has, with the nearest one, a name that is set again, a line that can't be read. A line that can't
be read and that begins with a setting's name, and a value that a setting can't have, keep the service from starting.
All faults are said at once, those of [`tidegate.toml`](routes.md) too, each with its file, line and key, and never with
a value.

`tidegate check` reads the same files without starting anything and without a network call. It prints every fault and
ends with 1, or prints what would be served, each provider with its base URL, and ends with 0.

"""

# What such errors are often called elsewhere, by the code that stands for them here.
LOOKED_FOR: Final = {
    "invalid_request": ("ValidationError",),
    "not_found": ("NotFoundError",),
    "idempotency_key_reused": ("ConflictError",),
    "unauthenticated": ("AuthenticationError",),
    "forbidden": ("AuthorizationError",),
    "rate_limited": ("RateLimitError",),
    "budget_exceeded": ("PlanLimitExceededError",),
    "unreachable": ("NetworkError",),
    "provider_unavailable": ("ExternalAPIError", "ExternalServiceError"),
    "provider_error": ("AIAPIError",),
    "provider_billing": ("AIQuotaExceededError",),
    "deadline_exceeded": ("TimeoutError",),
    "configuration_error": ("ConfigurationError", "InitializationError"),
    "internal_error": ("SystemError",),
}

FRAMES_HEAD: Final = """\
# Frames

The frames that a client may send over `/ws`; [websocket.md](websocket.md) says what the service does with them. A
field that is not in these tables is an error; a field in bold is required. Generated from
`protocol/websocket/commands.py` by `python docs/generate.py`.

"""


LIMITS_HEAD: Final = """\
# Limits

Every bound of the service: its default, the setting that changes it, whose share it is, and what happens at it. A code
is a row of [errors.md](errors.md), here with its status, or with the code that closes a socket. Generated from
`service/limits/` by `python docs/generate.py`.

No tenant can take what is another's. Of each bound that tenants share, a tenant has a floor: the bound divided by
`MAX_TENANTS`, whatever others do. Above its floor it borrows what is free. How that is given back depends on the table
([0035](decisions/0035-fair-shares.md)):

* *Borrowed room is taken back*: where the table is full, the tenant that is furthest above its floor loses its oldest
  row. One tenant alone has all of the bound.
* *Room is kept for the others' floors*: rows that can't be taken back. A tenant above its floor leaves free what the
  tenants of the configured keys have left of theirs, and one floor more where tokens name tenants; never more than
  half of the bound. With more than `MAX_TENANTS` / 2 such tenants the floor is half of the bound divided by them.
  Without keys there is one tenant, which has all.
* *The tenants that exist, evenly*: each has the bound divided by them, and nobody borrows.

Callers that have not authenticated are together one tenant.

"""


def errors() -> str:
    """Return the page of errors."""
    from protocol.errors import PROBLEMS  # noqa: PLC0415 - the path is set first

    rows = [
        "| code | status | close | temporary | means | what to do | looked for as |",
        "|---|---|---|---|---|---|---|",
    ]
    for code, problem in PROBLEMS.items():
        cells = (
            f"`{code}`",
            str(problem.status),
            str(problem.close or ""),
            "yes" if problem.temporary else "",
            problem.title,
            problem.remedy,
            ", ".join(f"`{name}`" for name in LOOKED_FOR.get(code, ())),
        )
        rows.append(_row(cells))
    return ERRORS_HEAD + "\n".join(rows) + "\n"


def settings() -> str:
    """Return the page of settings."""
    from service.config.settings import Settings  # noqa: PLC0415 - the path is set first
    from service.http.docstrings import attributes_of  # noqa: PLC0415 - the same

    texts = attributes_of(Settings.__doc__)
    rows = ["| variable | default | |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default in (None, "", ()) else f"`{field.default}`"
        rows.append(_row((f"`{name.upper()}`", default, _as_variables(texts[name]))))
    return SETTINGS_HEAD + "\n".join(rows) + "\n"


def limits() -> str:
    """Return the page of limits."""
    from protocol.errors import PROBLEMS  # noqa: PLC0415 - the path is set first
    from service.limits.table import GROUPS  # noqa: PLC0415 - the same

    parts: list[str] = []
    for group, bounds in GROUPS.items():
        rows = ["| bound | default | setting | whose share | what happens at it |", "|---|---|---|---|---|"]
        for bound in bounds:
            amount = f"{bound.default:,.0f}" if bound.default == int(bound.default) else str(bound.default)
            at = bound.at
            if bound.code:
                problem = PROBLEMS[bound.code]
                closes = "closed" in bound.at and problem.close
                at += f" (`{bound.code}`, {problem.close if closes else problem.status})"
            setting = f"`{bound.setting.upper()}`" if bound.setting else ""
            rows.append(_row((bound.name, f"{amount} {bound.unit}".strip(), setting, bound.share, at)))
        parts.append(f"## {group}\n\n" + "\n".join(rows) + "\n")
    return LIMITS_HEAD + "\n".join(parts)


def frames() -> str:
    """Return the page of the client's frames."""
    import msgspec  # noqa: PLC0415 - as below

    from protocol.websocket.commands import CLIENT_FRAMES  # noqa: PLC0415 - the path is set first
    from service.http.docstrings import fields_of  # noqa: PLC0415 - the same

    parts: list[str] = []
    for kind in CLIENT_FRAMES:
        texts = fields_of(kind)
        (schema,), components = msgspec.json.schema_components([kind], ref_template="{name}")
        parts.append(f"## `{kind.__struct_config__.tag}`\n\n{_opening(kind.__doc__ or '')}\n")
        rows = ["| field | | |", "|---|---|---|"]
        wire = components[schema["$ref"]]["properties"]
        for field in msgspec.structs.fields(kind):
            name = f"**`{field.encode_name}`**" if field.required else f"`{field.encode_name}`"
            rows.append(_row((name, _kind_of(wire[field.encode_name]), texts.get(field.name, "").replace("``", "`"))))
        parts.append("\n".join(rows) + "\n")
    return FRAMES_HEAD + "\n".join(parts)


PAGES: Final = {"errors.md": errors, "frames.md": frames, "limits.md": limits, "settings.md": settings}


def main() -> None:
    """Write every page."""
    for name, page in PAGES.items():
        (HERE / name).write_text(page(), encoding="utf-8")


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _opening(docstring: str) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return " ".join(docstring.partition("\n\n")[0].split()).replace("``", "`")


def _kind_of(schema: dict[str, Any]) -> str:
    """Return the type of a JSON Schema, in a word or two."""
    if "anyOf" in schema:
        return " or ".join(_kind_of(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "$ref" in schema:
        return _WORDS.get(schema["$ref"], "object")
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"] if value is not None)
    if schema.get("type") == "array":
        return f"list of {_kind_of(schema.get('items', {}))}"
    return str(schema.get("type", "any JSON"))


_WORDS: Final = {
    "ResumePosition": "a position",
    "ChatMessage": "messages",
    "Tool": "tools",
    "RequestOptions": "options",
}


def _as_variables(text: str) -> str:
    """Return ``text`` with fields named as the variables that set them."""
    return re.sub(r"``([a-z_]+_[a-z_]+)``", lambda match: f"`{match[1].upper()}`", text).replace("``", "`")


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parent))
    main()
