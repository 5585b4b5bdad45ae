"""Bodies whose cost is in one call: texts that are matched, echoed or counted as what they look like."""

import asyncio
import json
from contextlib import suppress
from io import BytesIO
from typing import Final

import msgspec
import pytest

from actors.requests.input_size import json_bytes
from protocol.anthropic.media import source_of
from protocol.anthropic.upstream import UNREADABLE, tool_input
from protocol.errors import InvalidRequest
from protocol.identity import Principal
from protocol.json.values import MAX_VALUES
from protocol.llm import TextPart
from service.http import bodies, validation
from service.http.bodies import decode_submit, submit_of
from service.server import connections
from tests.service.bench import BODY, CHAT, answered, open_service

MIB: Final = 1024 * 1024
KEY: Final = "tg_bodies-0123456789abcdef"
JSON: Final = {"Content-Type": "application/json"}
PATHS: Final = ("/api/requests", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/embeddings")


@pytest.mark.parametrize("path", [*PATHS, "/api/channels/c/publish"])
async def test_an_answer_repeats_little_of_what_was_sent(path: str) -> None:
    """A field's name of many bytes is not echoed in the error."""
    async with open_service() as service:
        data = BytesIO(b'{"' + b"n" * 60_000 + b'":1}')
        async with service.client.post(service.base + path, data=data, headers=JSON) as response:
            assert response.status == 400
            assert len(await response.read()) < 8000


async def test_further_fields_are_bounded() -> None:
    """Each is compared with what may pass."""
    async with open_service() as service:
        data = BytesIO(json.dumps(CHAT | {f"k{number}": 1 for number in range(validation.MAX_EXTRA + 1)}).encode())
        async with service.client.post(f"{service.base}/v1/chat/completions", data=data, headers=JSON) as response:
            assert response.status == 400


@pytest.mark.parametrize("end", [";x" * 9_000_000, ";" + "x" * 9_000_000, "/" * 9_000_000])
def test_only_the_head_of_a_data_url_is_looked_at(end: str) -> None:
    """However it goes on."""
    url = "data:image/png" + end
    body = json.dumps(BODY | {"messages": [{"role": "user", "content": [{"type": "file", "url": url}]}]}).encode()
    with pytest.raises(InvalidRequest):
        submit_of(decode_submit(body), principal=Principal(tenant="t"), trace_id="1" * 32)
    assert validation._DATA_URL.match(url, 0, validation.MAX_DATA_HEAD) is None
    assert source_of(url)["data"] == ""
    assert source_of("data:image/png;base64," + "A" * 3_000_000 + " A")["data"] == "A" * 3_000_001


def test_arguments_of_too_many_values_are_sent_as_a_text() -> None:
    """They are no object for whoever reads them."""
    arguments = '{"a":[' + "1," * MAX_VALUES + "1]}"
    assert tool_input(arguments) == {UNREADABLE: arguments}
    assert tool_input('{"a":[1,1]}') == msgspec.Raw(b'{"a":[1,1]}')


def test_text_is_no_structure() -> None:
    """What looks like JSON in a text does not count as objects."""
    text = json.dumps([{"a": [1, "b"]}] * 20_000)
    assert json_bytes((TextPart(text=text),)) < 3 * len(text)


async def test_a_body_that_comes_steadily_has_the_time_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes that come fast enough move the deadline; one that stops is 408."""
    monkeypatch.setattr(bodies, "BODY_TIMEOUT", 0.01)
    async with open_service() as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n{")
        assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()
        monkeypatch.setattr(bodies, "MIN_RATE", 1)
        body = json.dumps(CHAT | {"messages": [{"role": "user", "content": "x" * 2 * MIB}]}).encode()
        posted = service.client.post(f"{service.base}/v1/chat/completions", data=BytesIO(body), headers=JSON)
        response, _ = await answered(service, posted, "ok")
        assert response.status == 200


async def test_the_unread_rest_of_a_body_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever goes on sending after the answer is cut off after so many bytes, and not after seconds."""
    monkeypatch.setattr(connections, "LINGER_BYTES", 4 * MIB)
    async with open_service(api_keys=(KEY,)) as service:
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900000000\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 401 ")
        sent = 0
        with suppress(ConnectionError):
            while sent < 600 * MIB:
                writer.write(bytes(MIB))
                sent += MIB
                await writer.drain()
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()
        assert sent < 100 * MIB, "the kernel's buffers and the bound"
