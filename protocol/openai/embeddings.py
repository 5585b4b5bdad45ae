"""OpenAI's embeddings dialect: a client's call and answer, an upstream's call and answer."""

import base64
import math
import struct
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec

from protocol.embeddings import FLOAT_BYTES, Embedded, Input, Vectors, floats
from protocol.errors import FieldError, InvalidRequest, ProviderError
from protocol.reading.claims import Claims
from protocol.reading.failures import failure_in, raise_found
from protocol.reading.loose import MAX_LABEL, decode, is_cut, label_of, place_of

MAX_INPUTS: Final = 2048  # in one request, OpenAI's number
MAX_MODEL: Final = 256  # characters of a model's name
ANSWER_BYTES: Final = 64 * 1024  # of an answer, beside its vectors
VECTOR_BYTES: Final = 512 * 1024  # of one vector in an answer
STEP_BYTES: Final = 256 * 1024  # of the vectors that are decoded before other tasks run
LOOSE_BYTES: Final = 1024 * 1024  # of an answer that has another form

Encoding = Literal["float", "base64"]

# --------------------------------------------------------------------------------------------- the client's call


class EmbeddingsCall(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed body of ``POST /v1/embeddings``: fields of ``Embed``, and the encoding of the vectors."""

    model: str
    inputs: tuple[Input, ...]
    encoding: Encoding
    dimensions: int | None
    extra: dict[str, Any]


_INPUTS: Final = msgspec.Meta(
    extra_json_schema={
        "minItems": 1,
        "maxItems": MAX_INPUTS,
        "items": {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "integer", "minimum": 0},
                {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}},
            ]
        },
    }
)


class EmbeddingsBody(msgspec.Struct, frozen=True, kw_only=True):
    """The body of a call for embeddings.

    Attributes:
        model: a model of ``GET /v1/models`` that embeds.
        input: a text, or up to 2048 texts or arrays of tokens.
        encoding_format: ``float``, or ``base64`` for little-endian floats of 32 bits.
        dimensions: the length of the vectors, for models that have several.
        user: ignored.
    """

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_MODEL)]
    input: Annotated[str, msgspec.Meta(extra_json_schema={"minLength": 1})] | Annotated[list[Any], _INPUTS]
    encoding_format: Encoding | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=65_536)] | None = None
    user: Any = None


_KNOWN: Final = frozenset(EmbeddingsBody.__struct_fields__)


def parse_embeddings(body: bytes) -> EmbeddingsCall:
    """Parse the body of ``POST /v1/embeddings``.

    Raises:
        InvalidRequest: ``malformed_json``, or ``invalid_request`` with the path of the invalid field.
    """
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(code="malformed_json") from error
    try:
        wire = msgspec.convert(fields, EmbeddingsBody)
    except msgspec.ValidationError as error:
        reason, _, path = str(error).partition(" - at `")
        raise _refused(path.removesuffix("`") or "$", reason) from error
    return EmbeddingsCall(
        model=wire.model,
        inputs=_inputs(wire.input),
        encoding=wire.encoding_format or "float",
        dimensions=wire.dimensions,
        extra={name: fields[name] for name in fields.keys() - _KNOWN},
    )


def _inputs(given: str | list[Any]) -> tuple[Input, ...]:
    if isinstance(given, str) or (given and type(given[0]) is int):
        given = [given]
    elif not 1 <= len(given) <= MAX_INPUTS:
        raise _refused("$.input", f"must be 1 to {MAX_INPUTS} texts, or arrays of tokens, got {len(given)}")
    read = _tokens if isinstance(given[0], list) else _text
    return tuple(read(one, f"$.input[{index}]") for index, one in enumerate(given))


def _text(given: object, path: str) -> Input:
    if not isinstance(given, str) or not given:
        raise _refused(path, "must be a text that is not empty")
    return given


def _tokens(given: object, path: str) -> Input:
    if not isinstance(given, list) or not given or not all(type(one) is int and one >= 0 for one in given):
        raise _refused(path, "must be an array of tokens that is not empty")
    return tuple(given)


def _refused(path: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"{reason}, at `{path}`", errors=(FieldError(path, reason),))


# ------------------------------------------------------------------------------------------- the client's answer


def embeddings_body(embedded: Embedded, model: str, encoding: Encoding) -> bytes:
    """Return the body of the answer. ``model`` is the name that the client used."""
    encode = _base64 if encoding == "base64" else floats
    return msgspec.json.encode(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": encode(vector)}
                for index, vector in enumerate(embedded.vectors)
            ],
            "model": model,
            "usage": {"prompt_tokens": embedded.tokens, "total_tokens": embedded.tokens},
        }
    )


def _base64(vector: bytes) -> str:
    return base64.b64encode(vector).decode()


# --------------------------------------------------------------------------------------------- the upstream's side


class _Datum(msgspec.Struct, frozen=True):
    index: int
    embedding: str | tuple[float, ...]


class _Answer(msgspec.Struct, frozen=True):
    data: tuple[msgspec.Raw, ...]
    model: str | None = None
    usage: Any = None
    error: None = None


_answer: Final = msgspec.json.Decoder(_Answer).decode
_datum: Final = msgspec.json.Decoder(_Datum).decode


def upstream_body(inputs: tuple[Input, ...], model: str, dimensions: int | None, extra: Mapping[str, Any]) -> bytes:
    """Return the body for an OpenAI-compatible upstream. It asks for base64, which decodes in a tenth of the time."""
    fields: dict[str, Any] = {**extra, "model": model, "input": inputs, "encoding_format": "base64"}
    if dimensions is not None:
        fields["dimensions"] = dimensions
    return msgspec.json.encode(fields)


def longest_answer(count: int) -> int:
    """Return the most bytes that an answer to ``count`` inputs may have."""
    return ANSWER_BYTES + count * VECTOR_BYTES


def read_vectors(body: bytes, count: int) -> Vectors:
    """Return the vectors of an answer as ``VectorReader`` reads them, in one step."""
    reader = VectorReader(body, count)
    while not reader.step():
        pass
    return reader.vectors


class VectorReader:
    """Decodes the answer to ``count`` inputs, in base64 or as numbers, in any order, a step at a time.

    Vectors without an index are in the order of the inputs. A count of tokens that can't be one is ignored.

    Args:
        body: the answer.
        count: the number of inputs.

    Raises:
        ProviderError: ``provider_bad_response``: there is not one finite vector for each input, all of one length;
            ``provider_stream_broken``: the body breaks off; or the failure that the body reports.
    """

    __slots__ = ("_answer", "_at", "_count", "_found")

    def __init__(self, body: bytes, count: int) -> None:
        try:
            self._answer = _answer(body)
        except (ValueError, RecursionError):
            self._answer = _read_loosely(body)
        if len(self._answer.data) != count:
            raise ProviderError(code="provider_bad_response")
        self._count = count
        self._at = 0
        self._found: dict[int, bytes] = {}

    @property
    def vectors(self) -> Vectors:
        """The whole answer.

        Raises:
            ProviderError: as above.
        """
        found = self._found
        lengths = {len(vector) for vector in found.values()}
        if found.keys() != set(range(self._count)) or len(lengths) != 1:
            raise ProviderError(code="provider_bad_response")
        claims = Claims()
        claims.add(self._answer.usage)
        return Vectors(
            vectors=tuple(found[index] for index in range(self._count)),
            tokens=claims.input or None,
            model=(self._answer.model or "")[:MAX_LABEL],
        )

    def step(self) -> bool:
        """Decode the next vectors, about ``STEP_BYTES`` of them. Returns whether these are the last.

        Raises:
            ProviderError: as above.
        """
        data, left = self._answer.data, STEP_BYTES
        try:
            while left > 0 and self._at < self._count:
                raw = data[self._at]
                left -= len(raw)
                datum = _read_datum(raw, self._at)
                self._found[datum.index] = _packed(datum.embedding)
                self._at += 1
        except (ValueError, OverflowError, struct.error) as error:
            raise ProviderError(code="provider_bad_response") from error
        return self._at >= self._count


def _read_datum(raw: msgspec.Raw, place: int) -> _Datum:
    """Read a vector, also one without an index, or with one of another type."""
    try:
        return _datum(raw)
    except (ValueError, RecursionError):
        value = decode(bytes(raw))
    try:
        return msgspec.convert({**value, "index": _place(value, place)}, _Datum)
    except (TypeError, msgspec.ValidationError) as error:
        raise ProviderError(code="provider_bad_response") from error


def _read_loosely(body: bytes) -> _Answer:
    """Read an answer whose fields have other types, in other places, or that is an event of a stream.

    Raises:
        ProviderError: ``provider_bad_response``: it is no answer; ``provider_stream_broken``: it breaks off;
            ``response_too_large``: it is too long to be read so; or the failure that it reports.
    """
    if body.lstrip().startswith(b"data:"):
        body = body.lstrip().removeprefix(b"data:").partition(b"\n")[0]
    if is_cut(body):
        raise ProviderError(code="provider_stream_broken")
    if len(body) > LOOSE_BYTES:
        raise ProviderError(code="response_too_large")
    value = decode(body)
    raise_found(failure_in(value))
    data = value.get("data") if isinstance(value, dict) else value
    if not isinstance(data, list):
        raise ProviderError(code="provider_bad_response")
    around = value if isinstance(value, dict) else {}
    return _Answer(
        data=tuple([msgspec.Raw(_encoded(datum)) for datum in data]),
        model=label_of(around.get("model")),
        usage=around.get("usage"),
    )


def _encoded(datum: Any) -> bytes:  # noqa: ANN401 - any JSON
    try:
        return msgspec.json.encode(datum)
    except (ValueError, OverflowError, RecursionError) as error:
        raise ProviderError(code="provider_bad_response") from error


def _place(datum: dict[str, Any], place: int) -> int:
    index = place_of(datum.get("index"))
    return place if index is None else index


def _packed(embedding: str | tuple[float, ...]) -> bytes:
    if isinstance(embedding, str):
        vector = base64.b64decode(embedding, validate=True)
        if len(vector) % FLOAT_BYTES:
            raise ValueError("the vector is cut off")
        embedding = floats(vector)
    else:
        vector = struct.pack(f"<{len(embedding)}f", *embedding)
    if not embedding or not math.isfinite(sum(embedding)):
        raise ValueError("the vector is empty, or not finite")
    return vector
