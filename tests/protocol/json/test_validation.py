import msgspec
import pytest

from protocol.errors import InvalidRequest
from protocol.json.validation import invalid_value


class Inner(msgspec.Struct):
    name: str


class Outer(msgspec.Struct):
    inner: tuple[Inner, ...]


def failure(value: object) -> InvalidRequest:
    """The failure that a value which is no ``Outer`` makes."""
    with pytest.raises(msgspec.ValidationError) as caught:
        msgspec.convert(value, Outer)
    return invalid_value(str(caught.value))


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (7, "$"),
        ({}, "$.inner"),
        ({"inner": [{}]}, "$.inner[0].name"),
        ({"inner": [{"name": 7}]}, "$.inner[0].name"),
    ],
)
def test_an_invalid_value_is_named_by_its_path(value: object, path: str) -> None:
    """A wrong value is named by its path, a missing field by the path that it would have."""
    error = failure(value)
    assert (error.code, [fault.path for fault in error.errors]) == ("invalid_request", [path])
    assert path in error.detail
