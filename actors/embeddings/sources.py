"""Who embeds, and which of them a name stands for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from actors.embeddings.embedder import Embedder
from actors.upstream.concurrency import Lane
from actors.upstream.endpoint import Station
from protocol.errors import ConfigurationError, NotFound
from protocol.gateway import ModelInfo
from protocol.routes import ProviderSpec, Routes

DEFAULT: Final = "default"

Make = Callable[[str, ProviderSpec], Embedder | None]


class Source(Station):
    """An embedder, and what is kept beside it.

    Args:
        embedder: who embeds.
        lane: as for every station; so is ``spec``.
    """

    __slots__ = ("embedder",)

    def __init__(self, embedder: Embedder, lane: Lane, spec: ProviderSpec | None = None) -> None:
        super().__init__(embedder.name, lane, spec)
        self.embedder = embedder


class Leg(NamedTuple):
    """A target: ``model`` is the embedder's own name of it."""

    source: Source
    model: str

    @property
    def target(self) -> str:
        """As it is named in routes."""
        return f"{self.source.name}/{self.model}"


class Sources:
    """All embedders, and what names stand for.

    Args:
        embedders: by their names.
        default_model: what ``default`` means: an alias, or ``provider/model``; the provider also takes names without
            one.
        routes: what the operator has named.
        make: makes a provider that the routes name; None for one that does not embed.
        lane: makes the lane of an embedder.

    Raises:
        ConfigurationError: a name leads nowhere; the message says where it stands.
    """

    def __init__(
        self,
        embedders: Mapping[str, Embedder],
        *,
        default_model: str,
        routes: Routes,
        make: Make,
        lane: Callable[[Embedder], Lane],
    ) -> None:
        self._default_model = default_model
        self._make = make
        self._lane = lane
        self._builtin = {name: Source(embedder, lane(embedder)) for name, embedder in embedders.items()}
        self._retired: set[Source] = set()
        self._routes = routes
        self._named: dict[str, Source] = {}
        self._named = self._made(routes)
        self._table = _Table({**self._builtin, **self._named}, routes, default_model)

    async def open(self) -> None:
        """Open the embedders."""
        for source in (*self._builtin.values(), *self._named.values()):
            await source.embedder.open()

    async def close(self) -> None:
        """Close them, also those that new routes have done away with."""
        for source in (*self._builtin.values(), *self._named.values(), *self._retired):
            await source.embedder.close()

    def legs(self, name: str) -> tuple[Leg, ...]:
        """Return the targets of ``name`` in their order. Raises ``NotFound``: ``model_not_found``."""
        return self._table.legs(name)

    def models(self) -> tuple[ModelInfo, ...]:
        """``default``, what it means, every alias, and then the models that the embedders list."""
        return tuple(ModelInfo(name, self.legs(name)[0].source.name) for name in self._table.names)

    async def replace(self, routes: Routes) -> None:
        """Put other routes in force. An embedder that they do away with is closed after its last call.

        Raises:
            ConfigurationError: they name something that is not there; those in force stay.
        """
        if routes != self._routes:
            named = self._made(routes)
            table = _Table({**self._builtin, **named}, routes, self._default_model)
            for source in named.values():
                await source.embedder.open()
            self._retired |= set(self._named.values()) - set(named.values())
            self._routes, self._named, self._table = routes, named, table
        await self.sweep()

    async def sweep(self) -> None:
        """Close the retired ones that nobody uses any more."""
        for source in [source for source in self._retired if source.idle]:
            self._retired.discard(source)
            await source.embedder.close()

    def _made(self, routes: Routes) -> dict[str, Source]:
        """Return the embedders that ``routes`` name; those that are the same as before are the same still."""
        named: dict[str, Source] = {}
        for name, spec in routes.providers.items():
            known = self._named.get(name)
            if known is not None and known.spec == spec:
                named[name] = known
            elif (embedder := self._make(name, spec)) is not None:
                named[name] = Source(embedder, self._lane(embedder), spec)
        return named


class _Table:
    """What names stand for, each of them checked."""

    def __init__(self, sources: Mapping[str, Source], routes: Routes, default_model: str) -> None:
        self._sources = sources
        self._aliases = {
            alias: tuple(self._target(f"embeddings.{alias}", target) for target in route.targets)
            for alias, route in routes.embeddings.items()
        }
        if DEFAULT in self._aliases:
            raise ConfigurationError(
                "embeddings.default: name the route otherwise, and set DEFAULT_EMBEDDING_MODEL to that name"
            )
        self._default = self._aliases.get(default_model) or (self._target("the embedding model", default_model),)
        self._home = self._default[0].source
        self._meaning = default_model

    @property
    def names(self) -> Sequence[str]:
        names = [DEFAULT, self._meaning, *self._aliases]
        names += [f"{name}/{model}" for name, source in self._sources.items() for model in source.embedder.models]
        return tuple(dict.fromkeys(names))

    def legs(self, name: str) -> tuple[Leg, ...]:
        if name == DEFAULT:
            return self._default
        return self._aliases.get(name) or (self._direct(name),)

    def _direct(self, name: str) -> Leg:
        prefix, slash, model = name.partition("/")
        source = self._sources.get(prefix) if slash else None
        if source is None:
            source, model = self._home, name
        if not source.embedder.accepts(model):
            raise NotFound(f"there is no embedding model {name[:80]!r}", code="model_not_found")
        return Leg(source, model)

    def _target(self, where: str, target: str) -> Leg:
        name, _, model = target.partition("/")
        source = self._sources.get(name)
        if source is None or not model:
            known = ", ".join(sorted(self._sources))
            raise ConfigurationError(
                f"{where}: {target!r} is no `provider/model`: the providers that embed are: {known}"
            )
        if not source.embedder.accepts(model):
            raise ConfigurationError(f"{where}: {name} has no model {model!r}")
        return Leg(source, model)
