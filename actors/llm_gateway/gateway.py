"""The actor that answers: it finds the provider, admits, attempts, validates and counts."""

from collections.abc import Mapping
from typing import ClassVar, Final

import msgspec

from actors.llm_gateway.admission import Lane
from actors.llm_gateway.attempt import Call
from actors.llm_gateway.pricing import Prices
from actors.llm_gateway.provider import MAX_ANSWER_CHARS, TOTAL_TIMEOUT, Provider
from actors.llm_gateway.retry import RetryPolicy
from actors.llm_gateway.schema import Schemas, validated
from actors.llm_gateway.watch import Watch, pause
from actors.runtime import Actor, Deferred, handles
from protocol.errors import ConfigurationError, NotFound, TidegateError
from protocol.gateway import (
    Complete,
    Completion,
    GetProviders,
    ListModels,
    ModelInfo,
    ProviderStatus,
    ResolveModel,
)
from protocol.llm import Usage

DEFAULT: Final = "default"
MARGIN: Final = 0.02  # seconds by which our deadline precedes the asker's, so that it hears a typed error


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway allows.

    Attributes:
        concurrency: calls under way at once, for each provider.
        queue: calls that may wait for a place, for each provider.
        total: seconds for a request whose asker allows more, or has no deadline.
        max_chars: the most characters of an answer.
    """

    concurrency: int = 64
    queue: int = 256
    total: float = TOTAL_TIMEOUT
    max_chars: int = MAX_ANSWER_CHARS


class LLMGateway(Actor[Complete | ResolveModel | ListModels | GetProviders]):
    """Answers from one of its providers.

    A model is named ``provider/model``, or by a name that the default provider accepts, or ``default``.

    Args:
        providers: by their names; they are opened and closed with the actor.
        default_model: what ``default`` means, as ``provider/model``.
        limits: what is allowed.
        retry: when a failed attempt is followed by another.

    Raises:
        ConfigurationError: ``default_model`` names no provider of these.
    """

    capacity: ClassVar[int] = 4096

    def __init__(
        self,
        providers: Mapping[str, Provider],
        *,
        default_model: str,
        limits: Limits | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        name, _, self._default_model = default_model.partition("/")
        if name not in providers or not self._default_model:
            known = ", ".join(sorted(providers))
            raise ConfigurationError(f"the default model is {default_model!r}, but the providers are: {known}")
        self._providers = dict(providers)
        self._default = providers[name]
        self._limits = limits or Limits()
        self._retry = retry or RetryPolicy()
        self._lanes = {
            name: Lane(name, concurrency=self._limits.concurrency, queue=self._limits.queue) for name in providers
        }
        self._schemas = Schemas()
        self._prices = Prices()

    async def started(self) -> None:
        """Open the providers; none of them waits for anything slow."""
        for provider in self._providers.values():
            await provider.open()
        if any(provider.price_id for provider in self._providers.values()):
            self._reading = self.system.background(self._prices.load(), name="prices")

    async def stopped(self) -> None:
        """Close the providers."""
        for provider in self._providers.values():
            await provider.close()

    @handles(Complete)
    async def complete(self, message: Complete) -> Deferred[Completion]:
        """Answer beside the mailbox: nothing here waits for the network."""
        limit = self.system.clock.time() + self._limits.total
        deadline = limit if self.deadline is None else min(limit, self.deadline - MARGIN)
        return self.defer(self._complete(message, deadline))

    @handles(ResolveModel)
    async def resolve(self, message: ResolveModel) -> ModelInfo:
        """Say who would serve a model."""
        return ModelInfo(message.model, self._route(message.model)[0].name)

    @handles(ListModels)
    async def models(self, _message: ListModels) -> tuple[ModelInfo, ...]:
        """``default``, what it means, and then every listed model."""
        names = [DEFAULT, f"{self._default.name}/{self._default_model}"]
        names += [f"{provider.name}/{model}" for provider in self._providers.values() for model in provider.models]
        return tuple(ModelInfo(name, self._route(name)[0].name) for name in dict.fromkeys(names))

    @handles(GetProviders)
    async def statuses(self, _message: GetProviders) -> tuple[ProviderStatus, ...]:
        """Every provider, with what it does at the moment."""
        return tuple(map(self._status, self._providers.values()))

    def _status(self, provider: Provider) -> ProviderStatus:
        state, detail = provider.status()
        lane = self._lanes[provider.name]
        return ProviderStatus(
            name=provider.name, state=state, detail=detail, in_flight=lane.in_flight, queued=lane.queued
        )

    def _route(self, name: str) -> tuple[Provider, str]:
        if name == DEFAULT:
            return self._default, self._default_model
        prefix, slash, model = name.partition("/")
        provider = self._providers.get(prefix) if slash else None
        if provider is None:
            provider, model = self._default, name
        elif model == DEFAULT and provider.models:
            model = provider.models[0]
        if not model or not provider.accepts(model):
            raise NotFound(f"there is no model {name[:80]!r}", code="model_not_found")
        return provider, model

    async def _complete(self, message: Complete, deadline: float) -> Completion:
        request = message.request
        provider, model = self._route(request.model)
        validator = None if request.schema is None else self._schemas.validator(request.schema)
        call, usage = await self._admitted(message, provider, model, deadline)
        text = call.assembly.text
        return Completion(
            text=text,
            tool_calls=call.assembly.tool_calls,
            result=None if validator is None or call.assembly.tool_calls else validated(text, validator),
            finish_reason=call.finish_reason,
            usage=usage,
            cost=await self._prices.cost(provider.price_id, call.model, usage),
            provider=provider.name,
            model=model,
        )

    async def _admitted(self, message: Complete, provider: Provider, model: str, deadline: float) -> tuple[Call, Usage]:
        lane = self._lanes[provider.name]
        if lane.free:
            await lane.enter()
        else:
            async with Watch(self.system.clock, deadline):
                await lane.enter()
        try:
            return await self._attempts(message, provider, model, deadline)
        finally:
            lane.leave()

    async def _attempts(self, message: Complete, provider: Provider, model: str, deadline: float) -> tuple[Call, Usage]:
        clock, tracer = self.system.clock, self.system.tracer
        usage = Usage()
        number = 0
        while True:
            number += 1
            call = Call(
                provider,
                model,
                message,
                number=number,
                clock=clock,
                tracer=tracer,
                max_chars=self._limits.max_chars,
            )
            try:
                await call.run(deadline)
            except TidegateError as error:
                delay = None if call.sent else self._retry.delay(number, error, deadline - clock.time())
                if delay is None:
                    raise
                usage = _sum(usage, call.usage)
                await pause(clock, delay)
            else:
                return call, _sum(usage, call.usage)


def _sum(one: Usage, other: Usage) -> Usage:
    if one == Usage():
        return other
    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cached_input_tokens=one.cached_input_tokens + other.cached_input_tokens,
        reasoning_tokens=one.reasoning_tokens + other.reasoning_tokens,
    )
