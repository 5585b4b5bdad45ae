"""The list of models."""

from tests.service.bench import open_service


async def test_the_models_are_listed_as_openai_lists_them() -> None:
    """Each has its name, its provider as the owner, and a constant time; embedding models are last."""
    async with open_service() as service:
        response = await service.get("/v1/models")
        listed = await response.json()
        assert response.status == 200
        assert listed["object"] == "list"
        assert [(model["id"], model["object"], model["owned_by"]) for model in listed["data"]] == [
            ("default", "model", "p"),
            ("m", "model", "p"),
            ("local/smollm2", "model", "local"),
        ]
        assert await (await service.get("/v1/models")).json() == listed


async def test_the_list_is_for_those_who_have_a_key() -> None:
    """Without a key the response is a 401 in OpenAI's envelope."""
    async with open_service(api_keys="a-secret-of-the-tests") as service:
        response = await service.get("/v1/models")
        assert response.status == 401
        assert (await response.json())["error"]["type"] == "authentication_error"
        assert (await service.get("/v1/models", authorization="Bearer a-secret-of-the-tests")).status == 200


async def test_a_model_is_found_by_its_name() -> None:
    """An alias, a name with a slash, an embedding model; an unknown one is OpenAI's 404."""
    async with open_service() as service:
        listed = {model["id"]: model for model in (await (await service.get("/v1/models")).json())["data"]}
        for name in ("default", "m", "local/smollm2"):
            assert await (await service.get(f"/v1/models/{name}")).json() == listed[name]
        assert (await (await service.get("/v1/models/p%2Fm")).json())["id"] == "p/m"
        missing = await service.get("/v1/models/unknown")
        assert missing.status == 404
        assert (await missing.json())["error"]["code"] == "model_not_found"


async def test_anthropics_clients_hear_of_a_missing_model_in_their_words() -> None:
    """The route is shared, so the header decides, also for errors."""
    async with open_service() as service:
        missing = await service.get("/v1/models/unknown", **{"anthropic-version": "2023-06-01"})
        assert missing.status == 404
        assert (await missing.json())["error"]["type"] == "not_found_error"
