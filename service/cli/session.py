"""One command of the CLI: submit a request or not, follow it, show its answer, and return the exit code."""

import asyncio
import shlex

from protocol.errors import TidegateError
from protocol.requests import SubmitBody
from service.cli.terminal import TerminalView
from service.client import Client
from service.client.following import Finished


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

    def ask(self, body: SubmitBody) -> int:
        """Submit a request and show its answer; returns the exit code."""
        return self._run_until_left(body)

    def watch(self, request_id: str) -> int:
        """Show the answer of an existing request; returns the exit code."""
        self._request_id = request_id
        return self._run_until_left(None)

    def _run_until_left(self, body: SubmitBody | None) -> int:
        try:
            asyncio.run(self._run(body))
        except KeyboardInterrupt:
            return self._view.left(self._command())
        except TidegateError as error:
            return self._view.failed(error, self._request_id)
        return 0

    def _command(self) -> str:
        if not self._request_id:
            return ""
        return f"tidegate watch {shlex.quote(self._request_id)} --url {shlex.quote(self._url)}"

    async def _run(self, body: SubmitBody | None) -> None:
        async with Client(self._url, key=self._key, notice=self._note) as client:
            after = None
            if body is not None:
                receipt = await client.submit(body)
                self._request_id, after = receipt.request_id, receipt.position
            async with client.follow(self._request_id, after=after) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        self._view.finish(event)
                    else:
                        self._last_note = ""
                        self._view.update(event)

    def _note(self, reason: str) -> None:
        if reason != self._last_note:
            self._last_note = reason
            self._view.note(f"{reason}; trying again")
