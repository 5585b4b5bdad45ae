"""Which models there are."""

from tests.service.bench import open_service


async def test_the_models_are_listed_as_openai_lists_them() -> None:
    """Each has its name, its provider as the owner, and a time that stays; last come those that only embed."""
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
    """Without a key the answer is OpenAI's envelope of a 401."""
    async with open_service(api_keys="secret") as service:
        response = await service.get("/v1/models")
        assert response.status == 401
        assert (await response.json())["error"]["type"] == "authentication_error"
        assert (await service.get("/v1/models", authorization="Bearer secret")).status == 200
