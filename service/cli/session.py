"""One command's conversation with the service: submit or not, follow, show, and say how it ended."""

import asyncio
import shlex

from protocol.errors import TidegateError
from protocol.requests import SubmitBody
from service.cli.terminal import Screen
from service.client import Client
from service.client.following import Finished


class Visit:
    """Asks or watches once, and returns an exit code.

    Args:
        url: where the service is.
        key: the API key; empty for none.
        screen: what shows the answer.
    """

    def __init__(self, url: str, key: str, screen: Screen) -> None:
        self._url = url
        self._key = key
        self._screen = screen
        self._request_id = ""
        self._noted = ""

    def ask(self, body: SubmitBody) -> int:
        """Submit a request and show its answer."""
        return self._until_left(body)

    def watch(self, request_id: str) -> int:
        """Show the answer of a request that there is already."""
        self._request_id = request_id
        return self._until_left(None)

    def _until_left(self, body: SubmitBody | None) -> int:
        try:
            asyncio.run(self._converse(body))
        except KeyboardInterrupt:
            return self._screen.left(self._command())
        except TidegateError as error:
            return self._screen.failed(error, self._request_id)
        return 0

    def _command(self) -> str:
        if not self._request_id:
            return ""
        return f"tidegate watch {shlex.quote(self._request_id)} --url {shlex.quote(self._url)}"

    async def _converse(self, body: SubmitBody | None) -> None:
        async with Client(self._url, key=self._key, notice=self._note) as client:
            after = None
            if body is not None:
                receipt = await client.submit(body)
                self._request_id, after = receipt.request_id, receipt.position
            async with client.follow(self._request_id, after=after) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        self._screen.finish(event)
                    else:
                        self._noted = ""
                        self._screen.update(event)

    def _note(self, reason: str) -> None:
        if reason != self._noted:
            self._noted = reason
            self._screen.note(f"{reason}; trying again")
