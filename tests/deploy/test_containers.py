"""Dockerfile and compose.yaml: checked without a container engine, as far as that goes."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
CONFIGS = sorted(DEPLOY.glob("*.yaml"))
CONFIGS.remove(DEPLOY / "compose.yaml")


def instructions(word: str) -> list[str]:
    return re.findall(rf"^\s*{word}\s+(.+)$", DOCKERFILE, re.M)


def test_every_path_the_image_copies_exists_and_reaches_the_builder():
    ignore = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    copied = [shlex.split(line) for line in instructions("COPY") if "--from" not in line]
    assert copied
    for *sources, _target in copied:
        for source in sources:
            assert (ROOT / source).exists(), source
            assert f"!{source.removeprefix('./')}" in ignore, f"{source} is kept from the builder"


def test_the_image_runs_without_root_and_says_how_it_is():
    stages = instructions("FROM")
    assert len(stages) == 2
    assert all("slim" in stage for stage in stages)
    assert instructions("USER") == ["10001"]
    assert "/livez" in instructions("HEALTHCHECK")[0]


def test_the_image_starts_with_a_configuration_that_is_in_it():
    assert yaml.safe_load(instructions("CMD")[-1]) == ["run", "/etc/edgespool/edgespool.yaml"]
    assert ["deploy/image.yaml", "/etc/edgespool/edgespool.yaml"] in map(shlex.split, instructions("COPY"))


def test_compose_names_only_files_that_exist_and_volumes_it_declares():
    for service in COMPOSE["services"].values():
        build = service.get("build")
        if build:
            context = (DEPLOY / build["context"]).resolve()
            assert context == ROOT
            assert (context / build["dockerfile"]).is_file()
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (DEPLOY / source).is_file() if source.startswith(".") else source in COMPOSE["volumes"]


def test_compose_publishes_on_loopback_only_and_waits_for_a_healthy_queue():
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    gateway, rabbitmq = COMPOSE["services"]["gateway"], COMPOSE["services"]["rabbitmq"]
    assert gateway["depends_on"]["rabbitmq"]["condition"] == "service_healthy"
    assert rabbitmq["healthcheck"]["test"]
    # A moving tag of RabbitMQ must not be `latest`: its volumes only upgrade step by step.
    assert re.fullmatch(r"rabbitmq:\d+[\w.-]*", rabbitmq["image"])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.name)
def test_the_configurations_that_are_shipped_are_valid(config):
    filled = re.sub(r"\$\{RABBITMQ_PASSWORD:[^}]*\}", "from-dot-env", json.dumps(COMPOSE))
    environ = os.environ | json.loads(filled)["services"]["gateway"]["environment"]
    told = subprocess.run(
        [sys.executable, "-m", "bridge.cli", "validate", str(config)],
        capture_output=True,
        text=True,
        env=environ,
        timeout=60,
    )
    assert told.returncode == 0, told.stderr


@pytest.mark.skipif(not shutil.which("docker"), reason="docker is missing")
def test_compose_itself_understands_the_file():
    told = subprocess.run(
        ["docker", "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"],
        env={**os.environ, "RABBITMQ_PASSWORD": "x"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    if "is not a docker command" in told.stderr or "unknown shorthand flag" in told.stderr:
        pytest.skip("docker has no compose here")
    assert told.returncode == 0, told.stderr
