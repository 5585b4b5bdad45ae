"""What an upstream's error says: its codes, and its reason as a short text that is safe to show."""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

MAX_REASON: Final = 300  # characters of a reason
MAX_TEXT: Final = 2000  # characters of an error's messages that are read
MAX_DEPTH: Final = 6  # objects inside each other
MAX_VALUES: Final = 200  # values of an error that are read
MAX_NUMBER: Final = 10**12
MAX_WORD: Final = 100  # characters of a code
MIN_SECRET: Final = 6  # characters; a shorter value can't be told from a word
HIDDEN: Final = "***"  # takes the place of a secret; shorter than any

_MESSAGES: Final = frozenset(
    {
        "message", "msg", "detail", "details", "error", "errors", "error_message", "errormessage", "error_msg",
        "error_description", "status_msg", "originalmessage", "description", "raw", "text", "fault", "faultstring",
    }
)  # fmt: skip
_CODES: Final = frozenset(
    {
        "code", "type", "status", "error_type", "errortype", "error_code", "errorcode", "err_code", "status_code",
        "statuscode", "reason", "__type", "kind", "name", "http_code", "originalstatuscode",
    }
)  # fmt: skip
_INSIDE: Final = frozenset(
    {"data", "base_resp", "innererror", "inner_error", "metadata", "response", "body", "cause", "fieldviolations"}
)
_NUMBERS: Final = frozenset({"n_ctx", "n_prompt_tokens"})
_FENCES: Final = re.compile(r"[{\[].*[}\]]", re.DOTALL)
_QUOTED: Final = re.compile(r'"(?:message|msg|detail|error)"\s*:\s*"((?:[^"\\]|\\.){1,2000})')
_HTML: Final = re.compile(
    r"<\s*/?(?:!doctype|html|head|body|title|center|h[1-6]|div|span|p|br|pre|script)\b", re.IGNORECASE
)
_TRACE: Final = re.compile(
    r"Traceback \(most|File \"|\bat [\w.$<>/]+\s?\(|\bat (?!\d)\S+:\d+:\d+|goroutine \d+|\bpanic:|\bstack trace",
    re.IGNORECASE,
)
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_LONG: Final = re.compile(r"[!-~]{200,}")
_SPACES: Final = re.compile(r"\s+")
_PARTIAL: Final = re.compile(r"[!-~]*\Z")
_SECRETS: Final = re.compile(
    r"""
      [a-z][a-z0-9+.-]*://[^\s/"'<>]*@[^\s"'<>]*                              # a URL with credentials
    | \b(?!https?:)[a-z][a-z0-9+.-]*://[^\s"'<>]+                             # a URL of a database, a file, a bucket
    | (?<=[?&])[\w.-]+=[^\s&"'<>)]+                                            # a URL's query
    | [a-z][a-z0-9+.-]*://(?:[\w-]+|[\d.]+|\[[0-9a-f:.%]+\]
        |[\w.-]+\.(?:local|localdomain|internal|intranet|svc|cluster|lan|corp|consul)(?:\.[\w-]+)*)
      (?=[:/\s"'<>)]|$)[^\s"'<>]*                                             # the URL of an internal host
    | \b(?:[\w-]+\.)+(?:local|localdomain|internal|intranet|svc|cluster|lan|corp|consul)\b
      (?:\.[\w-]+)*(?::\d+)?                                                  # an internal host
    | \blocalhost(?::\d+)?\b | \bip-\d{1,3}(?:-\d{1,3}){3}[\w.-]*
    | \b[a-z][a-z0-9-]*-[a-z0-9]{8,10}-[a-z0-9]{5}\b(?<=\d[a-z0-9-]{14}|.\d[a-z0-9-]{13}|..\d[a-z0-9-]{12})
    | (?:(?<=\bto\ )|(?<=\btcp\ )|(?<=\bhost\ )|(?<=\bupstream\ )|(?<=\bserver\ )|(?<=\bbackend\ )|(?<=\blookup\ )
        |(?<=\bfrom\ )|(?<=\bat\ ))(?!\d{4}-)[\w.-]*[a-z][\w.-]*:\d{2,5}\b            # a host with its port
    | \bhost(?:name)?=["']?[^\s"'<>,)]+
    | [^\s"'`(,;]*\b\d{1,3}(?:\.\d{1,3}){3}\b[^\s"'`),;]*                      # an IPv4 address
    | \[?(?<![\w:.])(?:(?:[0-9a-f]{1,4}:){5,7}[0-9a-f]{1,4}
        |[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6}::(?:[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6})?
        |::[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6})(?:%\w+)?(?![\w:])(?:/\d+)?\]?(?::\d+)?   # an IPv6 or MAC address
    | \b[\w.+-]+@[\w-]+(?:\.[\w-]+)+                                          # an e-mail address
    | \bbearer\s+(?!token\b|auth)[^\s"'<>]{4,}
    | \bbasic\s+(?=\S*[\d=])[\w+/=-]{8,}
    | \b(?:authorization|(?:x-)?api[ _-]?key|(?:access|private|account|subscription)[ _-]?key|client[ _-]?secret|secret
        |password|passwd|passphrase|pwd|token)["']?\s*[:=]\s*["']?(?!not\b|is\b)[^\s"'<>,]{4,}
    | \b(?:set-)?cookies?["']?\s*[:=]\s*["']?[^\s"'<>;]{4,}(?:;\s*[\w.-]+=[^\s;"'<>]+)*
    | \b(?:\w*sess(?:ion)?[ _-]?(?:id|key)?|sid|\w*csrf\w*|\w*xsrf\w*)["']?\s*[:=]\s*["']?(?=[^\s"'<>,;]*\d)
      [^\s"'<>,;]{6,}
    | -----BEGIN\ [A-Z ]*(?:.*?-----END\ [A-Z ]*-----|.*)                      # a key or a certificate
    | \b(?:sk|rk|pk|gsk|xai|hf|gh[oprsu]|github_pat|gl[a-z]{2,4}t|pplx|nvapi|csk|pcsk|r8|tgp|fw|rpa|sbp|ya29|hv[bsr]|npm
        |pypi|dop_v1|dckr_pat|shp[a-z]{2}|whsec|glsa|lin_api|ntn|sntry[su]|xox[a-z](?:\.xox[a-z])?|xapp|SG)
      [-_.][\w.*+/=-]{6,}                                                      # a token, by its prefix
    | \b(?:org-|proj_|acct_|user-)[A-Za-z0-9]{8,}
    | \b(?:AIza|eyJ|AKIA|ASIA|AROA|dapi)[\w.*+/=-]{10,}
    | \barn:aws[\w-]*:[\w-]*:[\w-]*:\d{12}:[^\s"'<>),]*                       # a resource, with its account
    | \b[a-z]:\\(?:[^"'<>|,)]*\\)?[^\s"'<>|,)]* | \b[a-z]:/(?!/)[^\s"'<>|,)]* # a path of Windows
    | (?<!\S)\\\\[\w.-]+\\[^\s"'<>]*
    | (?<![\w./-])~?/(?:home|usr|opt|app|var|root|srv|tmp|etc|mnt|data|workspace|Users|run|proc|dev|sys|lib|lib64|bin
        |boot|media|Library|Applications|private|Volumes|nix|code|src|build|models?|weights|checkpoints|cache|scratch|shared
        |config|secrets|vllm-workspace)/[^\s"'<>),]*
    | (?<![\w./-])~/[^\s"'<>),]+
    | (?<![\w./:-])(?:\.{0,2}/)?(?:[\w@+-][\w.@+-]*/)+[\w@+-][\w.@+-]*
      \.(?:py|so|go|js|ts|rs|rb|java|cc|cpp|cu|gguf|safetensors|pem|key|crt|ya?ml|toml|conf|ini|env|log|sock|sqlite|sh)
      \b(?::\d+)?                                                             # a file
    | (?<![\w+/=-])(?=[0-9a-f]*\d)(?=\d*[a-f])[0-9a-f]{16,}(?![\w+/=-])
    | (?<![\w+/=-])(?=[\w+/=-]*\d[\w+/=-]*\d[\w+/=-]*\d)(?=[\w+/=-]*[A-Za-z])[\w+/=-]{32,}   # an opaque token
""",
    re.IGNORECASE | re.VERBOSE,
)


class ErrorFacts(msgspec.Struct):
    """What an error object says.

    Attributes:
        words: its codes and types, in lower case; numbers as text.
        messages: its messages, each with its depth.
        numbers: its counts of tokens, by name.
        param: the field that it names.
    """

    words: set[str] = msgspec.field(default_factory=set)
    messages: list[tuple[int, str]] = msgspec.field(default_factory=list)
    numbers: dict[str, int] = msgspec.field(default_factory=dict)
    param: str = ""

    @property
    def text(self) -> str:
        """All messages as one text, for recognition."""
        return without_long_words(" ".join(message for _, message in self.messages)[:MAX_TEXT])

    @property
    def message(self) -> str:
        """The innermost messages: proxies wrap those of the model's own server."""
        deepest = max((depth for depth, _ in self.messages), default=0)
        inner = dict.fromkeys(message for depth, message in self.messages if depth == deepest)
        return "; ".join(inner)[:MAX_TEXT]


def facts_of(error: object) -> ErrorFacts:
    """Return what ``error`` says: a JSON value of any shape, or a text."""
    reader = _FactsReader()
    reader.read("error", error, 0)
    return reader.facts


def read_error(body: bytes) -> object:
    """Return the JSON value of an error's body, or its text; a body of HTML has none."""
    text = body.decode("utf-8", "replace").lstrip("\ufeff").strip()
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        pass
    if _HTML.search(text[:MAX_TEXT]):
        return ""
    quoted = _QUOTED.search(text) if text[:1] in ("{", "[") else None
    return _unescaped(quoted[1]) if quoted is not None else text[:MAX_TEXT]


def reason_of(message: str, secrets: Iterable[str] = ()) -> str:
    """Return ``message`` as a reason for a caller: one line of at most ``MAX_REASON`` characters.

    Control characters, secrets, internal addresses and stack traces are removed. Text with HTML gives no reason.
    """
    message = message[:MAX_TEXT]
    if _HTML.search(message):
        return ""
    trace = _TRACE.search(message)
    if trace is not None:
        message = message[: trace.start()]
    line = without_secrets(_one_line(message), secrets)
    line = _SECRETS.sub(HIDDEN, without_long_words(line))
    if len(line) > MAX_REASON:
        line = _PARTIAL.sub("", line[: MAX_REASON - 1]).rstrip() + "…"  # part of a word may be part of a secret
    return line if any(map(str.isalnum, line)) else ""


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return ``text`` without any of ``secrets``."""
    for secret in secrets:
        if len(secret) >= MIN_SECRET:
            text = text.replace(secret, HIDDEN)
    return text


def without_long_words(text: str) -> str:
    """Return ``text`` without words of 200 characters or more: data, on which patterns would take long."""
    return _LONG.sub(HIDDEN, text)


class _FactsReader:
    """Walks an error object, within bounds.

    Attributes:
        facts: what has been read.
    """

    __slots__ = ("_left", "facts")

    def __init__(self) -> None:
        self.facts = ErrorFacts()
        self._left = MAX_VALUES

    def read(self, key: str, value: object, depth: int) -> None:
        """Read the value of ``key``."""
        self._left -= 1
        if self._left < 0 or depth > MAX_DEPTH:
            return
        if isinstance(value, str):
            self._string(key, value, depth)
        elif isinstance(value, bool) or value is None:
            return
        elif isinstance(value, int | float):
            self._number(key, value)
        elif isinstance(value, dict):
            if key in _MESSAGES or key in _INSIDE:
                self._object(value, depth + 1)
        elif isinstance(value, list) and (key in _MESSAGES or key in _INSIDE):
            for item in value:
                self.read(key, item, depth)

    def _object(self, fields: Mapping[str, Any], depth: int) -> None:
        place = fields.get("loc")
        message = fields.get("msg")
        if isinstance(place, list) and isinstance(message, str):  # as FastAPI has it
            where = ".".join(str(part)[:MAX_WORD] for part in place[:MAX_DEPTH])
            self.facts.param = self.facts.param or where
            self.facts.messages.append((depth, f"{where}: {message}"[:MAX_TEXT]))
            return
        for key, value in fields.items():
            self.read(key.lower(), value, depth)

    def _string(self, key: str, value: str, depth: int) -> None:
        if key == "param":
            self.facts.param = value[:MAX_WORD]
        elif key in _CODES:
            self.facts.words.add(value.rpartition("#")[2].strip().lower()[:MAX_WORD])
        elif key in _MESSAGES:
            self._message(key, value.strip(), depth)

    def _message(self, key: str, value: str, depth: int) -> None:
        if key == "error" and value and " " not in value:
            self.facts.words.add(value.lower()[:MAX_WORD])
        inner = _json_in(value)
        if inner is not None:
            before = len(self.facts.messages)
            self.read("error", inner, depth + 1)
            if len(self.facts.messages) > before:
                return
        if value:
            self.facts.messages.append((depth, value[:MAX_TEXT]))

    def _number(self, key: str, value: float) -> None:
        if not 0 <= value <= MAX_NUMBER or value % 1:
            return
        if key in _CODES:
            self.facts.words.add(str(int(value)))
        elif key in _NUMBERS:
            self.facts.numbers[key] = int(value)


def _json_in(text: str) -> object:
    """Return the JSON object or array in a message: proxies pass on errors as text. None where there is none."""
    if "{" not in text or len(text) > MAX_TEXT:
        return None
    found = _FENCES.search(text)
    if found is None:
        return None
    try:
        value = json.loads(found[0], strict=False)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text


def _one_line(text: str) -> str:
    """Return ``text`` with single spaces, and without control and format characters."""
    spaced = _SPACES.sub(" ", _ESCAPES.sub("", text))
    return "".join([char for char in spaced if unicodedata.category(char)[0] != "C"]).strip()
