"""Errors that vendors, and what imitates them, really send: status, body, and what it is."""

import json
from dataclasses import dataclass
from typing import Any

CONTEXT = "context_length_exceeded"
BILLING = "provider_billing"
KEY = "provider_credentials"
POLICY = "content_policy"
MODEL = "model_not_found"
TOOL = "bad_tool_schema"
REJECTED = "provider_rejected"
LIMITED = "provider_rate_limited"


@dataclass(frozen=True)
class Body:
    """An error of an upstream.

    Attributes:
        name: whose it is, and about what.
        status: HTTP; 200 for an error within an answer.
        error: the JSON body, or its text or bytes.
        code: ours.
        reason: a part of what the caller sees; empty where it sees the code's title only.
    """

    name: str
    status: int
    error: Any
    code: str
    reason: str = ""

    @property
    def raw(self) -> bytes:
        """The bytes of the body."""
        if isinstance(self.error, bytes):
            return self.error
        return (self.error if isinstance(self.error, str) else json.dumps(self.error)).encode()


def openai(message: str, code: object = None, kind: object = "invalid_request_error", **fields: object) -> Any:  # noqa: ANN401
    """Return OpenAI's envelope."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code, **fields}}


def anthropic(message: str, kind: str = "invalid_request_error") -> Any:  # noqa: ANN401
    """Return Anthropic's envelope."""
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}


def google(message: str, status: str = "INVALID_ARGUMENT", code: int = 400, **fields: object) -> Any:  # noqa: ANN401
    """Return Google's envelope, as Gemini's compatible endpoint sends it."""
    return [{"error": {"code": code, "message": message, "status": status, **fields}}]


def vllm(message: str, kind: str = "BadRequestError", code: int = 400) -> Any:  # noqa: ANN401
    """Return the envelope of older servers of vLLM."""
    return {"object": "error", "message": message, "type": kind, "param": None, "code": code}


BODIES = (
    # longer than the model's context
    Body(
        "openai-context",
        400,
        openai(
            "This model's maximum context length is 128000 tokens. However, your messages resulted in 130000 tokens."
            " Please reduce the length of the messages.",
            CONTEXT,
        ),
        CONTEXT,
        "maximum context length is 128000 tokens",
    ),
    Body(
        "openai-responses-context",
        400,
        openai("Your input exceeds the context window of this model. Please adjust your input and try again.", CONTEXT),
        CONTEXT,
        "exceeds the context window",
    ),
    Body("azure-context", 400, openai("This model's maximum context length is 8192 tokens.", CONTEXT), CONTEXT, "8192"),
    Body(
        "anthropic-context",
        400,
        anthropic("prompt is too long: 210000 tokens > 200000 maximum"),
        CONTEXT,
        "prompt is too long: 210000 tokens > 200000 maximum",
    ),
    Body(
        "anthropic-context-with-output",
        400,
        anthropic("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease input length"),
        CONTEXT,
        "190000 + 20000 > 200000",
    ),
    Body("bedrock-context", 400, {"message": "Input is too long for requested model."}, CONTEXT, "Input is too long"),
    Body(
        "bedrock-titan-context",
        400,
        {"message": "400 Bad Request: Too many input tokens. Max input tokens: 8192, request input token count: 9000"},
        CONTEXT,
        "Too many input tokens",
    ),
    Body(
        "vertex-context",
        400,
        google(
            "Unable to submit request because the input token count is 1048577 but model only supports up to 1048576."
        ),
        CONTEXT,
        "1048577",
    ),
    Body(
        "gemini-context",
        400,
        google("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576)."),
        CONTEXT,
        "1200000",
    ),
    Body(
        "vllm-context",
        400,
        vllm(
            "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"
            " (4800 in the messages, 200 in the completion)."
        ),
        CONTEXT,
        "you requested 5000 tokens",
    ),
    Body(
        "vllm-max-tokens",
        400,
        openai(
            "'max_tokens' or 'max_completion_tokens' is too large: 9000. This model's maximum context length is 8192"
            " tokens and your request has 500 input tokens",
            400,
            "BadRequestError",
        ),
        CONTEXT,
        "is too large: 9000",
    ),
    Body(
        "sglang-context",
        400,
        vllm("The input (9000 tokens) is longer than the model's context length (8192 tokens)."),
        CONTEXT,
        "9000",
    ),
    Body(
        "llamacpp-context",
        400,
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size, try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 9000,
                "n_ctx": 4096,
            }
        },
        CONTEXT,
        "(9000 tokens > 4096 maximum)",
    ),
    Body(
        "llamacpp-newer-context",
        400,
        openai("request (9000 tokens) exceeds the available context size (4096 tokens), try increasing it", 400, ""),
        CONTEXT,
        "9000",
    ),
    Body(
        "llamacpp-context-at-500",
        500,
        openai("Context size has been exceeded.", 500, "server_error"),
        CONTEXT,
        "Context",
    ),
    Body(
        "llama-cpp-python-context",
        400,
        openai("Requested tokens (5000) exceed context window of 4096", CONTEXT),
        CONTEXT,
        "5000",
    ),
    Body("ollama-context", 400, {"error": "input length exceeds the context length"}, CONTEXT, "input length exceeds"),
    Body(
        "lmstudio-context",
        400,
        {
            "error": "Trying to keep the first 5000 tokens when context the overflows. However, the model is loaded"
            " with context length of only 4096 tokens"
        },
        CONTEXT,
        "overflows",
    ),
    Body(
        "mistral-context",
        400,
        vllm(
            "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
            "invalid_request_prompt",
            3051,
        ),
        CONTEXT,
        "40000",
    ),
    Body(
        "groq-context",
        400,
        openai("Please reduce the length of the messages or completion.", CONTEXT, param="messages"),
        CONTEXT,
        "Please reduce",
    ),
    Body(
        "together-context",
        422,
        openai("Input validation error: `inputs` must have less than 8192 tokens. Given: 9000"),
        CONTEXT,
        "less than 8192",
    ),
    Body(
        "tgi-context",
        422,
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs`",
            "error_type": "validation",
        },
        CONTEXT,
        "must be <= 4096",
    ),
    Body(
        "fireworks-context",
        400,
        openai("The prompt is too long: 140000, model maximum context length: 131071"),
        CONTEXT,
        "140000",
    ),
    Body(
        "xai-context",
        400,
        {
            "code": "Client specified an invalid argument",
            "error": "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        },
        CONTEXT,
        "537812",
    ),
    Body(
        "moonshot-context",
        400,
        openai("Invalid request: Your request exceeded model token limit: 131072 (requested: 150000)"),
        CONTEXT,
        "150000",
    ),
    Body("glm-context", 400, {"error": {"code": "1261", "message": "Prompt exceeds max length"}}, CONTEXT, "Prompt"),
    Body(
        "dashscope-context",
        400,
        openai("<400> InternalError.Algo.InvalidParameter: Range of input length should be [1, 129024]"),
        CONTEXT,
        "[1, 129024]",
    ),
    Body(
        "cohere-context",
        400,
        {"message": "too many tokens: total number of tokens in the prompt cannot exceed 128000 - received 140000."},
        CONTEXT,
        "140000",
    ),
    Body(
        "minimax-context",
        200,
        {"base_resp": {"status_code": 2013, "status_msg": "invalid params, context window exceeds limit"}},
        CONTEXT,
        "context window exceeds limit",
    ),
    Body(
        "openrouter-context",
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {
                    "raw": json.dumps(
                        openai(
                            "This endpoint's maximum context length is 32768 tokens. However, you requested"
                            " about 40000 tokens"
                        )
                    ),
                    "provider_name": "Azure",
                },
            }
        },
        CONTEXT,
        "This endpoint's maximum context length is 32768 tokens",
    ),
    Body(
        "github-context",
        413,
        {
            "error": {
                "code": "tokens_limit_reached",
                "message": "Request body too large for gpt-4o model. Max size: 8000 tokens.",
            }
        },
        CONTEXT,
        "8000",
    ),
    Body(
        "litellm-context",
        400,
        openai("litellm.ContextWindowExceededError: prompt is too long: 9 tokens > 8 maximum", "400", None),
        CONTEXT,
        "9 tokens > 8",
    ),
    # the account at the provider
    Body("openrouter-billing", 402, openai("Insufficient credits. Add more using https://openrouter.ai", 402), BILLING),
    Body("deepseek-billing", 402, openai("Insufficient Balance", "invalid_request_error", "unknown_error"), BILLING),
    Body(
        "openai-billing",
        429,
        openai("You exceeded your current quota, please check your plan.", "insufficient_quota", "insufficient_quota"),
        BILLING,
    ),
    Body("anthropic-billing", 402, anthropic("Payment required", "billing_error"), BILLING),
    Body(
        "anthropic-credit",
        400,
        anthropic("Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing."),
        BILLING,
    ),
    Body("anthropic-limit", 400, anthropic("You have reached your specified API usage limits."), BILLING),
    Body(
        "moonshot-billing",
        429,
        openai("Your account is suspended due to insufficient balance", None, "exceeded_current_quota_error"),
        BILLING,
    ),
    Body("glm-billing", 429, {"error": {"code": "1113", "message": "余额不足或无可用资源包,请充值。"}}, BILLING),
    Body(
        "dashscope-billing",
        400,
        openai("Access denied, account not in good standing", "Arrearage", "Arrearage"),
        BILLING,
    ),
    Body("oneapi-billing", 403, openai("用户额度不足", "insufficient_user_quota", "new_api_error"), BILLING),
    Body(
        "xai-billing",
        403,
        {"code": "permission-denied", "error": "Your team has used all available credits or reached its limit."},
        BILLING,
    ),
    Body("minimax-billing", 200, {"base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}, BILLING),
    Body("stream-billing", 200, {"code": 402, "message": "Insufficient credits"}, BILLING),
    # its credentials
    Body("openai-key", 401, openai("Incorrect API key provided: sk-proj-SECRET12345.", "invalid_api_key"), KEY),
    Body("anthropic-key", 401, anthropic("invalid x-api-key", "authentication_error"), KEY),
    Body(
        "gemini-key",
        400,
        google("API key not valid. Please pass a valid API key.", details=[{"reason": "API_KEY_INVALID"}]),
        KEY,
    ),
    Body(
        "xai-key",
        400,
        {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: xa***yz."},
        KEY,
    ),
    Body("azure-key", 401, {"statusCode": 401, "message": "Access denied due to invalid subscription key."}, KEY),
    Body("bedrock-key", 403, {"message": "The security token included in the request is invalid."}, KEY),
    Body(
        "bedrock-model-access", 403, {"message": "You don't have access to it.", "__type": "AccessDeniedException"}, KEY
    ),
    Body("openai-country", 403, openai("Country, region, or territory not supported", None, "request_forbidden"), KEY),
    Body("cloudflare-403", 403, "<!DOCTYPE html><html><title>Attention Required!</title></html>", KEY),
    # what the provider does not want to read
    Body(
        "openai-policy",
        400,
        openai("Your request was rejected as a result of our safety system.", "content_policy_violation"),
        POLICY,
        "safety system",
    ),
    Body(
        "azure-policy",
        400,
        openai(
            "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
            "content_filter",
            None,
            innererror={"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
        ),
        POLICY,
        "content management policy",
    ),
    Body("anthropic-policy", 400, anthropic("Output blocked by content filtering policy"), POLICY, "Output blocked"),
    Body("gemini-policy", 400, google("The prompt was blocked due to safety"), POLICY, "blocked due to safety"),
    Body(
        "dashscope-policy",
        400,
        openai("Input data may contain inappropriate content.", "data_inspection_failed"),
        POLICY,
        "Input",
    ),
    Body("glm-policy", 400, {"error": {"code": "1301", "message": "系统检测到不安全或敏感内容"}}, POLICY, "系统检测到"),
    Body("deepseek-policy", 400, openai("Content Exists Risk"), POLICY, "Content Exists Risk"),
    Body(
        "openrouter-policy",
        403,
        {
            "error": {
                "code": 403,
                "message": 'The chosen model requires moderation and your input was flagged for "violence"',
                "metadata": {"reasons": ["violence"], "flagged_input": "a private text"},
            }
        },
        POLICY,
        "flagged for",
    ),
    # models that the provider does not have
    Body(
        "openai-model",
        404,
        openai("The model `gpt-9` does not exist or you do not have access to it.", "model_not_found"),
        MODEL,
        "`gpt-9` does not exist",
    ),
    Body("anthropic-model", 404, anthropic("model: claude-9", "not_found_error"), MODEL, "model: claude-9"),
    Body(
        "azure-model",
        404,
        {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}},
        MODEL,
        "deployment",
    ),
    Body(
        "gemini-model",
        404,
        google("models/gemini-9 is not found for API version v1beta", "NOT_FOUND", 404),
        MODEL,
        "models/gemini-9",
    ),
    Body(
        "bedrock-model", 400, {"message": "The provided model identifier is invalid."}, MODEL, "identifier is invalid"
    ),
    Body("vllm-model", 404, vllm("The model `x` does not exist.", "NotFoundError", 404), MODEL, "`x`"),
    Body("ollama-model", 404, {"error": 'model "x" not found, try pulling it first'}, MODEL, "try pulling"),
    Body("mistral-model", 400, vllm("Invalid model: x", "invalid_model", 1500), MODEL, "Invalid model"),
    Body(
        "groq-model",
        400,
        openai("The model `x` has been decommissioned and is no longer supported.", "model_decommissioned"),
        MODEL,
        "decommissioned",
    ),
    Body("openrouter-model", 400, openai("x/y is not a valid model ID", 400), MODEL, "x/y"),
    Body("deepseek-model", 400, openai("Model Not Exist"), MODEL, "Model Not Exist"),
    Body("together-model", 404, openai("Unable to access model x. Please visit our list."), MODEL, "Unable to access"),
    # tools' schemas
    Body(
        "openai-tool",
        400,
        openai(
            "Invalid schema for function 'f': schema must be a JSON Schema of 'type: \"object\"', got 'type: \"None\"'",
            "invalid_function_parameters",
            param="tools[0].function.parameters",
        ),
        TOOL,
        "Invalid schema for function 'f'",
    ),
    Body(
        "anthropic-tool",
        400,
        anthropic("tools.0.custom.input_schema: JSON schema is invalid. It must match JSON Schema draft 2020-12"),
        TOOL,
        "JSON schema is invalid",
    ),
    Body(
        "gemini-tool",
        400,
        google("* GenerateContentRequest.tools[0].function_declarations[0].parameters.properties: should be non-empty"),
        TOOL,
        "should be non-empty",
    ),
    Body(
        "bedrock-tool",
        400,
        {"message": "The value at toolConfig.tools.0.toolSpec.inputSchema.json.type must be one of: object."},
        TOOL,
        "must be one of: object",
    ),
    Body(
        "mistral-tool",
        422,
        {"detail": [{"loc": ["body", "tools", 0, "function", "parameters"], "msg": "value is not a valid dict"}]},
        TOOL,
        "body.tools.0.function.parameters: value is not a valid dict",
    ),
    # other requests that the provider does not take
    Body(
        "openai-value",
        400,
        openai("'temperature' does not support 0.3 with this model."),
        REJECTED,
        "does not support 0.3",
    ),
    Body("openai-response-format", 400, openai("Invalid schema for response_format 'x'"), REJECTED, "response_format"),
    Body(
        "anthropic-turns",
        400,
        anthropic("messages.1: `tool_use` ids were found without blocks"),
        REJECTED,
        "messages.1",
    ),
    Body(
        "gemini-turns",
        400,
        google("Please ensure that function call turn comes after a user turn"),
        REJECTED,
        "user turn",
    ),
    Body(
        "fastapi",
        422,
        {"detail": [{"loc": ["body", "x"], "msg": "field required"}]},
        REJECTED,
        "body.x: field required",
    ),
    Body("fastapi-text", 400, {"detail": "bad things"}, REJECTED, "bad things"),
    Body(
        "cloudflare",
        400,
        {"success": False, "errors": [{"message": "AiError: no", "code": 5006}]},
        REJECTED,
        "AiError: no",
    ),
    Body(
        "nested-json",
        400,
        openai('litellm.BadRequestError: {"error":{"message":"top_k is out of range","code":"400"}}'),
        REJECTED,
        "top_k is out of range",
    ),
    Body("plain-text", 400, "unsupported parameter: foo", REJECTED, "unsupported parameter: foo"),
    Body("cut-json", 400, '{"error": {"message": "top_p is \\"odd\\"", "type": "inv', REJECTED, 'top_p is "odd"'),
    Body("nothing", 400, b"", REJECTED),
    Body("html", 400, "<html><body>400 Bad Request nginx</body></html>", REJECTED),
    Body("html-in-json", 400, openai("<html><head><title>no</title></head></html>"), REJECTED),
    Body(
        "too-large", 413, anthropic("Request exceeds the maximum size", "request_too_large"), REJECTED, "maximum size"
    ),
    # what looks like one of these and is none
    Body("nginx-404", 404, "<html><h1>404 Not Found</h1></html>", "provider_bad_response"),
    Body("fastapi-404", 404, {"detail": "Not Found"}, "provider_bad_response"),
    Body("empty-404", 404, b"", "provider_bad_response"),
    Body(
        "openai-limit",
        429,
        openai("Rate limit reached for gpt-5 on tokens per min (TPM): Limit 1", "rate_limit_exceeded", "tokens"),
        LIMITED,
    ),
    Body("bedrock-limit", 429, {"message": "Too many tokens, please wait before trying again."}, LIMITED),
    Body(
        "gemini-limit",
        429,
        google(
            "You exceeded your current quota, please check your plan and billing details.", "RESOURCE_EXHAUSTED", 429
        ),
        LIMITED,
    ),
    Body("stream-limit", 200, {"type": "rate_limit_error", "message": "slow down"}, LIMITED),
    Body("go-deadline", 500, openai("context deadline exceeded", None, "server_error"), "provider_error"),
    Body("oneapi-no-channel", 503, openai("当前分组 default 下对于模型 x 无可用渠道", MODEL), "provider_unavailable"),
    Body("anthropic-overloaded", 529, anthropic("Overloaded", "overloaded_error"), "provider_unavailable"),
    Body("stream-overloaded", 200, {"type": "overloaded_error", "message": "Overloaded"}, "provider_unavailable"),
    Body("stream-unknown", 200, {"message": "oh no"}, "provider_error"),
    Body("stream-text", 200, "oh no", "provider_error"),
    Body("stream-null", 200, None, "provider_error"),
    # more of the operator's faults
    Body("anthropic-disabled", 400, anthropic("This organization has been disabled."), KEY),
    Body("groq-restricted", 400, openai("Organization has been restricted.", "organization_restricted"), KEY),
    Body("openai-deactivated", 400, openai("Your account was x", "account_deactivated"), KEY),
    Body("gemini-place", 400, google("User location is not supported for the API use.", "FAILED_PRECONDITION"), KEY),
    Body("bedrock-form", 404, {"message": "Model use case details have not been submitted for this account."}, KEY),
    Body("tencent-key", 200, {"error": {"code": "AuthFailure.SecretIdNotFound", "message": "x"}}, KEY),
    Body(
        "xai-credits",
        403,
        {"code": "denied", "error": "Your newly created team doesn't have any credits or licenses yet."},
        BILLING,
    ),
    Body(
        "siliconflow-balance", 403, {"code": 30001, "message": "Sorry, your account balance is insufficient"}, BILLING
    ),
    Body(
        "google-billing",
        403,
        {"error": {"code": 403, "message": "This API method requires billing to be enabled.", "status": "x"}},
        BILLING,
    ),
    Body("volc-overdue", 403, openai("x", "AccountOverdueError", "Forbidden"), BILLING),
    Body("aliyun-free-tier", 403, openai("x", "AllocationQuota.FreeTierOnly"), BILLING),
    # more of the content
    Body(
        "volc-content",
        400,
        openai("may contain sensitive information", "SensitiveContentDetected.Severe"),
        POLICY,
        "sensitive information",
    ),
    # more models
    Body(
        "bedrock-foundation",
        404,
        {"message": "Could not resolve the foundation model from the model identifier: z"},
        MODEL,
        "foundation model",
    ),
    Body(
        "bedrock-old", 404, {"message": "This model version has reached the end of its life."}, MODEL, "end of its life"
    ),
    Body(
        "bedrock-profile",
        400,
        {"message": "Invocation of ID x with on-demand throughput isn\u2019t supported."},
        MODEL,
        "on-demand",
    ),
    Body("fastapi-model", 404, {"detail": "Not found: model zz"}, MODEL, "Not found: model zz"),
    Body("llama-swap-model", 404, {"error": "could not find real modelID for x"}, MODEL, "real modelID"),
    Body(
        "openai-not-chat",
        404,
        openai("This is not a chat model and thus not supported here."),
        MODEL,
        "not a chat model",
    ),
    Body("gone-model", 410, {"detail": "The model was retired"}, MODEL, "was retired"),
    Body("path-404", 404, {"error": "Invalid URL (POST /v1/models/x/chat)"}, "provider_bad_response"),
    # rates and capacity at statuses of the caller's
    Body("400-limit", 400, openai("Too many requests", "rate_limit_exceeded"), LIMITED),
    Body("403-limit", 403, google("x", "PERMISSION_DENIED", 403, details=[{"reason": "RATE_LIMIT_EXCEEDED"}]), LIMITED),
    Body("bedrock-400-limit", 400, {"__type": "ThrottlingException", "message": "x"}, LIMITED),
    Body("bedrock-quota", 400, {"__type": "com.amazon#ServiceQuotaExceededException", "message": "x"}, LIMITED),
    Body("aliyun-limit", 400, openai("Requests rate limit exceeded", "Throttling.RateQuota"), LIMITED),
    Body(
        "groq-413",
        413,
        openai("Request too large for model `x` on TPM: Limit 6", "rate_limit_exceeded"),
        REJECTED,
        "too large",
    ),
    Body("baidu-limit", 200, {"error_code": 17, "error_msg": "Open api daily request limit reached"}, LIMITED),
    Body("groq-capacity", 498, openai("Flex tier capacity exceeded", "capacity_exceeded"), "provider_unavailable"),
    Body(
        "400-overloaded", 400, openai("The engine is currently overloaded", "engine_overloaded"), "provider_unavailable"
    ),
    Body("too-early", 425, {"error": "too early"}, "provider_error"),
    Body("nginx-closed", 499, b"", "provider_error"),
    # forms
    Body(
        "openrouter-form", 404, openai("No endpoints found that can handle the requested parameters."), REJECTED, "No"
    ),
)
