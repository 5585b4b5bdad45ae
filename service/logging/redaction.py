"""Redaction: what may be written of a value. Secrets are replaced in the values, before anything is rendered."""

import dataclasses
import enum
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping
from typing import Any, Final

import msgspec
from pydantic import BaseModel

from protocol.error_text import MIN_SECRET
from protocol.secret_text import ENCODED_MARKS, REDACTED, hide_keys

MAX_DEPTH: Final = 8  # containers inside each other
MAX_ITEMS: Final = 100  # of one container
MAX_VALUES: Final = 1000  # of one line
MAX_TEXT: Final = 2000  # characters of one text
MAX_KEY: Final = 200  # characters
MAX_WORD: Final = 25  # characters; a longer text of letters and digits is an id, which is not in many lines
MAX_READ: Final = 8192  # characters of a text that are searched for secrets; the rest is dropped
MAX_KNOWN: Final = 4096  # names, and texts, that are known to be harmless; at the bound all are forgotten

SECRET_NAMES: Final = frozenset({"auth", "jwt", "passwd", "pepper", "pwd", "ticket"})
SECRET_ENDINGS: Final = (
    "accesskey", "apikey", "authorization", "cookie", "credential", "keypepper", "passphrase", "password", "privatekey",
    "secret", "secretkey", "sessionkey", "signingkey", "token",
    "apikeys", "cookies", "credentials", "passwords", "secrets",
)  # fmt: skip
"""A field is secret where its name, in lower case and without ``-``, ``_`` and blanks, is a secret name, or ends so."""

_SQUEEZED: Final = str.maketrans("", "", "-_ .")
_VALUE: Final = r"""(?:"[^"\r\n]*"?|'[^'\r\n]*'?|\\"[^"\r\n]*"?|[^\s"'\\,;&<>()\[\]{}]+)"""
_PATTERNS: Final = (
    re.compile(
        r"\b(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS|CONNECT|TRACE) (\S{1,2000}) (HTTP/\d(?:\.\d)?)(?=\\r|\\n|\r|\n).*",
        re.DOTALL,
    ),
    re.compile(r"((?:proxy-)?authorization|(?:set-)?cookie)(\\?[\"']?[ \t]*[:=][ \t]*)[^\r\n]*", re.IGNORECASE),
    re.compile(r"\b(bearer)(\s+|\.)[A-Za-z0-9._~+/=-]{6,}", re.IGNORECASE),
    re.compile(r"\b(basic)(\s+)(?=[A-Za-z0-9+/=_-]{0,200}[\d=])[A-Za-z0-9+/=_-]{8,}", re.IGNORECASE),
    re.compile(
        r"(api[-_ ]?keys?|(?:access|private|subscription)[-_]?key|passw(?:or)?d|passphrase|secret|token|ticket)"
        r"(\\?[\"']?[ \t]*[:=][ \t]*)" + _VALUE,
        re.IGNORECASE,
    ),
    re.compile(r"([?&](?:key|sig|signature|code|auth))(=)[^\s&\"'#]+", re.IGNORECASE),
)
"""Each keeps what its groups have found: the name of what is hidden, and how it stood there."""
_MARKS: Final = (
    "sk-", "tg_", "tk_", "eyj", "earer", "asic ", " http/", "authorization", "cookie", "pass", "secret", "ticket",
    "key", "=", "token:", "token\\", "token'", "token ", *(mark.lower() for mark in ENCODED_MARKS),
)  # fmt: skip
"""In lower case: every match contains one of them, and a text without them needs no further search."""
_ATOMS: Final = frozenset({type(None), bool, int, float})


def _is_secret_name(name: str) -> bool:
    squeezed = name.lower().translate(_SQUEEZED)
    return squeezed in SECRET_NAMES or squeezed.endswith(SECRET_ENDINGS)


class Redactor:
    """Makes values fit for a log: without secrets, within bounds, and as JSON knows them.

    Args:
        secrets: are hidden wherever they stand in a text; those shorter than ``MIN_SECRET`` can't be told from words.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted({secret for secret in secrets if len(secret) >= MIN_SECRET}, key=len, reverse=True)
        self._names: set[str] = set()  # that are harmless
        self._texts: set[str] = set()  # the same
        self._exact = re.compile("|".join(map(re.escape, known))) if known else None
        self._marks = (*_MARKS, *(secret.lower() for secret in known))

    def is_plain(self, fields: MutableMapping[str, Any]) -> bool:
        """Return whether ``fields`` can be rendered as they are: all are short, and none is secret or may hold one.

        Most names and texts of a log are in many lines; each of them is looked at once.
        """
        texts = self._texts
        if len(fields) > MAX_ITEMS or not (self._names.issuperset(fields) or self._are_harmless_names(fields)):
            return False
        for value in fields.values():
            kind = type(value)
            if kind is str:
                if value not in texts and not self._is_harmless(value):
                    return False
            elif kind not in _ATOMS and not (kind is dict and self._is_flat(value)):
                return False
        return True

    def are_plain(self, fields: MutableMapping[str, Any], names: Iterable[str]) -> bool:
        """Return whether the fields of these names are short texts that hold no secret, or no texts."""
        texts = self._texts
        for name in names:
            value = fields.get(name)
            if value is None:
                continue
            if type(value) is not str or (value not in texts and not self._is_harmless(value)):
                return False
        return True

    def is_suspicious(self, text: str) -> bool:
        """Return whether a text may hold a secret."""
        lower = text.lower()
        for mark in self._marks:  # noqa: SIM110 - a generator costs twice as much
            if mark in lower:
                return True
        return False

    def clean(self, value: object) -> Any:  # noqa: ANN401 - JSON
        """Return a copy of ``value`` that JSON can express: without secrets, and cut to the bounds of this module."""
        return _Walk(self).value(value, 0)

    def is_secret(self, name: object) -> bool:
        """Return whether the value of a field of this name is hidden."""
        return isinstance(name, str) and _is_secret_name(name)

    def text(self, text: str) -> str:
        """Return ``text`` without secrets, of at most ``MAX_TEXT`` characters and a note on what was cut."""
        length = len(text)
        if length > MAX_READ:
            text = text[:MAX_READ]
            text = text[: max(map(text.rfind, " \n\t,")) + 1]  # a secret that is cut in two looks like none
        if not text.isascii():
            text = text.encode("utf-8", "backslashreplace").decode()
        if self._exact is not None:
            text = self._exact.sub(REDACTED, text)
        if self.is_suspicious(text):
            for pattern in _PATTERNS:
                text = pattern.sub(_hide, text)
            text = hide_keys(text)
        if len(text) > MAX_TEXT:
            text = text[:MAX_TEXT]
        elif length <= MAX_READ:
            return text
        return f"{text}… [{length} characters]"

    def _is_flat(self, fields: dict[Any, Any]) -> bool:
        """Return whether the fields of an inner dict are plain, and none of them has fields of its own."""
        return dict not in map(type, fields.values()) and self.is_plain(fields)

    def _are_harmless_names(self, names: Iterable[object]) -> bool:
        for name in names:
            if type(name) is not str or _is_secret_name(name) or not self._is_harmless(name):
                return False
        if len(self._names) >= MAX_KNOWN:
            self._names.clear()
        self._names.update(map(str, names))
        return True

    def _is_harmless(self, text: str) -> bool:
        """Return whether a text is short, and without marks.

        One of letters and digits has none, unless it is in base64, which has letters of both cases, as ids have not.
        """
        if len(text) > MAX_TEXT:
            return False
        if len(text) > MAX_WORD:
            word = text.removeprefix("req_")
            if word.isalnum() and (word.isupper() or word.islower()):
                return self._exact is None or self._exact.search(text) is None
        if self.is_suspicious(text):
            return False
        if len(text) <= MAX_KEY:
            if len(self._texts) >= MAX_KNOWN:
                self._texts.clear()
            self._texts.add(text)
        return True


class _Walk:
    """One pass over a value, within bounds."""

    __slots__ = ("_left", "_redactor")

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._left = MAX_VALUES

    def value(self, value: object, depth: int) -> Any:  # noqa: ANN401 - JSON
        """Return a clean copy of ``value``."""
        self._left -= 1
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, enum.Enum):
            value = value.value
        if isinstance(value, str):
            return self._redactor.text(str.__str__(value))
        if isinstance(value, int | float):
            return _number(value)
        if isinstance(value, bytes | bytearray | memoryview):
            return f"[{len(value)} bytes]"
        try:
            return self._container(value, depth)
        except Exception as error:  # noqa: BLE001 - a value that can't be read must not end its line
            return f"[unreadable: {type(error).__name__}]"

    def _container(self, value: object, depth: int) -> Any:  # noqa: ANN401 - JSON
        pairs = _pairs_of(value)
        if pairs is None and not isinstance(value, Collection):
            return self._redactor.text(
                f"{type(value).__name__}: {value}" if isinstance(value, Exception) else _said(value)
            )
        if depth >= MAX_DEPTH:
            return "[nested too deeply]"
        if pairs is not None:
            return self._object(pairs, depth)
        items = list(value)  # type: ignore[call-overload]
        if len(items) == 2 and self._redactor.is_secret(items[0]):  # noqa: PLR2004 - a name and its value
            return [self.value(items[0], depth + 1), _hidden(items[1])]
        return self._array(items, depth)

    def _object(self, pairs: Iterable[tuple[object, object]], depth: int) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        dropped = 0
        for name, value in pairs:
            if len(fields) >= MAX_ITEMS or self._left <= 0:
                dropped += 1
            elif self._redactor.is_secret(name):
                fields[self._key(name)] = _hidden(value)
            else:
                fields[self._key(name)] = self.value(value, depth + 1)
        if dropped:
            fields["…"] = f"[{dropped} more]"
        return fields

    def _array(self, items: list[Any], depth: int) -> list[Any]:
        found: list[Any] = []
        for item in items:
            if len(found) >= MAX_ITEMS or self._left <= 0:
                found.append(f"[{len(items) - len(found)} more]")
                break
            found.append(self.value(item, depth + 1))
        return found

    def _key(self, name: object) -> str:
        if name is None or isinstance(name, bool):
            return {None: "null", True: "true", False: "false"}[name]
        text = self._redactor.text(str.__str__(name) if isinstance(name, str) else _said(name))
        return text if len(text) <= MAX_KEY else text[:MAX_KEY] + "…"


def _pairs_of(value: object) -> Iterator[tuple[object, object]] | None:
    """Return the fields of a value that has some; None for any other."""
    if isinstance(value, Mapping):
        return iter(value.items())
    names: Iterable[str]
    if isinstance(value, msgspec.Struct):
        names = value.__struct_fields__
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        names = value._fields
    elif isinstance(value, BaseModel):
        names = type(value).model_fields
    else:
        return None
    return ((name, getattr(value, name, None)) for name in names)


def _said(value: object) -> str:
    """Return how a value is written: as its ``str`` where that is not its class's own ``repr``."""
    return str(value) if type(value).__repr__ is not object.__repr__ else repr(value)


def _hidden(value: object) -> object:
    """Return what is written of a secret: that there is none, or that there is one."""
    return value if value is None or isinstance(value, bool) or value == "" else REDACTED


def _hide(found: re.Match[str]) -> str:
    if len(found.groups()) == 3:  # noqa: PLR2004 - a request's head
        return f"{found[1]} {found[2].partition('?')[0]} {found[3]} {REDACTED}"
    return f"{found[1]}{found[2]}{REDACTED}"


def _number(value: float) -> object:
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return int(value)
        return str(int(value)) if value.bit_length() < MAX_TEXT else f"[an integer of {value.bit_length()} bits]"
    return float(value) if math.isfinite(value) else str(value)
