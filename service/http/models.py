"""``GET /v1/models`` and ``/v1/models/{model}``: the models, in OpenAI's or Anthropic's format."""

import time
from types import ModuleType
from typing import Final

from aiohttp import web

from protocol.anthropic import answer as anthropic_answer
from protocol.gateway import ListModels, ModelInfo, ResolveModel
from protocol.openai import answer as openai
from service.auth.permissions import check_model, listed
from service.container import Container
from service.context import call_of, container_of
from service.http.anthropic_answers import AnthropicModel, AnthropicModelList
from service.http.json_response import JsonResponse
from service.http.openai_answers import OpenAIModel, OpenAIModelList
from service.http.operations import ASKS, MODELS, Answer, Operation, Parameter, add_operations, path_name
from service.middleware.errors import of_anthropic

ASK_TIMEOUT: Final = 5.0  # seconds
VERSION: Final = Parameter(
    name="anthropic-version", place="header", text="Any value: the answer then has Anthropic's form."
)
CREATED: Final = web.AppKey("models_created", int)


def add_routes(app: web.Application) -> None:
    """Add the routes of the list and of one model, whose name may have slashes."""
    app[CREATED] = int(time.time())
    add_operations(app, models, model)


@Operation(
    "GET",
    "/v1/models",
    name="listModels",
    tag=MODELS,
    summary="List the models that the caller may use.",
    parameters=(VERSION,),
    answers=(Answer(200, "The models.", OpenAIModelList | AnthropicModelList),),
    errors=ASKS,
)
async def models(request: web.Request) -> JsonResponse:
    """Return every model that the caller may use: chat models, then those that only embed.

    The creation time is the start of the service. Anthropic's clients are recognized by their header.
    """
    principal = call_of(request).principal
    chat, others = await _known(container_of(request))
    names = {known.name for known in chat}
    every = (*chat, *(other for other in others if other.name not in names))
    listing = [known for known in every if listed(principal, known.name)]
    return JsonResponse(_dialect(request).models_body(listing, request.config_dict[CREATED]))


@Operation(
    "GET",
    "/v1/models/{model:.+}",
    name="getModel",
    tag=MODELS,
    summary="Get one model.",
    parameters=(path_name("model", "The model's name, which may have slashes.", example="default"), VERSION),
    answers=(Answer(200, "The model.", OpenAIModel | AnthropicModel),),
    errors=(*ASKS, "model_not_found", "model_not_allowed"),
)
async def model(request: web.Request) -> JsonResponse:
    """Return one model that the caller may use, whether or not it is listed.

    Raises:
        AccessDenied: ``model_not_allowed``.
        NotFound: ``model_not_found``.
    """
    principal, name = call_of(request).principal, request.match_info["model"]
    if not listed(principal, name):
        check_model(principal, name)
    found = await _find(container_of(request), name)
    return JsonResponse(_dialect(request).model_body(found, request.config_dict[CREATED]))


async def _find(container: Container, name: str) -> ModelInfo:
    chat, others = await _known(container)
    for known in (*chat, *others):
        if known.name == name:
            return known
    return await container.gateway.ask(ResolveModel(name), timeout=ASK_TIMEOUT)


async def _known(container: Container) -> tuple[tuple[ModelInfo, ...], tuple[ModelInfo, ...]]:
    """Return the chat models and the embedding models."""
    chat = await container.gateway.ask(ListModels(), timeout=ASK_TIMEOUT)
    return chat, await container.embeddings.ask(ListModels(), timeout=ASK_TIMEOUT)


def _dialect(request: web.Request) -> ModuleType:
    return anthropic_answer if of_anthropic(request) else openai
