"""Schemas of a tool's arguments in the form that every vendor takes: an object with its properties."""

from typing import Any


def object_schema(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return ``parameters`` as the schema of an object with properties. Fields that are null count as absent.

    An empty schema is that of a function without arguments. One of another type than an object is left unchanged: the
    vendor says what it thinks of it.
    """
    if parameters.get("type") == "object" and isinstance(parameters.get("properties"), dict):
        return parameters if None not in parameters.values() else _present(parameters)
    present = _present(parameters)
    if present.get("type", "object") != "object":
        return parameters
    return {"type": "object", "properties": {}, **present}


def _present(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if value is not None}
