"""Whose fault an upstream's error is: its HTTP status and its error object, mapped to a code with a reason.

The codes and the messages are those that vendors and their imitators send. Codes are compared whole, in lower case.
"""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from protocol.context_length import CONTEXT_LENGTH, is_context_length, sizes_in_words
from protocol.context_length import WORDS as CONTEXT_WORDS
from protocol.error_text import ErrorFacts, facts_of, reason_of
from protocol.upstream_error import UpstreamError, code_of

BILLING: Final = "provider_billing"
CREDENTIALS: Final = "provider_credentials"
POLICY: Final = "content_policy"
MODEL: Final = "model_not_found"
TOOL: Final = "bad_tool_schema"
LIMITED: Final = "provider_rate_limited"
BUSY: Final = "provider_unavailable"
REJECTED: Final = "provider_rejected"

_IN_BAND: Final = 0  # the status of an error without one
_REDIRECT: Final = 300
_BAD_REQUEST: Final = 400
_UNAUTHENTICATED: Final = 401
_PAYMENT: Final = 402
_NOT_FOUND: Final = frozenset({404, 410})
_TOO_LARGE: Final = 413
_RATE_LIMITED: Final = 429
_SERVER: Final = 500
_STATUS: Final = re.compile(r"[45][0-9]{2}")
_NOT_THE_CALLERS: Final = frozenset(
    {_UNAUTHENTICATED, _PAYMENT, 407, 408, 409, 421, 423, 425, 426, _RATE_LIMITED, 444, 460, 495, 496, 497, 498, 499}
)
"""Statuses below 500 that say by themselves whose the failure is."""


class _Kind(msgspec.Struct, frozen=True):
    """A kind of failure, and how it is recognised.

    Attributes:
        code: of the failure.
        words: codes of upstreams, or what stands before a dot in them.
        text: finds it in messages.
        statuses: further ones than those of the caller's faults at which messages are read.
    """

    code: str
    words: frozenset[str]
    text: re.Pattern[str]
    statuses: frozenset[int] = frozenset()


def _pattern(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(alternatives), re.IGNORECASE)


_BILLING: Final = _Kind(
    BILLING,
    frozenset(
        {
            "1008",  # MiniMax
            "1113",  # GLM
            "30001",  # SiliconFlow
            "accountoverdueerror",
            "allocationquota",
            "arrearage",
            "billing_disabled",
            "billing_error",
            "billing_hard_limit_reached",
            "billing_not_active",
            "credit_balance_too_low",
            "credits_exhausted",
            "exceeded_current_quota_error",
            "insufficient_balance",
            "insufficientbalance",
            "insufficient_credits",
            "insufficient_funds",
            "insufficient_quota",
            "insufficient_user_quota",
            "out_of_credits",
            "payment_required",
        }
    ),
    _pattern(
        r"credit balance is too low",
        r"insufficient (?:account )?(?:credit|balance|fund|quota)",
        r"\b(?:out of|no|used all available|not enough|purchase|buy|add) (?:more )?credits\b",
        r"(?:credits?|balance|funds) (?:is|are|has been|have been) (?:depleted|exhausted|used up|insufficient|negative"
        r"|not enough|too low)",
        r"(?:does ?n.?t|do ?n.?t) have (?:any |enough |sufficient )(?:credits?|licenses?|balance|funds)\b",
        r"requires more credits|monthly included credits|prepay",
        r"billing to be enabled|enable billing|billing (?:account )?(?:has been|is) (?:not enabled|disabled|closed)",
        r"billing (?:hard limit|is not active|not active)|monthly spending limit|payment (?:is )?required",
        r"specified (?:api |workspace )*usage limit",
        r"account is (?:suspended|overdue|in arrears|not active)|in good standing",
        r"overdue (?:balance|payment|bill|invoice)|unpaid (?:balance|bill|invoice)",
        r"free (?:tier|quota|trial|credits?)\b.{0,60}\b(?:exhausted|used up|expired|ended)",
        r"key limit exceeded",
        r"余额不足|额度不足|欠费|请充值",
    ),
    frozenset({_UNAUTHENTICATED, _PAYMENT, _RATE_LIMITED}),
)
_QUOTA: Final = _pattern(r"exceeded your current quota", r"billing details")
_GOOGLES_LIMIT: Final = "resource_exhausted"  # Gemini says the same of a limit that is over in a minute

_CREDENTIALS: Final = _Kind(
    CREDENTIALS,
    frozenset(
        {
            "1004",  # MiniMax
            "2049",  # MiniMax
            "accessdeniedexception",
            "account_deactivated",
            "api_key_invalid",
            "authentication_error",
            "authfailure",
            "expiredtokenexception",
            "invalid_api_key",
            "invalid_authentication_error",
            "invalid_organization",
            "invalidapikey",
            "invalidsignatureexception",
            "mismatched_organization",
            "mismatched_project",
            "missingauthenticationtokenexception",
            "organization_deactivated",
            "organization_disabled",
            "organization_restricted",
            "project_archived",
            "signaturedoesnotmatch",
            "unauthenticated",
            "unauthorized",
            "unrecognizedclientexception",
            "unsupported_country_region_territory",
        }
    ),
    _pattern(
        r"api[ _-]?key (?:is )?(?:not valid|invalid|not found|expired|missing|has been)",
        r"(?:incorrect|invalid|missing|wrong|expired|unknown|no|revoked) (?:x-)?api[ _-]?key",
        r"(?:invalid|incorrect) (?:authentication|credentials|subscription key|bearer token|access token)",
        r"security token included in the request is (?:invalid|expired)",
        r"authentication (?:fails|failed|error)",
        r"\b(?:organi[sz]ation|account|workspace|project|team|api key)\b (?:has been|is|was) (?:currently )?"
        r"(?:disabled|restricted|deactivated|suspended|blocked|banned|archived|terminated|deleted)",
        r"use case details have not been submitted",
        r"(?:user location|country|region)\b.{0,40}\bnot supported",
    ),
)
_CONTEXT: Final = _Kind(CONTEXT_LENGTH, CONTEXT_WORDS, _pattern(r"(?!)"))
_POLICY: Final = _Kind(
    POLICY,
    frozenset(
        {
            "1026",  # MiniMax: the input
            "1027",  # MiniMax: the output
            "1301",  # GLM
            "content-filter",
            "content_filter",
            "content_filter_error",
            "content_policy",
            "content_policy_violation",
            "contentpolicyviolationerror",
            "data_inspection_failed",
            "datainspectionfailed",
            "guardrail_intervened",
            "inputimagesensitivecontentdetected",
            "inputtextsensitivecontentdetected",
            "invalid_prompt",
            "moderation_blocked",
            "outputimagesensitivecontentdetected",
            "outputtextsensitivecontentdetected",
            "prohibited_content",
            "responsibleaipolicyviolation",
            "safety",
            "sensitive_words_detected",
            "sensitivecontentdetected",
            "usage_policy_violation",
        }
    ),
    _pattern(
        r"content (?:management|filter\w*|usage|safety|moderation)?\s?polic(?:y|ies)",
        r"(?:violat\w+|against|because of) .{0,60}\b(?:polic(?:y|ies)|terms of (?:service|use)|guidelines)\b",
        r"safety system|responsible ai|inappropriate content|content exists risk|considered high risk",
        r"\bflagged (?:for|as|by)\b",
        r"blocked (?:by|due to|because of) .{0,60}(?:safety|filter|polic|guardrail|prohibited)",
        r"output blocked|requires moderation",
        r"contains? (?:sensitive|prohibited|harmful|unsafe) (?:information|content|words|material)",
        r"敏感内容|不安全",
    ),
)
_MODEL: Final = _Kind(
    MODEL,
    frozenset(
        {
            "1211",  # GLM
            "deploymentnotfound",
            "endpoint_not_found",
            "invalid_model",
            "invalidendpointormodel.notfound",
            "model_decommissioned",
            "model_deprecated",
            "model_not_available",
            "model_not_exist",
            "model_not_found",
            "model_not_supported",
            "modelnotfound",
            "modelnotopen",
            "unknown_model",
        }
    ),
    _pattern(
        r"\bmodels?\b[\s:/`'\"]*\S{1,120}[`'\"]? (?:does not exist|do not exist|(?:was |is |could )?not (?:be )?found"
        r"|has been (?:decommissioned|deprecated|retired|removed)|is not (?:available|a valid))",
        r"\bmodel (?:not exist|not found|does not exist|identifier is invalid)",
        r"not a valid model|\b(?:unknown|invalid|no such|unsupported) model\b|unable to access model",
        r"\Amodel: \S+\Z",
        r"deployment .{0,60}(?:does not exist|not found)",
        r"could not (?:resolve|find|locate) .{0,40}\bmodel",
        r"\bmodel\b.{0,60}\bend of (?:its )?life",
        r"on-demand throughput is ?n.?t supported",
        r"function (?:id )?'[0-9a-f-]{36}'.{0,40}not found for account",
        r"no endpoints found (?:for|matching)",
        r"publisher model \S+ .{0,20}not found",
    ),
)
_TOOL: Final = _Kind(
    TOOL,
    frozenset({"invalid_function_parameters", "invalid_tool_schema"}),
    _pattern(
        r"invalid schema for (?:function|tool)",
        r"\binput_schema\b.{0,80}\b(?:invalid|must|not support|unsupported|required|draft)",
        r"tools?[.\[]\d+\]?\S*(?:parameters|input_?schema)\b",
        r"function_?declarations\[\d+\]\S*parameters",
        r"toolspec\.inputschema",
        r"(?:tool|function) (?:\S+ )?(?:has an |with an )?(?:invalid|unsupported) (?:json )?(?:schema|parameters)",
    ),
)
_LIMIT: Final = _Kind(
    LIMITED,
    frozenset(
        {
            "quota_limit_exceeded",
            "rate_limit_error",
            "rate_limit_exceeded",
            "rate_limit_reached",
            "rate_limit_reached_error",
            "rate_limited",
            "ratelimit",
            "ratelimitexceeded",
            "requestlimitexceeded",
            "servicequotaexceededexception",
            "throttled",
            "throttling",
            "throttlingexception",
            "too_many_requests",
            "toomanyrequests",
            "toomanyrequestsexception",
            "userratelimitexceeded",
        }
    ),
    _pattern(
        r"too many requests|request (?:was |is |has been )?throttled|(?:currently|being) throttled",
        r"rate limit (?:is |was |has been )?(?:exceeded|reached|hit)|(?:exceeded|reached|hit) .{0,40}\brate limit",
        r"request limit (?:is |was |has been )?(?:exceeded|reached|hit)",
    ),
)
_BUSY: Final = _Kind(
    BUSY,
    frozenset(
        {
            "capacity_exceeded",
            "engine_overloaded",
            "engine_overloaded_error",
            "model_overloaded",
            "modelnotreadyexception",
            "overloaded",
            "overloaded_error",
            "server_overloaded",
            "service_unavailable",
            "serviceunavailable",
            "serviceunavailableexception",
        }
    ),
    _pattern(
        r"\b(?:engine|model|server|service)\b (?:is |are )?(?:currently |temporarily )?(?:overloaded|at capacity)",
    ),
)
_FORM: Final = _Kind(REJECTED, frozenset(), _pattern(r"no endpoints found that (?:can|support)"))
_KINDS: Final = (_BILLING, _FORM, _CONTEXT, _POLICY, _MODEL, _TOOL, _CREDENTIALS, _LIMIT, _BUSY)
_NAMES_A_MODEL: Final = _pattern(r"(?<![/\w.-])(?:models?|model ?ids?|deployment|inference profile)\b(?!/)")
"""What is not found is the model, at a status that says so."""

_STATUSES: Final = (
    (402, _pattern(r"billing|payment")),
    (
        429,
        _pattern(
            r"rate.?limit|too.?many.?requests|throttl|resource.?exhausted|insufficient_quota",
            r"\A(?:tokens|requests)\Z",
            r"\A(?:1002|1039|1302|1303|1305)\Z",  # MiniMax, GLM
            r"\A(?:17|18|19|33650[1-3])\Z",  # Baidu
        ),
    ),
    (401, _pattern(r"authentication|unauthenticated|unauthorized|invalid.?api.?key")),
    (403, _pattern(r"permission|forbidden|access.?denied")),
    (413, _pattern(r"request_too_large")),
    (404, _pattern(r"not.?found")),
    (
        400,
        _pattern(
            r"invalid.?(?:request|argument|param)|bad.?request|validation|context.?length|failed.?precondition",
            r"\A2013\Z",  # MiniMax
        ),
    ),
    (504, _pattern(r"time.?out|deadline.?exceeded")),
    (503, _pattern(r"overloaded|unavailable|capacity")),
)
"""The HTTP status that an error without one means, by its codes and types."""


def refusal_of(status: int, error: object, *, kind: str = "", secrets: Iterable[str] = ()) -> UpstreamError:
    """Return the failure that an upstream reports.

    Args:
        status: the HTTP status; 200 or 0 for an error within an answer, whose own codes then say what it is.
        error: its error object, of any shape, or a text.
        kind: a further code, which stands outside the object.
        secrets: are never in the reason.
    """
    facts = facts_of(error)
    if kind:
        facts.words.add(kind.lower())
    if status < _REDIRECT:
        status = _own_status(facts)
    code = _code(status, facts)
    message = facts.message
    if code == CONTEXT_LENGTH:
        numbers = facts.numbers
        message = sizes_in_words(message, numbers.get("n_prompt_tokens"), numbers.get("n_ctx"))
    return UpstreamError(code=code, status=status, reason=reason_of(message, secrets))


def _code(status: int, facts: ErrorFacts) -> str:
    words = facts.words | {word.partition(".")[0] for word in facts.words}
    for kind in _KINDS:
        if _is(kind, status, facts, words):
            return kind.code
    if status in _NOT_FOUND and _NAMES_A_MODEL.search(facts.text):
        return MODEL
    return "provider_error" if status == _IN_BAND else code_of(status)


def _is(kind: _Kind, status: int, facts: ErrorFacts, words: set[str]) -> bool:
    callers = status == _IN_BAND or (_BAD_REQUEST <= status < _SERVER and status not in _NOT_THE_CALLERS)
    if kind is _LIMIT and status == _TOO_LARGE:
        return False  # a request that is larger than the limit never passes
    if kind.words & words and (callers or status in kind.statuses or _strict(kind, status)):
        return True
    if kind is _CONTEXT:
        return (callers or status >= _SERVER) and is_context_length(facts.text)
    return (callers or status in kind.statuses) and _in_text(kind, facts)


def _in_text(kind: _Kind, facts: ErrorFacts) -> bool:
    """Whether the messages, or the field that they name, are of this kind."""
    text = facts.text
    if kind is _TOOL and kind.text.search(facts.param):
        return True
    if kind is _BILLING and _GOOGLES_LIMIT not in facts.words and _QUOTA.search(text):
        return True
    return kind.text.search(text) is not None


def _strict(kind: _Kind, status: int) -> bool:
    """Whether a code of this kind counts at a status that is not the caller's: proxies send 500 for all."""
    return status >= _SERVER and kind in (_BILLING, _CONTEXT, _POLICY)


def _own_status(facts: ErrorFacts) -> int:
    """Return the HTTP status that an error within an answer means; 0 where it is not known."""
    words = facts.words
    numbers = [int(word) for word in words if _STATUS.fullmatch(word)]
    if numbers:
        return min(numbers)
    for status, pattern in _STATUSES:
        if any(map(pattern.search, words)):
            return status
    return _IN_BAND
