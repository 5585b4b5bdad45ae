"""One command of the CLI: submit a request or not, follow it, show its answer, and return the exit code."""

import asyncio
import shlex
import time
from typing import Final

from protocol.errors import DeadlineExceeded, TidegateError, Unreachable
from protocol.events import Position
from protocol.requests import SubmitBody
from service.cli.terminal import Durations, TerminalView
from service.client import Client, Receipt
from service.client.following import Finished

CANCEL_PATIENCE: Final = 5.0  # seconds for cancelling after Ctrl-C, a submission that is under way included
TIMEOUT_SLACK: Final = 1.0  # seconds for which the service may report by itself that the time is over


class CliSession:
    """Runs one ``ask`` or ``watch``.

    Args:
        url: the address of the service.
        key: the API key; empty for none.
        view: shows the answer.
    """

    def __init__(self, url: str, key: str, view: TerminalView) -> None:
        self._url = url
        self._key = key
        self._view = view
        self._request_id = ""
        self._last_note = ""
        self._left = ""

    def ask(self, body: SubmitBody, *, keep: bool = False, timeout: float | None = None) -> int:
        """Submit a request and show its answer; returns the exit code.

        Args:
            body: the request.
            keep: whether Ctrl-C leaves the request running, instead of cancelling it.
            timeout: seconds for all of it; None for as long as the service allows.
        """
        return self._run_until_left(body, keep=keep, timeout=timeout)

    def watch(self, request_id: str) -> int:
        """Show the answer of an existing request; returns the exit code."""
        self._request_id = request_id
        return self._run_until_left(None)

    def _run_until_left(self, body: SubmitBody | None, *, keep: bool = True, timeout: float | None = None) -> int:
        try:
            asyncio.run(self._run(body, keep=keep, timeout=timeout))
        except KeyboardInterrupt:
            return self._view.left(self._left or self._goes_on())
        except TidegateError as error:
            code = self._view.failed(error, self._request_id)
            if isinstance(error, Unreachable) and self._request_id:
                self._view.note(f"to see the request again: {self._command('watch')}")
            return code
        return 0

    def _command(self, name: str) -> str:
        return f"tidegate {name} {shlex.quote(self._request_id)} --url {shlex.quote(self._url)}"

    def _goes_on(self) -> str:
        if not self._request_id:
            return "Left before the service had answered: the request may have been submitted."
        return f"The request goes on. To see it again: {self._command('watch')}"

    async def _run(self, body: SubmitBody | None, *, keep: bool, timeout: float | None) -> None:  # noqa: ASYNC109 - the user's own
        bound = None if timeout is None else timeout + TIMEOUT_SLACK
        try:
            async with Client(self._url, key=self._key, notice=self._note) as client, asyncio.timeout(bound) as scope:
                if body is None:
                    await self._follow(client, None, None)
                else:
                    await self._ask(client, body, scope, keep=keep)
        except TimeoutError:
            raise DeadlineExceeded(f"{self._url} did not end the request within {timeout:g} s") from None

    async def _ask(self, client: Client, body: SubmitBody, scope: asyncio.Timeout, *, keep: bool) -> None:
        started = time.perf_counter()
        submission = asyncio.create_task(client.submit(body), name="submission")
        try:
            receipt = await asyncio.shield(submission)
            self._request_id = receipt.request_id
            self._view.submitted(receipt.request_id)
            await self._follow(client, receipt.position, started)
        except asyncio.CancelledError:
            if not (keep or scope.expired()):
                await self._cancel(client, submission)
            raise
        finally:
            submission.cancel()
            await asyncio.gather(submission, return_exceptions=True)

    async def _cancel(self, client: Client, submission: "asyncio.Task[Receipt]") -> None:
        """Cancel the request, also one whose submission is under way; a second Ctrl-C ends this at once."""
        self._view.note("cancelling; Ctrl-C again leaves at once")
        try:
            async with asyncio.timeout(CANCEL_PATIENCE):
                self._request_id = (await submission).request_id
                state = await client.cancel(self._request_id)
        except (TidegateError, TimeoutError) as error:
            reason = error.detail if isinstance(error, TidegateError) else "the service does not answer"
            known = f" To cancel it: {self._command('cancel')}" if self._request_id else ""
            self._left = f"The request may go on ({reason}).{known}"
        else:
            self._left = f"The request is {state.assistant_status}: {self._request_id}"

    async def _follow(self, client: Client, after: Position | None, started: float | None) -> None:
        first: float | None = None
        async with client.follow(self._request_id, after=after) as events:
            async for event in events:
                if not isinstance(event, Finished):
                    if first is None and event.pieces:
                        first = time.perf_counter()
                    self._last_note = ""
                    self._view.update(event)
                    continue
                ended = time.perf_counter()
                durations = None if started is None else Durations.since(started, first, ended)
                state = await self._state(client) if self._view.as_json else {}
                self._view.finish(event, durations, state)

    async def _state(self, client: Client) -> dict[str, object]:
        """Return the request's state; without it the answer is complete all the same."""
        try:
            return await client.state_fields(self._request_id)
        except TidegateError:
            return {"requestId": self._request_id, "assistantStatus": "completed"}

    def _note(self, reason: str) -> None:
        if reason != self._last_note:
            self._last_note = reason
            self._view.note(f"{reason}; trying again")
