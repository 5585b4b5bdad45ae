"""Media in the forms that Anthropic takes."""

import base64

import pytest

from protocol.anthropic.media import source_of, text_of
from protocol.anthropic.upstream import tool_input

PNG = "iVBORw0KGgo="
JPEG = "/9j/4AAQ"
PDF = base64.b64encode(b"%PDF-1.7").decode()
TEXT = base64.b64encode("Grüße".encode()).decode()


@pytest.mark.parametrize(
    ("url", "media_type", "data"),
    [
        (f"data:image/png;base64,{PNG}", "image/png", PNG),
        (f"data:image/jpg;base64,{JPEG}", "image/jpeg", JPEG),
        ("data:image/jpg;base64,AAAA", "image/jpeg", "AAAA"),
        (f"DATA:IMAGE/PNG;charset=utf-8;BASE64,{PNG}", "image/png", PNG),
        (f"data:image/jpeg;name=x.jpg;base64,{JPEG}", "image/jpeg", JPEG),
        (f"data:image/jpeg;base64,{PNG}", "image/png", PNG),
        (f"data:;base64,{PNG}", "image/png", PNG),
        ("data:image/gif;base64,R0lG\r\nODlh", "image/gif", "R0lGODlh"),
        ("data:image/jpeg;base64,%2F9j%2F4AAQ", "image/jpeg", JPEG),
        ("data:image/png,abc%20d", "image/png", base64.b64encode(b"abc d").decode()),
        (f"data:application/x-pdf;base64,{PDF}", "application/pdf", PDF),
        (f"data:application/octet-stream;base64,{PDF}", "application/pdf", PDF),
        ("data:application/zip;base64,UEsDBA==", "application/zip", "UEsDBA=="),
    ],
)
def test_data_has_its_true_type(url: str, media_type: str, data: str) -> None:
    """Aliases, parameters, case, and what the data itself says; white space and escapes are removed."""
    assert source_of(url) == {"type": "base64", "media_type": media_type, "data": data}


def test_an_address_stays_one() -> None:
    """It is not looked at."""
    assert source_of("https://example.com/a.jpg") == {"type": "url", "url": "https://example.com/a.jpg"}


@pytest.mark.parametrize(
    ("media_type", "data", "text"),
    [
        ("text/markdown", TEXT, "Grüße"),
        ("application/json", TEXT, "Grüße"),
        ("application/ld+json", TEXT, "Grüße"),
        ("application/x-yaml", TEXT, "Grüße"),
        ("application/octet-stream", TEXT, "Grüße"),
        ("", TEXT, "Grüße"),
        ("application/octet-stream", "AAAA", None),
        ("text/plain", "/w==", None),
        ("text/plain", "no base64", None),
        ("application/zip", TEXT, None),
        ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", TEXT, None),
    ],
)
def test_texts(media_type: str, data: str, text: str | None) -> None:
    """What says that it is one, or says nothing and is one."""
    assert text_of({"media_type": media_type, "data": data}) == text


@pytest.mark.parametrize("arguments", ["", " ", "null", "[]", " [] "])
def test_no_arguments_are_an_empty_object(arguments: str) -> None:
    """So is the empty list that PHP makes of one."""
    assert tool_input(arguments) == {}
