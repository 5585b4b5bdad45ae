"""Pipelines: a sequence of stages, each a typed question to a model."""
