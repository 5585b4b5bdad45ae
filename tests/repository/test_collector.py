"""The collector's structure: a wrong reference stops the collector, a wrong order or context silently leaks data."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from protocol import spans

HEALTH_ROUTES = {"/api/health", "/api/health/live", "/api/health/ready"}
REDACT = "transform/redact"
STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')

Config = dict[str, Any]


@pytest.fixture(scope="session")
def config(root: Path) -> Config:
    """The collector's configuration, parsed."""
    loaded: Config = yaml.safe_load((root / "otel-collector.yaml").read_text(encoding="utf-8"))
    return loaded


def pipelines(config: Config) -> dict[str, Config]:
    """The pipelines by name."""
    found: dict[str, Config] = config["service"]["pipelines"]
    return found


def upstream(config: Config, name: str) -> Iterator[list[str]]:
    """Every list of trace processors that a span passes on its way to the exporters of pipeline ``name``."""
    pipeline = pipelines(config)[name]
    for receiver in pipeline["receivers"]:
        if receiver not in config["connectors"]:
            yield list(pipeline.get("processors", []))
            continue
        for feeder, definition in pipelines(config).items():
            if receiver in definition["exporters"]:
                for before in upstream(config, feeder):
                    yield [*before, *pipeline.get("processors", [])]


def statement_groups(config: Config) -> list[Config]:
    """The redaction's groups of statements, each with its context."""
    groups: list[Config] = config["processors"][REDACT]["trace_statements"]
    return groups


def patterns(config: Config, function: str, context: str) -> list[str]:
    """The regular expressions of ``function`` in the statements of ``context``, unescaped."""
    return [
        STRING.findall(statement)[-2 if function.startswith("replace") else -1].replace("\\\\", "\\")
        for group in statement_groups(config)
        if group["context"] == context
        for statement in group["statements"]
        if statement.startswith(f"{function}(")
    ]


def test_every_reference_is_defined(config: Config) -> None:
    """A pipeline names only components that the file defines."""
    sources = {*config["receivers"], *config["connectors"]}
    sinks = {*config["exporters"], *config["connectors"]}
    for name, pipeline in pipelines(config).items():
        assert set(pipeline["receivers"]) <= sources, name
        assert set(pipeline.get("processors", [])) <= set(config["processors"]), name
        assert set(pipeline["exporters"]) <= sinks, name
    assert set(config["service"]["extensions"]) <= set(config["extensions"])


def test_every_component_is_used(config: Config) -> None:
    """Every component of the file is in a pipeline: an unused processor would protect nothing."""
    used = {part for pipeline in pipelines(config).values() for parts in pipeline.values() for part in parts}
    for kind in ("receivers", "processors", "exporters", "connectors"):
        assert set(config[kind]) <= used, kind
    assert set(config["extensions"]) == set(config["service"]["extensions"])


def test_connectors_join_two_pipelines(config: Config) -> None:
    """A connector is an exporter of one pipeline and a receiver of another one."""
    for connector in config["connectors"]:
        feeders = {name for name, pipeline in pipelines(config).items() if connector in pipeline["exporters"]}
        fed = {name for name, pipeline in pipelines(config).items() if connector in pipeline["receivers"]}
        assert feeders, connector
        assert fed, connector
        assert not feeders & fed, connector


def test_memory_is_limited_before_anything_else(config: Config) -> None:
    """All data from outside passes the memory limiter first."""
    for name, pipeline in pipelines(config).items():
        if set(pipeline["receivers"]) & set(config["receivers"]):
            assert pipeline["processors"][0] == "memory_limiter", name


def test_nothing_leaves_unredacted(config: Config) -> None:
    """Spans are redacted before they are sampled, counted or exported, on every path through the pipelines."""
    for name, pipeline in pipelines(config).items():
        for passed in upstream(config, name):
            assert REDACT in passed, name
            if "tail_sampling" in passed:
                assert passed.index(REDACT) < passed.index("tail_sampling"), name
        assert pipeline["exporters"], name


def test_sampling_sees_whole_traces(config: Config) -> None:
    """Span metrics count every span: they branch off before the sampling."""
    feeder = next(pipeline for pipeline in pipelines(config).values() if "spanmetrics" in pipeline["exporters"])
    assert "tail_sampling" not in feeder["processors"]


def test_span_and_event_statements_are_apart(config: Config) -> None:
    """Every path carries the prefix of its own list's context: a mixed list redacts nothing."""
    contexts = [group["context"] for group in statement_groups(config)]
    assert sorted(contexts) == ["span", "spanevent"]
    for group in statement_groups(config):
        for statement in group["statements"]:
            target = statement.partition("(")[2].partition(",")[0]
            assert target.startswith(f"{group['context']}."), statement
            paths = set(re.findall(r"\b(span|spanevent|resource|scope)\.", STRING.sub("", statement)))
            assert paths == {group["context"]}, statement


def test_dollars_are_escaped(root: Path) -> None:
    """A single dollar is an environment variable to the collector, and an empty one disappears."""
    text = (root / "otel-collector.yaml").read_text(encoding="utf-8")
    assert re.findall(r"\$(?!\{env:[A-Z_]+:-[^}]+\})", text.replace("$$", "")) == []


@pytest.mark.parametrize(
    ("context", "secret"),
    [
        ("span", "Bearer abc.def-ghi"),
        ("span", "sk-abcdefghijklmnop1234"),
        ("span", "someone@example.com"),
        ("span", "https://example.com/?key=abc&x=1"),
        ("spanevent", "authorization failed for bearer abcdef"),
        ("spanevent", "sk-abcdefghijklmnop1234"),
        ("spanevent", "someone@example.com"),
    ],
)
def test_secrets_in_values_are_found(config: Config, context: str, secret: str) -> None:
    """A pattern of the context's list matches each kind of secret."""
    assert any(re.search(pattern, secret) for pattern in patterns(config, "replace_all_patterns", context))


def test_secret_keys_are_deleted_and_ours_are_not(config: Config) -> None:
    """The deletion removes keys that hold credentials, and none of the table of span names."""
    (pattern,) = patterns(config, "delete_matching_keys", "span")
    for key in ("http.request.header.authorization", "http.request.header.x-api-key", "session_token", "password"):
        assert re.search(pattern, key), key
    ours = [value for name, value in vars(spans).items() if name.isupper() and isinstance(value, str)]
    assert [key for key in ours if re.search(pattern, key)] == []


def test_otlp_listens_on_both_ports(config: Config) -> None:
    """The collector receives OTLP over gRPC on 4317 and over HTTP on 4318."""
    protocols = config["receivers"]["otlp"]["protocols"]
    assert protocols["grpc"]["endpoint"].endswith(":4317")
    assert protocols["http"]["endpoint"].endswith(":4318")


def test_probes_are_dropped(config: Config) -> None:
    """The sampling drops exactly the service's health routes, before any policy that keeps spans."""
    first = config["processors"]["tail_sampling"]["policies"][0]
    assert first["type"] == "drop"
    (probe,) = first["drop"]["drop_sub_policy"]
    assert probe["string_attribute"]["key"] == spans.HTTP_ROUTE
    assert set(probe["string_attribute"]["values"]) == HEALTH_ROUTES


def test_model_calls_are_kept_by_our_attribute(config: Config) -> None:
    """The sampling recognises a model call by the attribute that the gateway sets."""
    policies = {policy["name"]: policy for policy in config["processors"]["tail_sampling"]["policies"]}
    assert f'"{spans.GEN_AI_OPERATION}"' in policies["llm"]["ottl_condition"]["span"][0]


def test_metric_dimensions_are_attributes_of_ours(config: Config) -> None:
    """Every dimension is an attribute of some span: otherwise its label would always be empty."""
    ours = {value for name, value in vars(spans).items() if name.isupper()}
    assert {dimension["name"] for dimension in config["connectors"]["spanmetrics"]["dimensions"]} <= ours
