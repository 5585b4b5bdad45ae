"""Routing configuration: named providers, routes from aliases to targets, and the message that sets them."""

from typing import Annotated, Literal

import msgspec

from protocol.message import Message

Kind = Literal["openai", "anthropic", "local", "azure", "bedrock", "vertex"]
Field = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the routes file."""


class ProviderSpec(_Table, frozen=True):
    """A named provider.

    Attributes:
        kind: its dialect; ``local`` is a model on this machine; ``azure``, ``bedrock`` and ``vertex`` are the clouds'
            variants of the two dialects.
        base_url: its base URL: for ``openai`` and ``vertex`` with ``/v1``, for ``azure`` the resource's endpoint; empty
            for the vendor's own.
        api_key_env: the environment variable with its key; empty for an upstream without a key, and for the credentials
            that the cloud's SDK finds.
        models: the models that it accepts and lists; empty to accept every name and list none.
        omit: for ``openai`` and ``azure``: top-level fields that this upstream refuses, such as ``stream_options``;
            they are left out of its requests.
        seeds: for ``openai``: whether this upstream takes a ``seed``; then a request with temperature 0 and no seed is
            sent with a made-up one. OpenAI's own address, ``azure`` and ``local`` are known to.
        structured: how its models are held to a schema: ``native`` by the dialect's own feature, ``tool`` by a tool
            that they must call with the answer.
        path: for ``local``: a GGUF file; empty for the installed model.
        api_version: for ``azure``: the version of its API, a date.
        region: for ``bedrock`` and ``vertex``: the cloud's region.
        project: for ``vertex``: the Google Cloud project.
        profile: for ``bedrock``: the profile of the AWS configuration; empty for the default one.
        price_id: the provider name for price lookups; empty for the cloud's own, and for other kinds for no prices.
        concurrency: the most calls in flight; None for the default of all providers.
        queue: the most calls that wait for a slot; None for the default of all providers.
    """

    kind: Kind
    base_url: Annotated[str, msgspec.Meta(pattern="^(https?://.+)?$")] = ""
    api_key_env: str = ""
    models: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()
    seeds: bool = False
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
    """A model of a provider, with defaults for fields that a request does not set.

    Attributes:
        model: as ``provider/model``.
        weight: its share of the requests that try it first, relative to the other targets; for ``order = "weighted"``.
        first_token_timeout: seconds until its first content; None for the provider's.
        temperature: 0..2.
        top_p: 0..1.
        max_tokens: the most tokens of the answer.
        seed: makes sampling repeatable where the model supports it.
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
    """The targets of an alias.

    Attributes:
        targets: a target without further fields may be written as its model.
        order: the order of the targets: ``listed``, or ``weighted`` for a random order by weight. The next target is
            tried when one fails.
        hedge_after: seconds without content after which a second call is made: to the next target, or to the only one
            again. The call with the first content gives the answer. None for never.
        pass_fields: the fields of the vendors' dialects that may go upstream, beside those that the service knows:
            names and patterns; ``default`` for the usual ones, which is also what None means where nobody says more.
    """

    targets: Annotated[tuple[str | Target, ...], msgspec.Meta(min_length=1)]
    order: Literal["listed", "weighted"] = "listed"
    hedge_after: Seconds | None = None
    pass_fields: tuple[Field, ...] | None = None


class EmbeddingRoute(_Table, frozen=True):
    """The targets of an alias for embeddings.

    Vectors of different models can't be compared, so all targets have to be the same model.

    Attributes:
        targets: as ``provider/model``; the next one is tried when one fails.
        same_space: declares that models of different names are the same model.
        pass_fields: as for ``Route``.

    Raises:
        ValueError: the models have different names, and ``same_space`` is false.
    """

    targets: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    same_space: bool = False
    pass_fields: tuple[Field, ...] | None = None

    def __post_init__(self) -> None:
        models = sorted({target.partition("/")[2] for target in self.targets})
        if len(models) > 1 and not self.same_space:
            raise ValueError(
                f"{' and '.join(models)}: vectors of different models can't be compared; "
                "`same_space = true` says that these are one model"
            )


class Routes(_Table, frozen=True):
    """The whole routing configuration.

    Attributes:
        default: the model that ``default`` stands for: an alias or ``provider/model``; empty for the gateway's own.
        providers: by name; one with a built-in provider's name replaces it.
        routes: by alias.
        embeddings: by alias, for embeddings.
    """

    default: str = ""
    providers: dict[str, ProviderSpec] = {}
    routes: dict[str, Route] = {}
    embeddings: dict[str, EmbeddingRoute] = {}


class SetRoutes(Message[None], frozen=True):
    """Replace the routing configuration. Requests in flight keep their routes; equal routes change nothing.

    Raises (as a reply):
        ConfigurationError: the routes name a provider or a model that does not exist; the current ones stay.
    """

    routes: Routes
