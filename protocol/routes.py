"""Which models a name stands for: named providers, routes over their targets, and the message that sets them."""

from typing import Annotated, Literal

import msgspec

from protocol.message import Message

Kind = Literal["openai", "anthropic", "local", "azure", "bedrock", "vertex"]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the routes' file."""


class ProviderSpec(_Table, frozen=True):
    """A provider with a name of its own.

    Attributes:
        kind: the dialect that it speaks; ``local`` is a model on this machine; ``azure``, ``bedrock`` and ``vertex``
            are the clouds' own forms of the two dialects.
        base_url: its address, for ``openai`` and ``vertex`` with its ``/v1``, for ``azure`` the resource's endpoint;
            empty for the vendor's own.
        api_key_env: the environment variable that holds its key; empty for an upstream that wants none, and for the
            credentials that a cloud's own chain finds.
        models: the only models that it accepts, and lists; empty for every name, with none listed.
        omit: for ``openai`` and ``azure`` only: fields at the top of the body that this upstream refuses, as
            ``stream_options``; a request that has them is sent without.
        structured: how its models are held to a schema: ``native`` for by the dialect's own means, ``tool`` for by a
            tool that they have to call with the answer.
        path: for ``local`` only: a GGUF file; empty for the installed model.
        api_version: for ``azure`` only: its API's, a date.
        region: for ``bedrock`` and ``vertex`` only: the cloud's.
        project: for ``vertex`` only: Google Cloud's.
        profile: for ``bedrock`` only: of AWS's configuration; empty for the default one.
        price_id: under which provider's name prices are looked up; empty for a cloud's own, and else for none, so that
            its answers have no cost.
        concurrency: calls under way at once; None for what every provider has.
        queue: calls that may wait for a place; None for what every provider has.
    """

    kind: Kind
    base_url: Annotated[str, msgspec.Meta(pattern="^(https?://.+)?$")] = ""
    api_key_env: str = ""
    models: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()
    structured: Literal["native", "tool"] = "native"
    path: str = ""
    api_version: str = ""
    region: str = ""
    project: str = ""
    profile: str = ""
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
        hedge_after: seconds to a call's first content, after which another call is made beside it: to the next target,
            or where there is only one to that again. Whichever brings content first gives the answer. None for never.
    """

    targets: Annotated[tuple[str | Target, ...], msgspec.Meta(min_length=1)]
    order: Literal["listed", "weighted"] = "listed"
    hedge_after: Seconds | None = None


class EmbeddingRoute(_Table, frozen=True):
    """What an alias stands for where texts are embedded.

    Vectors of different models can't be compared. So the targets are one model, by the names that they have for it.

    Attributes:
        targets: as ``provider/model``; the first one is asked, and the next one where it fails.
        same_space: says that models of different names are one and the same.

    Raises:
        ValueError: the models have different names, and nobody says that they are the same.
    """

    targets: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    same_space: bool = False

    def __post_init__(self) -> None:
        models = sorted({target.partition("/")[2] for target in self.targets})
        if len(models) > 1 and not self.same_space:
            raise ValueError(
                f"{' and '.join(models)}: vectors of different models can't be compared; "
                "`same_space = true` says that these are one model"
            )


class Routes(_Table, frozen=True):
    """Everything that can be asked for by a name of the operator's.

    Attributes:
        default: what the model name ``default`` means: an alias or ``provider/model``; empty for the gateway's own.
        providers: by name; one of a built-in provider's name takes its place.
        routes: by alias.
        embeddings: by alias, for texts that are to be embedded.
    """

    default: str = ""
    providers: dict[str, ProviderSpec] = {}
    routes: dict[str, Route] = {}
    embeddings: dict[str, EmbeddingRoute] = {}


class SetRoutes(Message[None], frozen=True):
    """Put ``routes`` in force. Requests under way go on as they began; equal ones change nothing.

    Raises (as a reply):
        ConfigurationError: they name something that is not there; those in force stay.
    """

    routes: Routes
