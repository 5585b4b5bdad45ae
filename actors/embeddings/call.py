"""The call of one batch: the outcome of each input, its share of the cost, and the split of a refused batch."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec

from actors.embeddings.embedding import EmbeddingPlan, EmbeddingRun, estimate
from actors.embeddings.endpoints import EmbeddingTarget
from actors.upstream.pricing import Prices
from protocol.embeddings import Input, Vectors, byte_size
from protocol.errors import TidegateError
from protocol.llm import Usage

REFUSED: Final = frozenset({"provider_rejected", "context_length_exceeded", "content_policy"})  # for one of its inputs
ONE_TOKEN: Final = Usage(input_tokens=1)
DOUBT: Final = 10  # times our estimate, beyond which a count is not believed
LEAST_BOUND: Final = 1024  # tokens that are believed of any call


class EmbeddedInput(msgspec.Struct, frozen=True):
    """The vector of an input, its share of the tokens of its call, and their price in US dollars where it is known."""

    vector: bytes
    tokens: int
    usd: Decimal | None


Outcome = EmbeddedInput | TidegateError


class BatchCall(msgspec.Struct, frozen=True, kw_only=True):
    """The call of one batch.

    Attributes:
        targets: in their order.
        plan: how the calls are made.
        inputs: the texts.
        groups: the inputs of each waiting request, by their places in ``inputs``.
        prices: prices of tokens.
    """

    targets: tuple[EmbeddingTarget, ...]
    plan: EmbeddingPlan
    inputs: tuple[Input, ...]
    groups: tuple[tuple[int, ...], ...]
    prices: Prices

    async def run(self) -> tuple[Outcome, ...]:
        """Return the outcome of each input.

        Where the provider refuses a batch of several requests, the inputs of each are sent in a call of their own: the
        fault of one is not the others', and these are no more calls than without batches.
        """
        outcomes = await self._outcomes(range(len(self.inputs)))
        if len(self.groups) > 1 and _refused(outcomes[0]):
            for group in self.groups:
                missing = [place for place in group if not isinstance(outcomes[place], EmbeddedInput)]
                for place, outcome in zip(missing, await self._outcomes(missing), strict=True):
                    outcomes[place] = outcome
        return tuple(outcomes)

    async def _outcomes(self, places: Sequence[int]) -> list[Outcome]:
        inputs = tuple(self.inputs[place] for place in places)
        if not inputs:
            return []
        try:
            answer, target = await EmbeddingRun(self.targets, self.plan, inputs).run()
        except TidegateError as error:
            return [error] * len(inputs)
        rate = await self._rate(answer, target)
        tokens_of_each = shares(_believed(answer.tokens or 0, inputs), list(map(byte_size, inputs)))
        return [
            EmbeddedInput(vector, tokens, None if rate is None else rate * tokens)
            for vector, tokens in zip(answer.vectors, tokens_of_each, strict=True)
        ]

    async def _rate(self, answer: Vectors, target: EmbeddingTarget) -> Decimal | None:
        """Return the price of a token; None where it, or the number of tokens, is unknown."""
        if answer.tokens is None:
            return None
        return await self.prices.cost(target.price_id, target.model, ONE_TOKEN)


def _believed(tokens: int, inputs: tuple[Input, ...]) -> int:
    """Return the reported tokens of a call; where there are far more than its inputs can have, our estimate."""
    expected = estimate(inputs)
    return tokens if tokens <= max(DOUBT * expected, LEAST_BOUND) else expected


def shares(tokens: int, sizes: Sequence[int]) -> list[int]:
    """Split ``tokens`` by size, into integers whose sum is ``tokens``: an upstream reports only the sum."""
    total = sum(sizes)
    split = [tokens * size // total for size in sizes]
    by_remainder = sorted(range(len(sizes)), key=lambda place: tokens * sizes[place] % total, reverse=True)
    for place in by_remainder[: tokens - sum(split)]:
        split[place] += 1
    return split


def _refused(outcome: Outcome) -> bool:
    return isinstance(outcome, TidegateError) and outcome.code in REFUSED
