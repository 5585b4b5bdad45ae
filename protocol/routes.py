"""Which models a name stands for: named providers, routes over their targets, and the message that sets them."""

from typing import Annotated, Literal

import msgspec

from protocol.message import Message

Kind = Literal["openai", "anthropic", "local"]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the routes' file."""


class ProviderSpec(_Table, frozen=True):
    """A provider with a name of its own.

    Attributes:
        kind: the dialect that it speaks; ``local`` is a model on this machine.
        base_url: its address, for ``openai`` with its ``/v1``; empty for the vendor's own.
        api_key_env: the environment variable that holds its key; empty for an upstream that wants none.
        models: the only models that it accepts, and lists; empty for every name, with none listed.
        path: for ``local`` only: a GGUF file; empty for the installed model.
        price_id: under which provider's name prices are looked up; empty for none, so that its answers have no cost.
        concurrency: calls under way at once; None for what every provider has.
        queue: calls that may wait for a place; None for what every provider has.
    """

    kind: Kind
    base_url: Annotated[str, msgspec.Meta(pattern="^(https?://.+)?$")] = ""
    api_key_env: str = ""
    models: tuple[str, ...] = ()
    path: str = ""
    price_id: str = ""
    concurrency: Annotated[int, msgspec.Meta(ge=1)] | None = None
    queue: Annotated[int, msgspec.Meta(ge=0)] | None = None


class Target(_Table, frozen=True):
    """A model of a provider, and what it is asked with where the request says nothing.

    Attributes:
        model: as ``provider/model``.
        weight: its share, against the other targets', of the requests that ask it first; for ``order = "weighted"``.
        first_token_timeout: seconds to its first content; None for the provider's.
        temperature: 0..2.
        top_p: 0..1.
        max_tokens: the most tokens of answer.
        seed: makes sampling repeatable where the model can.
        stop: texts at which the model stops.
    """

    model: str
    weight: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    first_token_timeout: Seconds | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()


class Route(_Table, frozen=True):
    """What an alias stands for.

    Attributes:
        targets: a target that has nothing but a model may be written as that model.
        order: which is asked first: ``listed`` for the first one always, ``weighted`` for one drawn by its weight. The
            others follow, in the same way, where it fails.
    """

    targets: Annotated[tuple[str | Target, ...], msgspec.Meta(min_length=1)]
    order: Literal["listed", "weighted"] = "listed"


class Routes(_Table, frozen=True):
    """Everything that can be asked for by a name of the operator's.

    Attributes:
        default: what the model name ``default`` means: an alias or ``provider/model``; empty for the gateway's own.
        providers: by name; one of a built-in provider's name takes its place.
        routes: by alias.
    """

    default: str = ""
    providers: dict[str, ProviderSpec] = {}
    routes: dict[str, Route] = {}


class SetRoutes(Message[None], frozen=True):
    """Put ``routes`` in force. Requests under way go on as they began; equal ones change nothing.

    Raises (as a reply):
        ConfigurationError: they name something that is not there; those in force stay.
    """

    routes: Routes
