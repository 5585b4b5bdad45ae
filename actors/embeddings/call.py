"""One batch upstream: what became of each input, what it cost, and whose input it was that a provider refused."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec

from actors.embeddings.embedding import Course, Plan
from actors.embeddings.sources import Leg
from actors.upstream.pricing import Prices
from protocol.embeddings import Input, Vectors, byte_size
from protocol.errors import TidegateError
from protocol.llm import Usage

REFUSED: Final = "provider_rejected"
ONE_TOKEN: Final = Usage(input_tokens=1)


class Found(msgspec.Struct, frozen=True):
    """The vector of an input, its share of the tokens of its call, and their price in US dollars where it is known."""

    vector: bytes
    tokens: int
    usd: Decimal | None


Outcome = Found | TidegateError


class BatchCall(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that goes upstream.

    Attributes:
        legs: who is asked, in their order.
        plan: how they are asked.
        inputs: what is asked for.
        groups: the inputs of each request that waits, by their places among ``inputs``.
        prices: what tokens cost.
    """

    legs: tuple[Leg, ...]
    plan: Plan
    inputs: tuple[Input, ...]
    groups: tuple[tuple[int, ...], ...]
    prices: Prices

    async def run(self) -> tuple[Outcome, ...]:
        """Return what became of each input.

        Where the provider refuses a batch of several requests, each of them is sent by itself: the fault of one is not
        the others', and these are no more calls than there would have been without batches.
        """
        outcomes = await self._outcomes(range(len(self.inputs)))
        if len(self.groups) > 1 and _refused(outcomes[0]):
            for group in self.groups:
                lacking = [place for place in group if not isinstance(outcomes[place], Found)]
                for place, outcome in zip(lacking, await self._outcomes(lacking), strict=True):
                    outcomes[place] = outcome
        return tuple(outcomes)

    async def _outcomes(self, places: Sequence[int]) -> list[Outcome]:
        inputs = tuple(self.inputs[place] for place in places)
        if not inputs:
            return []
        try:
            answer, leg = await Course(self.legs, self.plan, inputs).run()
        except TidegateError as error:
            return [error] * len(inputs)
        rate = await self._rate(answer, leg)
        given = shares(answer.tokens or 0, list(map(byte_size, inputs)))
        return [
            Found(vector, tokens, None if rate is None else rate * tokens)
            for vector, tokens in zip(answer.vectors, given, strict=True)
        ]

    async def _rate(self, answer: Vectors, leg: Leg) -> Decimal | None:
        """Return the price of a token; None where it, or the number of tokens, is unknown."""
        if answer.tokens is None:
            return None
        return await self.prices.cost(leg.source.embedder.price_id, leg.model, ONE_TOKEN)


def shares(tokens: int, sizes: Sequence[int]) -> list[int]:
    """Share ``tokens`` out by size, in whole numbers whose sum is ``tokens``: an upstream names only the sum."""
    total = sum(sizes)
    given = [tokens * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda place: tokens * sizes[place] % total, reverse=True)
    for place in by_remainder[: tokens - sum(given)]:
        given[place] += 1
    return given


def _refused(outcome: Outcome) -> bool:
    return isinstance(outcome, TidegateError) and outcome.code == REFUSED
