"""The composed services: connected to each other, and not reachable from other machines."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from protocol.routes import Routes
from service.config.routes_file import open_routes
from service.config.settings import Settings, load_settings
from service.server.server import EXIT_TIMEOUT
from tests.service.bench import open_service

Config = dict[str, Any]


def load(path: Path) -> Config:
    """The YAML file, parsed."""
    loaded: Config = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


@pytest.fixture(scope="session")
def services(root: Path) -> dict[str, Config]:
    """The services of compose.yaml by name."""
    found: dict[str, Config] = load(root / "compose.yaml")["services"]
    return found


def test_ports_are_published_on_loopback_only(services: dict[str, Config]) -> None:
    """No port is published to other machines."""
    for service in services.values():
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:"), port


def test_the_open_service_needs_keys(services: dict[str, Config]) -> None:
    """The service listens on all addresses of its container, so composing fails without API_KEYS."""
    environment = services["service"]["environment"]
    assert environment["HOST"] != "127.0.0.1"
    assert environment["API_KEYS"].startswith("${API_KEYS:?")


def test_what_is_set_for_the_service_are_its_settings(services: dict[str, Config]) -> None:
    """The service reads each variable, and accepts the values in the file."""
    environment: dict[str, str] = services["service"]["environment"]
    assert [name for name in environment if name.lower() not in Settings.model_fields] == []
    fixed = {name.lower(): value for name, value in environment.items() if "$" not in value}
    load_settings(None, **fixed, api_keys="a-key-of-the-tests").check_exposure()


def test_stopping_is_not_cut_off(services: dict[str, Config], root: Path) -> None:
    """The container's grace period is as long as a stop of the service; the health check uses the service's port."""
    patience = int(services["service"]["stop_grace_period"].removesuffix("s"))
    assert patience > load_settings(None).shutdown_grace_seconds + EXIT_TIMEOUT
    image = (root / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    port = load_settings(None).port
    assert f"ENV HOST=0.0.0.0 PORT={port}\n" in image
    assert f"EXPOSE {port}\n" in image
    assert services["service"]["environment"]["PORT"] == str(port)
    assert services["service"]["ports"] == [f"127.0.0.1:${{PORT:-{port}}}:{port}"]


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", ""])  # noqa: S104 - it is loopback's that is asked
async def test_the_health_check_asks_at_the_services_own_address(root: Path, host: str) -> None:
    """The image's health check follows HOST and PORT; it fails where the service does not answer."""

    async def check(port: str) -> int:
        environment = {"HOST": host, "PORT": port, "http_proxy": "http://127.0.0.1:1"}
        script = str(root / "deploy" / "healthcheck.py")
        process = await asyncio.create_subprocess_exec(
            sys.executable, script, env=environment, stderr=asyncio.subprocess.DEVNULL
        )
        return await process.wait()

    async with open_service(api_keys=("a-key-of-the-tests",)) as service:
        assert await check(str(service.port)) == 0
    assert await check("1") == 1


def test_the_mounted_file_is_one_of_routes_and_keys(root: Path, services: dict[str, Config]) -> None:
    """The service reads the file at the place where it is mounted; the one of the repository changes nothing."""
    (mount,) = services["service"]["volumes"]
    assert mount["target"] == services["service"]["environment"]["ROUTES_FILE"]
    assert mount["read_only"]
    file = open_routes(root / "deploy" / "tidegate.toml")
    assert (file.routes, file.keys) == (Routes(), {})


def test_images_are_pinned(services: dict[str, Config]) -> None:
    """An image carries a version: the same file starts the same programs."""
    for name, service in services.items():
        if "image" in service:
            assert service["image"].rpartition(":")[2] not in {"", "latest"}, name


def test_mounted_files_and_dependencies_exist(root: Path, services: dict[str, Config]) -> None:
    """The files that a service mounts are in the repository, and the services that it waits for are in the file."""
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume["source"] if isinstance(volume, dict) else volume.partition(":")[0]
            assert (root / re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", source)).is_file(), volume
        assert set(service.get("depends_on", [])) <= set(services)
    assert (root / services["service"]["build"]["dockerfile"]).is_file()


def test_settings_are_documented(root: Path, services: dict[str, Config]) -> None:
    """Each variable of the service is in .env.example."""
    example = (root / ".env.example").read_text(encoding="utf-8")
    for name in services["service"]["environment"]:
        assert f"{name}=" in example, name


def test_metrics_reach_the_monitor_tab(root: Path, services: dict[str, Config]) -> None:
    """Prometheus scrapes the collector's exporter, and Jaeger queries Prometheus with the same namespace and unit."""
    collector = load(root / "otel-collector.yaml")
    port = collector["exporters"]["prometheus"]["endpoint"].rpartition(":")[2]
    scraped = [
        target
        for job in load(root / "deploy" / "prometheus.yml")["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    ]
    assert f"collector:{port}" in scraped

    storage = load(root / "deploy" / "jaeger.yaml")["extensions"]["jaeger_storage"]
    prometheus = storage["metric_backends"]["span_metrics"]["prometheus"]
    spanmetrics = collector["connectors"]["spanmetrics"]
    assert prometheus["metric_namespace"] == spanmetrics["namespace"].replace(".", "_")
    assert prometheus["latency_unit"] == spanmetrics["histogram"]["unit"]
    assert {"collector", "jaeger", "prometheus"} <= set(services)
