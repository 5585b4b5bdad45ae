"""Pipelines: stages one after the other, each a typed question to a model."""
